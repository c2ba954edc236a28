"""Fourier mixing without parameters (FNet, arXiv 2105.03824, section 3.2).

B batch, N tokens (P prefix tokens, then an H x W grid), C channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from luma_cli.isotropic.mixer import Sequence, TokenMixer
from luma_cli.isotropic.precision import widened
from luma_cli.isotropic.spectrum import grid_of

Scale = Literal["forward", "ortho", "backward"]


class FourierMixing(TokenMixer):
    """y = Re(F_tokens(F_channels(x))): every token sees every other, with fixed weights (https://arxiv.org/abs/2105.03824).

    over: `sequence` transforms all tokens as one row, prefix tokens included, as the paper does with text; `grid`
    transforms rows and columns of the patches, and takes no prefix tokens.
    scale: `forward` divides by the number of values transformed (N C), as the WTF benchmark does (arXiv 2308.09372), so
    that what tokens have in common does not grow with resolution; `ortho` divides by its square root, `backward` by
    nothing, as the paper, whose norm after the sum hides the scale; in a pre-norm block it would drown the skip path.

    No parameter at all, so every resolution is taken as it is. But a weight belongs to a frequency index: at another
    resolution a token meets other weights, and nothing that was learned around the mixing was learned for those.
    Transforms run in float32. Multiply-adds: 5/4 N C log2(N C), by the convention of `measure/formulas.py`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        sequence: Sequence,
        *,
        over: Literal["sequence", "grid"] = "sequence",
        scale: Scale = "forward",
    ) -> None:
        super().__init__(width, num_heads, sequence)
        self.grid = grid_of(sequence, "FNet over the grid") if over == "grid" else None
        self.scale = scale

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        signal = widened(tokens)
        if self.grid is not None:
            signal = signal.reshape(-1, *self.grid, self.width)
        return real_spectrum(signal, self.scale).flatten(1, -2).to(tokens.dtype)


def real_spectrum(signal: Tensor, scale: Scale) -> Tensor:
    """Real part of the Fourier transform of a real `signal` [B, ..., C] over all dimensions but the first.

    Only half of the channels are transformed. Those above C / 2 hold the conjugates of those below at the negated
    frequencies of all other dimensions, thus the same real parts.
    """
    channels, dims = signal.shape[-1], tuple(range(1, signal.ndim))
    below: Tensor = torch.fft.rfftn(signal, dim=dims, norm=scale).real
    above = below[..., 1 : (channels + 1) // 2].flip(dims).roll((1,) * (len(dims) - 1), dims[:-1])
    return torch.cat([below, above], dim=-1)
