"""Linformer: attention over keys and values projected to a fixed number of rows (Wang et al., arXiv 2006.04768).

B batch, N tokens, C channels, H heads of d channels, R rows (the paper's k).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from luma_cli.isotropic.mixer import Sequence, TokenMixer
from luma_cli.isotropic.resampling import over_grid

NUM_ROWS = 256  # as in the benchmark (arXiv 2308.09372), which saves nothing below 256 tokens (224 pixels have 197)


class LinformerAttention(TokenMixer):
    """out = softmax(q (E^T k)^T / sqrt(d)) F^T v, with E and F [N, R] shared by the heads (section 4, eq. 7).

    Every token sees R learned mixtures of all tokens: 4 N C^2 + 4 N C R multiply-adds. E and F belong to one number of
    tokens; those of another are resampled over the grid, the class token's row kept. Their sums over tokens grow with
    the tokens' number, so keys and values do as well: at 1024 pixels they are about 21 times those at 224.
    """

    def __init__(self, width: int, num_heads: int, sequence: Sequence, num_rows: int = NUM_ROWS) -> None:
        super().__init__(width, num_heads, sequence)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.key_mixtures = nn.Parameter(_initial(sequence.length, num_rows))
        self.value_mixtures = nn.Parameter(_initial(sequence.length, num_rows))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]. Raises ValueError when N is not the number of tokens it was built for."""
        self.check_length(tokens)
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        keys, values = self.key_mixtures.T @ keys, self.value_mixtures.T @ values
        queries, keys, values = map(self.split_heads, (queries, keys, values))
        mixed = scaled_dot_product_attention(queries, keys, values)
        result: Tensor = self.proj(self.merge_heads(mixed))
        return result

    def resampled(self, name: str, value: Tensor) -> Tensor:
        """E and F bilinear over the grid; the rest as it is."""
        return over_grid(value, self.sequence, 0) if name in ("key_mixtures", "value_mixtures") else value


def _initial(length: int, num_rows: int) -> Tensor:
    """[N, R] uniform within 1 / sqrt(R), as the benchmark draws it."""
    return torch.empty(length, num_rows).uniform_(-(num_rows**-0.5), num_rows**-0.5)
