"""Token mixers that work on frequencies: AFNO, FNet and GFNet's global filter; each class names its paper.

A real signal has a symmetric spectrum, of which the W // 2 + 1 columns of frequencies from zero up are kept.
B batch, H W patches, N tokens (H W, and P prefix tokens before them in FNet), C channels, R = H (W // 2 + 1)
frequencies, k blocks of C / k channels.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softshrink

from luma_cli.isotropic.vit import Sequence, TokenMixer, widened, without_autocast

_STD = 0.02  # of initial weights: github.com/NVlabs/AFNO-transformer and github.com/raoyongming/GFNet


def grid_of(sequence: Sequence, mixer: str) -> tuple[int, int]:
    """Rows and columns of `sequence`. Raises ValueError when it holds more than the patch grid."""
    if sequence.num_prefix:
        raise ValueError(
            f"{mixer} needs the patch grid alone, got {sequence.num_prefix} prefix token(s); "
            "build it with class_token=False, global_pool='avg'"
        )
    return sequence.grid


def num_columns(width: int) -> int:
    """Columns kept of the spectrum of a grid of `width` columns.

    >>> num_columns(14)
    8
    """
    return width // 2 + 1


def to_spectrum(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens [B, N, C] -> complex [B, H, W // 2 + 1, C] in float32 or more, the transform unitary.

    Raises ValueError when the tokens do not fill `grid`.
    """
    if tokens.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"{tokens.shape[1]} tokens, expected {grid[0]} x {grid[1]}; build the model at this img_size")
    spectrum: Tensor = torch.fft.rfft2(widened(tokens).reshape(-1, *grid, tokens.shape[2]), dim=(1, 2), norm="ortho")
    return spectrum


def from_spectrum(spectrum: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of `to_spectrum`: complex [B, H, W // 2 + 1, C] -> real tokens [B, N, C]."""
    tokens: Tensor = torch.fft.irfft2(spectrum, s=grid, dim=(1, 2), norm="ortho")
    return tokens.flatten(1, 2)


class FourierOperator(TokenMixer):
    """AFNO: one small MLP for all frequencies of the grid (arXiv 2111.13587, section 4).

    x + F^-1[S(MLP(F[x]))] with a complex MLP that every frequency shares, block-diagonal in k blocks of channels.
    S shrinks real and imaginary parts towards zero by `shrinkage`, the MLP's ReLU acts on each of them, and the input
    is added as in the paper's pseudo-code (`bias = x`). The hidden layer is `expansion` times as wide as a block.
    Every token sees every other, and no parameter depends on their number, so every resolution is taken as it is.
    But the unitary transform of the same image on a finer grid has low frequencies that grow with sqrt(N), against
    which bias and shrinkage stay what they were.
    Runs in float32. Multiply-adds: 8 R C^2 expansion / k + 5/2 N C log2(N), by the convention of `measure/formulas.py`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        sequence: Sequence,
        *,
        num_blocks: int = 8,
        expansion: int = 1,
        shrinkage: float = 0.01,
    ) -> None:
        super().__init__(width, num_heads, sequence)
        if width % num_blocks:
            raise ValueError(f"{width} channels do not split into {num_blocks} blocks; choose num_blocks that divides")
        self.grid = grid_of(sequence, "AFNO")
        self.num_blocks = num_blocks
        self.shrinkage = shrinkage
        inner, hidden = width // num_blocks, width // num_blocks * expansion
        self.w1 = nn.Parameter(_STD * torch.randn(2, num_blocks, inner, hidden))
        self.b1 = nn.Parameter(_STD * torch.randn(2, num_blocks, hidden))
        self.w2 = nn.Parameter(_STD * torch.randn(2, num_blocks, hidden, inner))
        self.b2 = nn.Parameter(_STD * torch.randn(2, num_blocks, inner))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]. Raises ValueError when N is not that of the grid it was built for."""
        with without_autocast(tokens.device):
            spectrum = to_spectrum(tokens, self.grid)
            blocks = spectrum.reshape(*spectrum.shape[:3], self.num_blocks, -1)
            parts = torch.cat([blocks.real, blocks.imag], dim=-1)
            parts = complex_linear(parts, self.w1, self.b1).relu()
            parts = softshrink(complex_linear(parts, self.w2, self.b2), self.shrinkage)
            shrunk = torch.complex(*parts.chunk(2, dim=-1)).flatten(-2)
            return tokens + from_spectrum(shrunk, self.grid).to(tokens.dtype)


def complex_linear(parts: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A block-diagonal complex linear layer in real arithmetic, all four real products in one.

    parts [..., k, 2 I], real then imaginary; weight [2, k, I, O] and bias [2, k, O], real and imaginary
    -> [..., k, 2 O].
    """
    (real, imaginary), shift = widened(weight), torch.cat(tuple(widened(bias)), dim=-1)
    matrix = torch.cat([torch.cat([real, imaginary], dim=-1), torch.cat([-imaginary, real], dim=-1)], dim=-2)
    return torch.einsum("...ki,kio->...ko", parts, matrix) + shift


Scale = Literal["forward", "ortho", "backward"]


class FourierMixing(TokenMixer):
    """FNet: Fourier mixing without parameters, y = Re(F_tokens(F_channels(x))) (arXiv 2105.03824, section 3.2).

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


class GlobalFilter(TokenMixer):
    """GFNet: x -> F^-1[K * F[x]] per channel, a circular convolution as large as the grid (arXiv 2107.00645, 3.2).

    K, complex, has a weight for each of the H x (W // 2 + 1) frequencies and C channels, so parameters grow with the
    number of patches. At another resolution it is resampled: `resampled` keeps the filter's response at each frequency
    in cycles per patch, linear between the frequencies that were learned (section 3.2 of the paper: K as samples of a
    continuous spectrum). The filter then covers as many patches as before, thus a smaller part of the image.
    The paper's block has one residual around filter and FFN; here, as in AFNO's, each has its own.
    Transforms run in float32. Multiply-adds: 5/2 N C log2(N), by the convention of `measure/formulas.py`.
    """

    def __init__(self, width: int, num_heads: int, sequence: Sequence) -> None:
        super().__init__(width, num_heads, sequence)
        self.grid = grid_of(sequence, "GFNet")
        rows, columns = self.grid
        self.complex_weight = nn.Parameter(_STD * torch.randn(rows, num_columns(columns), width, 2))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]. Raises ValueError when N is not that of the grid it was built for."""
        weight = torch.view_as_complex(widened(self.complex_weight))
        return from_spectrum(to_spectrum(tokens, self.grid) * weight, self.grid).to(tokens.dtype)

    def resampled(self, name: str, value: Tensor) -> Tensor:
        """The filter [H', W' // 2 + 1, C, 2] of another grid at this grid's frequencies; W' = H' where that fits."""
        if name != "complex_weight" or value.shape == self.complex_weight.shape or value.ndim != 4:
            return value
        old_rows, old_columns = value.shape[0], _width(value.shape[0], value.shape[1])
        rows = _between(_frequencies(self.grid[0], self.grid[0]) * old_rows, old_rows, wraps=True)
        columns = _between(_frequencies(self.grid[1], num_columns(self.grid[1])) * old_columns, value.shape[1])
        return torch.einsum("io,jp,opcr->ijcr", rows, columns, value.double()).to(value.dtype)


def _width(rows: int, kept: int) -> int:
    """Columns of a stored grid, which its filter does not say exactly: as many as rows where both fit."""
    return rows if num_columns(rows) == kept else 2 * (kept - 1)


def _frequencies(size: int, count: int) -> Tensor:
    """The first `count` frequencies of a transform of `size` points, from 0 up to but not including 1."""
    return torch.arange(count, dtype=torch.float64) / size


def _between(places: Tensor, count: int, *, wraps: bool = False) -> Tensor:
    """Linear interpolation at fractional `places` among `count` samples, as a matrix [places, count]."""
    below = places.floor().long()
    share = places - below
    lower, upper = (below % count, (below + 1) % count) if wraps else (below.clamp_max(count - 1), below + 1)
    one_hot = torch.eye(count, dtype=torch.float64)
    return (1 - share)[:, None] * one_hot[lower] + share[:, None] * one_hot[upper.clamp_max(count - 1)]
