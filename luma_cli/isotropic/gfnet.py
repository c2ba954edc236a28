"""Global filter: a learned weight for every frequency of the patch grid (GFNet, arXiv 2107.00645, section 3.2).

B batch, H W patches, N = H W tokens, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luma_cli.isotropic.mixer import Sequence, TokenMixer
from luma_cli.isotropic.precision import widened
from luma_cli.isotropic.spectrum import from_spectrum, grid_of, num_columns, to_spectrum

_GFNET_STD = 0.02  # of the initial filter, as https://github.com/raoyongming/GFNet


class GlobalFilter(TokenMixer):
    """x -> F^-1[K * F[x]] per channel: a circular convolution as large as the grid (section 3.2).

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
        self.complex_weight = nn.Parameter(_GFNET_STD * torch.randn(rows, num_columns(columns), width, 2))

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
