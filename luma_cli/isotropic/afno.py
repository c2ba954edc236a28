"""Adaptive Fourier neural operator: one small MLP for all frequencies of the grid (AFNO, arXiv 2111.13587, section 4).

B batch, H W patches, N = H W tokens, C channels, R = H (W // 2 + 1) frequencies, k blocks of C / k channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softshrink

from luma_cli.isotropic.mixer import Sequence, TokenMixer
from luma_cli.isotropic.precision import widened, without_autocast
from luma_cli.isotropic.spectrum import from_spectrum, grid_of, to_spectrum

_AFNO_STD = 0.02  # of every weight and bias, as https://github.com/NVlabs/AFNO-transformer


class FourierOperator(TokenMixer):
    """x + F^-1[S(MLP(F[x]))] with a complex MLP that every frequency shares, block-diagonal in k blocks of channels.

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
        self.w1 = nn.Parameter(_AFNO_STD * torch.randn(2, num_blocks, inner, hidden))
        self.b1 = nn.Parameter(_AFNO_STD * torch.randn(2, num_blocks, hidden))
        self.w2 = nn.Parameter(_AFNO_STD * torch.randn(2, num_blocks, hidden, inner))
        self.b2 = nn.Parameter(_AFNO_STD * torch.randn(2, num_blocks, inner))

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
