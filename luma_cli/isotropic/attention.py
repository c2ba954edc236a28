"""Token mixers in the place of softmax attention: linear, Hydra, Performer, Linformer, Nyström and four Synthesizers.

Each class names its paper. All take `(width, num_heads, sequence)` and map tokens [B, N, C] to tokens [B, N, C].
B batch, N tokens, C channels, H heads of d = C / H channels.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, normalize, relu, scaled_dot_product_attention

from luma_cli.isotropic.vit import QkvMixer, Sequence, TokenMixer, along, over_grid, wide, widened, without_autocast


class LinearAttention(QkvMixer):
    """Linear attention (Katharopoulos et al., arXiv 2006.16236, section 3.2, equations 4-7).

    out_i = sum_j (phi(q_i) phi(k_j)) v_j / sum_j phi(q_i) phi(k_j), phi(x) = elu(x) + 1.
    Every token sees every other through one d x d summary per head: 4 N C^2 + 2 N C d + N C multiply-adds. No parameter
    depends on the number of tokens, and the weights of each token sum to one at every resolution.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        queries, keys, values = self.in_heads(tokens)
        # 1e-6: as in the authors' fast-transformers
        return self.out_of_heads(attend(elu(queries) + 1, elu(keys) + 1, values, epsilon=1e-6))


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


class HydraAttention(QkvMixer):
    """Hydra attention: as many heads as channels (arXiv 2209.07484, section 3, equation 6).

    out_i = phi(q_i) * sum_j phi(k_j) * v_j with phi(x) = x / |x| over channels, products element by element.
    Every token sees the same sum over all tokens, gated by its own query: 4 N C^2 multiply-adds, all of projections. No
    parameter depends on the number of tokens, so every resolution is taken as it is; but the sum is not divided by
    N: it is about 21 times as large at 1024 pixels as at 224.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        whole = (normalize(keys, dim=-1) * values).sum(dim=1, keepdim=True)
        mixed: Tensor = self.proj(normalize(queries, dim=-1) * whole)
        return mixed


class PerformerAttention(QkvMixer):
    """Performer: softmax attention estimated by positive orthogonal random features, FAVOR+ (arXiv 2009.14794).

    softmax(q k / sqrt(d)) = E[phi(q) phi(k)], phi(x) = exp(w x - |x|^2 / 2) with x / d^(1/4) (section 2.3, lemma 1).
    num_features: M, 128 as in the WTF benchmark (arXiv 2308.09372); the paper's order d log d is 266 at d = 64.
    epsilon: keeps every feature above zero, as in the authors' code.
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
        num_features: int = 128,
        epsilon: float = 1e-4,
    ) -> None:
        super().__init__(width, num_heads, sequence)
        self.epsilon = epsilon
        self.register_buffer("directions", torch.empty(num_features, width // num_heads))
        if not self.directions.is_meta:
            seed = int(torch.randint(2**31, (), device="cpu"))
            generator = torch.Generator().manual_seed(seed)
            self.directions.copy_(orthogonal_directions(num_features, width // num_heads, generator))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        queries, keys, values = self.in_heads(tokens)
        mixed = attend(self._features(queries, (-1,)), self._features(keys, (-2, -1)), values, epsilon=0.0)
        return self.out_of_heads(mixed)

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
    gaussian = torch.randn((num_blocks, head_width, head_width), generator=generator, device="cpu")
    squares, triangles = torch.linalg.qr(gaussian)
    squares = squares * triangles.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    lengths = torch.randn((num_features, head_width), generator=generator, device="cpu").norm(dim=1, keepdim=True)
    rows: Tensor = squares.mT.reshape(-1, head_width)[:num_features] * lengths
    return rows


class LinformerAttention(QkvMixer):
    """Linformer: keys and values projected to R rows (the paper's k; Wang et al., arXiv 2006.04768, section 4, eq. 7).

    out = softmax(q (E^T k)^T / sqrt(d)) F^T v, with E and F [N, R] shared by the heads.
    num_rows: R, 256 as in the WTF benchmark, which saves nothing below 256 tokens (224 pixels have 197).
    Every token sees R learned mixtures of all tokens: 4 N C^2 + 4 N C R multiply-adds. E and F belong to one number of
    tokens; those of another are resampled over the grid, the class token's row kept. Their sums over tokens grow with
    the tokens' number, so keys and values do as well: at 1024 pixels they are about 21 times those at 224.
    """

    def __init__(self, width: int, num_heads: int, sequence: Sequence, num_rows: int = 256) -> None:
        super().__init__(width, num_heads, sequence, qkv_bias=False)
        bound = num_rows**-0.5  # as the benchmark draws them
        self.key_mixtures = nn.Parameter(torch.empty(sequence.length, num_rows).uniform_(-bound, bound))
        self.value_mixtures = nn.Parameter(torch.empty(sequence.length, num_rows).uniform_(-bound, bound))

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]. Raises ValueError when N is not the number of tokens it was built for."""
        self.check_length(tokens)
        queries, keys, values = self.qkv(tokens).chunk(3, dim=-1)
        keys, values = self.key_mixtures.T @ keys, self.value_mixtures.T @ values
        queries, keys, values = map(self.split_heads, (queries, keys, values))
        return self.out_of_heads(scaled_dot_product_attention(queries, keys, values))

    def resampled(self, name: str, value: Tensor) -> Tensor:
        """E and F bilinear over the grid; the rest as it is."""
        return over_grid(value, self.sequence, 0) if name in ("key_mixtures", "value_mixtures") else value


class NystromAttention(QkvMixer):
    """Nyström attention: softmax attention rebuilt from landmarks (Nyströmformer, arXiv 2102.03902, section 3).

    softmax(Q L_k) pinv(softmax(L_q L_k)) softmax(L_q K) V, landmarks L being means of consecutive tokens.
    Every token sees every other, but only through `num_landmarks` means; with as many landmarks as tokens this is
    softmax attention, up to the inverse (`num_steps` iterations, section 3.2). Fewer tokens than landmarks: as many
    landmarks as tokens. Prefix tokens count as the first of the sequence.
    skip: `convolution` adds values passed through a depthwise convolution along the sequence, one filter of
    `kernel_size` taps per head (the paper's figure 2; 35 taps as https://github.com/mlpen/Nystromformer has for long
    sequences); `value` adds the values themselves after the last layer, as T2T-ViT and the WTF benchmark do.

    No parameter depends on the number of tokens, so every resolution is taken as it is. But the landmarks stay as many:
    from 224 to 1024 pixels each averages 64 tokens instead of 3, a whole row of the grid, and the convolution reaches
    half a row instead of two and a half. Softmax and inverse run in float32.
    Multiply-adds with m landmarks and t steps: 4 N C^2 + 4 m N C + 2 m^2 C + 4 t H m^3, and kernel_size N C more.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        sequence: Sequence,
        *,
        num_landmarks: int = 64,
        num_steps: int = 6,
        skip: Literal["convolution", "value"] = "convolution",
        kernel_size: int = 35,
    ) -> None:
        super().__init__(width, num_heads, sequence)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} has no middle; choose an odd one")
        self.num_landmarks = num_landmarks
        self.num_steps = num_steps
        # one filter per head along the tokens of [B, H, N, d], the same for the d channels of a head
        shape, padding = (kernel_size, 1), (kernel_size // 2, 0)
        self.conv = (
            nn.Conv2d(num_heads, num_heads, shape, padding=padding, groups=num_heads, bias=False)
            if skip == "convolution"
            else None
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        queries, keys, values = self.in_heads(tokens)
        mixed = nystrom(queries, keys, values, self.num_landmarks, self.num_steps)
        if self.conv is None:
            return self.merge_heads(values) + self.out_of_heads(mixed)
        return self.out_of_heads(mixed + self.conv(values))


def nystrom(queries: Tensor, keys: Tensor, values: Tensor, num_landmarks: int, num_steps: int) -> Tensor:
    """Nyström's approximation of softmax attention: queries, keys and values [B, H, N, d] -> [B, H, N, d].

    Multiplied from the right, so that nothing of size N x N is formed.
    """
    queries = queries * queries.shape[-1] ** -0.5
    from_queries, from_keys = landmarks(queries, num_landmarks), landmarks(keys, num_landmarks)
    to_landmarks = (queries @ from_keys.mT).softmax(-1, dtype=wide(queries.dtype)).to(values.dtype)
    from_landmarks = (from_queries @ keys.mT).softmax(-1, dtype=wide(queries.dtype)).to(values.dtype)
    read = from_landmarks @ values
    with without_autocast(values.device):
        between = (widened(from_queries) @ widened(from_keys).mT).softmax(-1)
        spread = (pseudo_inverse(between, num_steps) @ widened(read)).to(values.dtype)
    return to_landmarks @ spread


def landmarks(tokens: Tensor, count: int) -> Tensor:
    """Means of `count` runs of consecutive tokens: [..., N, d] -> [..., min(count, N), d].

    Where N does not divide, the first runs are one token shorter than the others.
    """
    count = min(count, tokens.shape[-2])
    length, num_long = divmod(tokens.shape[-2], count)
    short = (count - num_long) * length
    runs = [_means(tokens[..., :short, :], length)]
    if num_long:
        runs.append(_means(tokens[..., short:, :], length + 1))
    return torch.cat(runs, dim=-2)


def _means(tokens: Tensor, length: int) -> Tensor:
    """Means of runs of `length` tokens: [..., N, d] -> [..., N / length, d]."""
    return tokens.reshape(*tokens.shape[:-2], -1, length, tokens.shape[-1]).mean(-2)


def pseudo_inverse(matrix: Tensor, num_steps: int) -> Tensor:
    """Moore-Penrose inverse of softmaxed matrices [..., m, m] by iteration of third order (section 3.2).

    The start A^T / (|A|_1 |A|_inf) uses each matrix's own norms, so that no other image in the batch plays a part;
    |A|_inf is 1, as every row of a softmax sums to 1.
    """
    inverse = matrix.mT / matrix.sum(-2, keepdim=True).amax(-1, keepdim=True)
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(num_steps):
        product = matrix @ inverse
        inverse = inverse @ (13 * identity - product @ (15 * identity - product @ (7 * identity - product))) / 4
    return inverse


class Synthesizer(TokenMixer):
    """out = softmax(scores) v, with scores that compare no tokens (Tay et al., arXiv 2005.00743, section 3)."""

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
    """scores = R_1 R_2^T with learned R_1 and R_2 of low rank, the same for every image (Factorized Random).

    rank: 8 as in the paper and in the WTF benchmark.
    2 N C^2 + N^2 C multiply-adds an image and 8 H N^2 a batch. R_1 and R_2 belong to one number of tokens; resampled
    over the grid, the class token's row kept.
    """

    def __init__(self, width: int, num_heads: int, sequence: Sequence, rank: int = 8) -> None:
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
