"""Synthesizers: attention whose weights no longer compare tokens (Tay et al., arXiv 2005.00743).

B batch, N tokens, C channels, H heads of d channels.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from luma_cli.isotropic.mixer import Sequence, TokenMixer
from luma_cli.isotropic.resampling import along, over_grid

RANK = 8  # of the factorised random one: the paper's own, and the benchmark's (arXiv 2308.09372)


class Synthesizer(TokenMixer):
    """out = softmax(scores) v (section 3); a subclass says where the scores come from."""

    def __init__(self, width: int, num_heads: int, sequence: Sequence) -> None:
        super().__init__(width, num_heads, sequence)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    @abstractmethod
    def scores(self, tokens: Tensor) -> Tensor:
        """Logits [B or 1, H, N, N] of tokens [B, N, C]: rows are the tokens that see, columns those that are seen."""

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]. Raises ValueError when N is not the number of tokens it was built for."""
        self.check_length(tokens)
        values = self.split_heads(self.value(tokens))
        weights = self.scores(tokens).softmax(dim=-1, dtype=torch.float32).to(values.dtype)
        mixed: Tensor = self.proj(self.merge_heads(weights @ values))
        return mixed


class DenseSynthesizer(Synthesizer):
    """scores_i = relu(x_i W_1 + b_1) W_2 + b_2: each token names from itself alone whom it sees (Dense Synthesizer).

    3 N C^2 + 2 N^2 C multiply-adds. W_2 and b_2 belong to one number of tokens; resampled over the seen tokens' grid.
    """

    def __init__(self, width: int, num_heads: int, sequence: Sequence) -> None:
        super().__init__(width, num_heads, sequence)
        self.hidden = nn.Linear(width, width)
        self.weight = nn.Parameter(0.02 * torch.randn(num_heads, width // num_heads, sequence.length))
        self.bias = nn.Parameter(torch.zeros(num_heads, 1, sequence.length))

    def scores(self, tokens: Tensor) -> Tensor:
        """Logits [B, H, N, N]."""
        return self.split_heads(relu(self.hidden(tokens))) @ self.weight + self.bias

    def resampled(self, name: str, value: Tensor) -> Tensor:
        """W_2 and b_2 bilinear over the grid; the rest as it is."""
        return over_grid(value, self.sequence, 2) if name in ("weight", "bias") else value


class RandomSynthesizer(Synthesizer):
    """scores = R, drawn once, the same for every image (Random Synthesizer); learned, or as drawn where `fixed`.

    2 N C^2 + N^2 C multiply-adds. R [H, N, N] belongs to one number of tokens; resampled over both grids.
    """

    table: Tensor

    def __init__(self, width: int, num_heads: int, sequence: Sequence, fixed: bool = False) -> None:
        super().__init__(width, num_heads, sequence)
        table = torch.randn(num_heads, sequence.length, sequence.length)
        self.register_buffer("table", table) if fixed else self.register_parameter("table", nn.Parameter(table))

    def scores(self, tokens: Tensor) -> Tensor:
        """Logits [1, H, N, N]."""
        return self.table.unsqueeze(0)

    def resampled(self, name: str, value: Tensor) -> Tensor:
        """R bilinear over the grid of the seeing and of the seen tokens; the rest as it is."""
        return over_grid(over_grid(value, self.sequence, 1), self.sequence, 2) if name == "table" else value


class FactorisedRandomSynthesizer(Synthesizer):
    """scores = R_1 R_2^T with learned R_1 and R_2 of rank 8, the same for every image (Factorized Random).

    2 N C^2 + N^2 C multiply-adds an image and 8 H N^2 a batch. R_1 and R_2 belong to one number of tokens; resampled
    over the grid, the class token's row kept.
    """

    def __init__(self, width: int, num_heads: int, sequence: Sequence, rank: int = RANK) -> None:
        super().__init__(width, num_heads, sequence)
        self.seeing = nn.Parameter(torch.randn(num_heads, sequence.length, rank))
        self.seen = nn.Parameter(torch.randn(num_heads, rank, sequence.length))

    def scores(self, tokens: Tensor) -> Tensor:
        """Logits [1, H, N, N]."""
        return (self.seeing @ self.seen).unsqueeze(0)

    def resampled(self, name: str, value: Tensor) -> Tensor:
        """R_1 and R_2 bilinear over the grid; the rest as it is."""
        dims = {"seeing": 1, "seen": 2}
        return over_grid(value, self.sequence, dims[name]) if name in dims else value


class FactorisedDenseSynthesizer(Synthesizer):
    """scores_ij = a_i[j // L'] b_i[j // L], a_i of L and b_i of L' entries linear in x_i, L L' >= N (Factorized Dense).

    L is the root of N, rounded, as in the benchmark, which repeats the entries of both factors in place (the paper says
    only that they are tiled): neighbours in the row-by-row order share a score, and at 224 pixels 28 values serve 197
    tokens. `outer` instead pairs every entry of a with every entry of b: a_i[j // L'] b_i[j % L'].
    2 N C^2 + N C H (L + L') + N^2 C multiply-adds. Both projections belong to one number of tokens; those of another
    are resampled along the order of tokens, each head by itself.
    """

    def __init__(self, width: int, num_heads: int, sequence: Sequence, outer: bool = False) -> None:
        super().__init__(width, num_heads, sequence)
        self.outer = outer
        num_first = round(math.sqrt(sequence.length))
        num_second = math.ceil(sequence.length / num_first)
        self.first = nn.Linear(width, num_heads * num_first)
        self.second = nn.Linear(width, num_heads * num_second)

    def scores(self, tokens: Tensor) -> Tensor:
        """Logits [B, H, N, N]."""
        first, second = self.split_heads(self.first(tokens)), self.split_heads(self.second(tokens))
        num_first, num_second = first.shape[-1], second.shape[-1]
        repeated = first.repeat_interleave(num_second, dim=-1)
        other = second.repeat(1, 1, 1, num_first) if self.outer else second.repeat_interleave(num_first, dim=-1)
        length = self.sequence.length
        return repeated[..., :length] * other[..., :length]

    def resampled(self, name: str, value: Tensor) -> Tensor:
        """Both projections, weight and bias, linear along the entries of each head; the rest as it is."""
        layers = {"first": self.first, "second": self.second}
        layer = layers.get(name.partition(".")[0])
        if layer is None or value.shape[0] % self.num_heads:
            return value
        heads = value.reshape(self.num_heads, -1, *value.shape[1:])
        return along(heads, layer.out_features // self.num_heads, 1).flatten(0, 1)
