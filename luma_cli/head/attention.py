"""The one cross-attention through which queries read patch features (arXiv 2607.00687, the side stream).

B batch, K queries, N patch tokens, D channels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

NORM_EPS = 1e-6  # as timm's transformers


class CrossAttention(nn.Module):
    """Pre-norm, unmasked multi-head cross-attention with biases and without positions."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_queries = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_tokens = nn.LayerNorm(width, eps=NORM_EPS)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)  # one matrix for both: one kernel less, same parameters
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Queries [K, D], the same for every image, and tokens [B, N, D] -> queries [B, K, D].

        Nothing that depends on the queries alone is computed more than once per call, whatever the batch.
        """
        num_queries, width = queries.shape
        batch = tokens.shape[0]
        asked = self.query(self.norm_queries(queries)).view(1, num_queries, self.num_heads, -1).transpose(1, 2)
        offered = self.key_value(self.norm_tokens(tokens)).view(batch, -1, 2, self.num_heads, width // self.num_heads)
        keys, values = offered.permute(2, 0, 3, 1, 4).unbind(0)
        read = scaled_dot_product_attention(asked.expand(batch, -1, -1, -1), keys, values)
        update: Tensor = self.out(read.transpose(1, 2).reshape(batch, num_queries, width))
        return queries + update
