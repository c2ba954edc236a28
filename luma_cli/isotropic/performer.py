"""Performer: softmax attention estimated by positive orthogonal random features, FAVOR+ (arXiv 2009.14794).

B batch, N tokens, C channels, H heads of d channels, M features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luma_cli.isotropic.linear import attend
from luma_cli.isotropic.mixer import Sequence, TokenMixer

NUM_FEATURES = 128  # as in the benchmark (arXiv 2308.09372); the paper's order d log d is 266 at d = 64
_PERFORMER_EPSILON = 1e-4  # of the authors' code: keeps every feature above zero


class PerformerAttention(TokenMixer):
    """softmax(q k / sqrt(d)) = E[phi(q) phi(k)], phi(x) = exp(w x - |x|^2 / 2) with x / d^(1/4) (section 2.3, lemma 1).

    The M directions w of all heads are rows of random orthogonal matrices with the lengths of Gaussian vectors (section
    2.4). They are a buffer drawn when the model is built, from torch's seed, saved with the weights and never redrawn
    (the paper redraws during training, the benchmark does not). 4 N C^2 + 4 N C M + N H M multiply-adds.
    No parameter depends on the number of tokens, and the weights of each token sum to one at every resolution.
    """

    directions: Tensor

    def __init__(
        self,
        width: int,
        num_heads: int,
        sequence: Sequence,
        num_features: int = NUM_FEATURES,
        epsilon: float = _PERFORMER_EPSILON,
    ) -> None:
        super().__init__(width, num_heads, sequence)
        self.epsilon = epsilon
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.register_buffer("directions", torch.empty(num_features, width // num_heads))
        if not self.directions.is_meta:
            seed = int(torch.randint(2**31, (), device="cpu"))
            generator = torch.Generator().manual_seed(seed)
            self.directions.copy_(orthogonal_directions(num_features, width // num_heads, generator))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        queries, keys, values = map(self.split_heads, self.qkv(tokens).chunk(3, dim=-1))
        mixed = attend(self._features(queries, (-1,)), self._features(keys, (-2, -1)), values, epsilon=0.0)
        result: Tensor = self.proj(self.merge_heads(mixed))
        return result

    def _features(self, vectors: Tensor, peak: tuple[int, ...]) -> Tensor:
        """[B, H, N, d] -> [B, H, N, M] up to a factor that the normaliser cancels, so that no exponential overflows.

        peak: dimensions over which that factor is shared; a query's may be its own, keys' must be common.
        """
        scaled = vectors * vectors.shape[-1] ** -0.25
        exponents = (scaled @ self.directions.to(scaled.dtype).T).float()
        highest = exponents.amax(dim=peak, keepdim=True).detach()
        half_norms = scaled.float().square().sum(dim=-1, keepdim=True) / 2
        features: Tensor = (exponents - half_norms - highest).exp() + self.epsilon
        return features.to(vectors.dtype)


def orthogonal_directions(num_features: int, head_width: int, generator: torch.Generator) -> Tensor:
    """[M, d] on the CPU: blocks of d orthogonal rows, each as long as a Gaussian vector of its own (section 2.4).

    The signs of R make the blocks uniform among orthogonal matrices (Mezzadri, arXiv math-ph/0609050); without them the
    estimate of the softmax would be biased.
    """
    num_blocks = -(-num_features // head_width)
    squares, triangles = torch.linalg.qr(
        torch.randn((num_blocks, head_width, head_width), generator=generator, device="cpu")
    )
    squares = squares * triangles.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    lengths = torch.randn((num_features, head_width), generator=generator, device="cpu").norm(dim=1, keepdim=True)
    rows: Tensor = squares.mT.reshape(-1, head_width)[:num_features] * lengths
    return rows
