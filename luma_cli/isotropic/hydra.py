"""Hydra attention: as many heads as channels, cosine similarity, linear in tokens (arXiv 2209.07484, section 3).

B batch, N tokens, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import normalize

from luma_cli.isotropic.mixer import Sequence, TokenMixer


class HydraAttention(TokenMixer):
    """out_i = phi(q_i) * sum_j phi(k_j) * v_j with phi(x) = x / |x| over channels, products element by element (eq. 6).

    Every token sees the same sum over all tokens, gated by its own query: 4 N C^2 multiply-adds, all of projections. No
    parameter depends on the number of tokens, so every resolution is taken as it is; but the sum is not divided by
    N: it is about 21 times as large at 1024 pixels as at 224.
    """

    def __init__(self, width: int, num_heads: int, sequence: Sequence) -> None:
        super().__init__(width, num_heads, sequence)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        whole = (normalize(keys, dim=-1) * values).sum(dim=1, keepdim=True)
        mixed: Tensor = self.proj(normalize(queries, dim=-1) * whole)
        return mixed
