"""Linear attention: the softmax replaced by a product of feature maps (Katharopoulos et al., arXiv 2006.16236).

B batch, N tokens, C channels, H heads of d channels, F features.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import elu

from luma_cli.isotropic.mixer import Sequence, TokenMixer

_LINEAR_EPSILON = 1e-6  # of the authors' fast-transformers


class LinearAttention(TokenMixer):
    """out_i = sum_j (phi(q_i) phi(k_j)) v_j / sum_j phi(q_i) phi(k_j), phi(x) = elu(x) + 1 (section 3.2, eqs. 4-7).

    Every token sees every other through one d x d summary per head: 4 N C^2 + 2 N C d + N C multiply-adds. No parameter
    depends on the number of tokens, and the weights of each token sum to one at every resolution.
    """

    def __init__(self, width: int, num_heads: int, sequence: Sequence) -> None:
        super().__init__(width, num_heads, sequence)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        queries, keys, values = map(self.split_heads, self.qkv(tokens).chunk(3, dim=-1))
        mixed = attend(elu(queries) + 1, elu(keys) + 1, values, epsilon=_LINEAR_EPSILON)
        result: Tensor = self.proj(self.merge_heads(mixed))
        return result


def attend(queries: Tensor, keys: Tensor, values: Tensor, epsilon: float) -> Tensor:
    """Normalised linear attention of features [B, H, N, F] over values [B, H, N, d]: [B, H, N, d] (eq. 5).

    Keys are averaged rather than summed, which cancels, so that no sum over tokens leaves float16's range; `epsilon` is
    added to the normaliser on the scale of sums, and the division is done in float32.
    """
    num_tokens = keys.shape[2]
    keys = keys / num_tokens
    summary = keys.transpose(-2, -1) @ values
    total = keys.sum(dim=2).unsqueeze(-1)
    normaliser = (queries @ total).float() + epsilon / num_tokens
    return ((queries @ summary) / normaliser).to(values.dtype)
