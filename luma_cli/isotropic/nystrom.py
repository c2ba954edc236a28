"""Nyström attention: softmax attention rebuilt from landmarks (Nyströmformer, arXiv 2102.03902, section 3).

B batch, h heads, N tokens, m landmarks, C channels, d = C / h, t steps of the inverse, s taps of the convolution.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from luma_cli.isotropic.mixer import Sequence, TokenMixer
from luma_cli.isotropic.precision import wide, widened, without_autocast


class NystromAttention(TokenMixer):
    """softmax(Q L_k) pinv(softmax(L_q L_k)) softmax(L_q K) V, landmarks L being means of consecutive tokens.

    Every token sees every other, but only through `num_landmarks` means; with as many landmarks as tokens this is
    softmax attention, up to the inverse (`num_steps` iterations, section 3.2). Fewer tokens than landmarks: as many
    landmarks as tokens. Prefix tokens count as the first of the sequence.
    skip: `convolution` adds values passed through a depthwise convolution along the sequence, one filter of
    `kernel_size` taps per head (the paper's figure 2; 35 taps as https://github.com/mlpen/Nystromformer has for long
    sequences); `value` adds the values themselves after the last layer, as T2T-ViT and the WTF benchmark do.

    No parameter depends on the number of tokens, so every resolution is taken as it is. But the landmarks stay as many:
    from 224 to 1024 pixels each averages 64 tokens instead of 3, a whole row of the grid, and the convolution reaches
    half a row instead of two and a half. Softmax and inverse run in float32.
    Multiply-adds: 4 N C^2 + 4 m N C + 2 m^2 C + 4 t h m^3, and s N C for the convolution.
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
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.conv = None if skip == "value" else _filters(num_heads, kernel_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        queries, keys, values = map(self.split_heads, self.qkv(tokens).chunk(3, dim=-1))
        mixed = nystrom(queries, keys, values, self.num_landmarks, self.num_steps)
        if self.conv is None:
            result: Tensor = self.merge_heads(values) + self.proj(self.merge_heads(mixed))
        else:
            result = self.proj(self.merge_heads(mixed + self.conv(values)))
        return result


def _filters(num_heads: int, kernel_size: int) -> nn.Conv2d:
    """One filter per head along the tokens of [B, h, N, d], the same for the d channels of a head."""
    shape, padding = (kernel_size, 1), (kernel_size // 2, 0)
    return nn.Conv2d(num_heads, num_heads, shape, padding=padding, groups=num_heads, bias=False)


def nystrom(queries: Tensor, keys: Tensor, values: Tensor, num_landmarks: int, num_steps: int) -> Tensor:
    """Nyström's approximation of softmax attention: queries, keys and values [B, h, N, d] -> [B, h, N, d].

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
