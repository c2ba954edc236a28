"""The one cross-attention through which queries read patch features (arXiv 2607.00687, the side stream).

B batch, K queries, N patch tokens, D channels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

NORM_EPS = 1e-6  # as timm's transformers


class CrossAttention(nn.Module):
    """Pre-norm, unmasked multi-head cross-attention with biases and without positions."""

    def __init__(self, width: int, num_heads: int, tokens_width: int = 0) -> None:
        """tokens_width: channels of the tokens, 0 for those of the queries."""
        super().__init__()
        tokens_width = tokens_width or width
        self.num_heads = num_heads
        self.norm_queries = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_tokens = nn.LayerNorm(tokens_width, eps=NORM_EPS)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(tokens_width, 2 * width)  # one matrix for both: one kernel less, same parameters
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Queries and tokens [B, N, D] -> queries [B, K, D].

        Queries [K, D] are the same for every image: what depends on them alone is then computed once per call, whatever
        the batch. Queries [B, K, D] are those of each image.
        """
        num_queries, width = queries.shape[-2:]
        batch = tokens.shape[0]
        asked = self.query(self.norm_queries(queries)).view(-1, num_queries, self.num_heads, width // self.num_heads)
        offered = self.key_value(self.norm_tokens(tokens)).view(batch, -1, 2, self.num_heads, width // self.num_heads)
        keys, values = offered.permute(2, 0, 3, 1, 4).unbind(0)
        read = scaled_dot_product_attention(asked.transpose(1, 2).expand(batch, -1, -1, -1), keys, values)
        update: Tensor = self.out(read.transpose(1, 2).reshape(batch, num_queries, width))
        return queries + update
