"""Mask logits and segments at random points, and the points of least certainty (PointRend, arXiv 1912.08193, 3.2).

Random numbers are named by a key, e.g. (MATCHING, seed, step, sample, prediction): a resumed run, another number of
processes or another micro-batch draws the same ones, on devices of one kind.
B images, K queries, M masks, h w pixels of the logits, P points. A grid holds points (x, y) of `grid_sample`'s range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag, grid_sample, pad

from luma_cli.catalogue.datasets import IGNORED
from luma_cli.catalogue.recipes import Recipe
from luma_cli.errors import DataError
from luma_cli.seeds import LOSS, MATCHING, seed_of

# Images done together: one is best for a CPU's cache; a GPU wants few launches, and 8 need less than 1 GB.
_AT_ONCE_ON_CPU, _AT_ONCE = 1, 8
_NUM_VALUES = 256  # of a label
_EVERY_BYTE = 0x01010101
_BYTES = (0xFF, 0xFF00, 0xFF0000, -0x1000000)  # of an int32, lowest first
_Found = TypeVar("_Found")


def uniform(shape: tuple[int, ...], device: torch.device | str, *key: int) -> Tensor:
    """Numbers from [0, 1), float32, of `shape`, drawn on `device` from where `key` says."""
    generator = torch.Generator(device=device)
    generator.manual_seed(seed_of(*key))
    return torch.rand(shape, generator=generator, device=device)


@contextmanager
def whole_float32(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32 or bfloat16 inside of products; what was set before comes back.

    torch has the setting twice, per backend and for all, and refuses to say the latter where the two disagree.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    each = [backend.fp32_precision for backend in backends]
    common = None
    with suppress(RuntimeError):
        common = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if common is not None:
            torch.set_float32_matmul_precision(common)
        for backend, precision in zip(backends, each, strict=True):
            backend.fp32_precision = precision


def groups(batch: int, device: torch.device) -> list[range]:
    """The images 0 .. B - 1 in groups that are done together on `device`."""
    size = _AT_ONCE_ON_CPU if device.type == "cpu" else _AT_ONCE
    return [range(first, min(first + size, batch)) for first in range(0, batch, size)]


def each(work: Callable[[range], _Found], images: Sequence[range], device: torch.device) -> list[_Found]:
    """`work` of every group, in their order, without gradients.

    On a CPU as many groups at a time as torch has threads, each on one core: threads that share every small operation
    wait for each other, which on a busy machine took ten times as long.
    """
    before = torch.get_num_threads()
    threads = min(before, len(images)) if device.type == "cpu" else 1

    def without_gradients(group: range) -> _Found:
        with torch.no_grad():  # a setting of the thread
            return work(group)

    if threads == 1:
        return [without_gradients(group) for group in images]
    torch.set_num_threads(1)  # threads that start now take it over
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(without_gradients, images))
    finally:
        torch.set_num_threads(before)


def split(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A coordinate in [-1, 1] over `size` pixels -> the pixel after it, and that pixel's share in [0, 1).

    Pixels, int32, are counted from 1, so that 0 and size + 1 lie outside: the position ((coordinate + 1) size - 1) / 2
    among pixels that are counted from 0 starts at -1/2.
    """
    after = coordinate.add(1).mul_(size / 2).add_(0.5)
    pixel = after.int()
    return pixel, after.sub_(pixel)


@dataclass(frozen=True, slots=True)
class PointCounts:
    """Points of a matched mask: `candidates` drawn, of which the `uncertain` least certain stay, and `fresh` ones."""

    candidates: int
    uncertain: int
    fresh: int

    @classmethod
    def of(cls, recipe: Recipe) -> PointCounts:
        """As the recipe has them: 37632, 9408 and 3136 for its default of 12544."""
        uncertain = int(recipe.importance_ratio * recipe.num_points)
        return cls(int(recipe.num_points * recipe.oversample_ratio), uncertain, recipe.num_points - uncertain)


@dataclass(frozen=True, slots=True)
class Points:
    """Random points for one prediction, each image's own: `key` is seed and step, `prediction` its number."""

    key: tuple[int, int]
    prediction: int
    device: torch.device

    def matching(self, samples: Sequence[int], count: int) -> Tensor:
        """Points that all queries and segments of an image share: a grid [B, count, 2]."""
        return torch.stack([self._grid((count, 2), MATCHING, sample) for sample in samples])

    def loss(self, samples: Sequence[int], masks: Sequence[int], counts: PointCounts) -> Tensor:
        """Points of each of an image's matched masks: a grid [M, candidates + fresh, 2], M the sum of `masks`."""
        drawn = counts.candidates + counts.fresh
        grids = [self._grid((each, drawn, 2), LOSS, sample) for sample, each in zip(samples, masks, strict=True)]
        return grids[0] if len(grids) == 1 else torch.cat(grids)

    def _grid(self, shape: tuple[int, ...], purpose: int, sample: int) -> Tensor:
        drawn = uniform(shape, self.device, purpose, *self.key, sample, self.prediction)
        return drawn.mul_(2).sub_(1)


def sample_shared(masks: Tensor, grid: Tensor) -> Tensor:
    """Masks [B, K, h, w], all of an image at the same points [B, P, 2] -> [B, P, K].

    As K values of one pixel are read together, this took 2/3 of the time of `grid_sample`, the transposition included.
    """
    batch, queries, height, width = masks.shape
    right, share_right = split(grid[..., 0], width)
    below, share_below = split(grid[..., 1], height)
    columns, across = _inside(right, share_right, width)
    rows, down = _inside(below, share_below, height)
    first = torch.arange(batch, device=grid.device)[:, None, None, None] * (height * width)
    pixels = first + rows[..., :, None] * width + columns[..., None, :]
    weights = down[..., :, None] * across[..., None, :]
    table = masks.flatten(2).transpose(1, 2).contiguous().view(-1, queries)
    found = embedding_bag(pixels.view(-1, 4), table, per_sample_weights=weights.view(-1, 4), mode="sum")
    return found.view(batch, -1, queries)


def _inside(after: Tensor, share: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Indices and weights [..., 2] of the pixels on both sides of a point; one outside has weight 0."""
    pixels = torch.stack((after - 1, after), dim=-1)
    weights = torch.stack((1 - share, share), dim=-1)
    return pixels.clamp(0, size - 1), weights.masked_fill_((pixels < 0) | (pixels >= size), 0)


def sample_each(masks: Tensor, grid: Tensor) -> Tensor:
    """Masks [M, h, w], each at its own points [M, P, 2] -> [M, P]."""
    return grid_sample(masks[:, None], grid[:, :, None], align_corners=False)[:, 0, :, 0]


def spread(gradients: Tensor, masks: Tensor, grid: Tensor) -> Tensor:
    """Gradients [M, P] at points [M, P, 2] -> gradients [M, h, w] of the masks: the transpose of `sample_each`."""
    found: Tensor
    found, _ = torch.ops.aten.grid_sampler_2d_backward(
        gradients[:, None, :, None], masks[:, None], grid[:, :, None], 0, 0, False, [True, False]
    )
    return found[:, 0]


def choose(masks: Tensor, drawn: Tensor, counts: PointCounts) -> tuple[Tensor, Tensor]:
    """Masks [M, h, w] and points drawn for each [M, candidates + fresh, 2] -> those that stay, and the logits there.

    Gives a grid [M, P, 2] and float32 [M, P]: the least |logit| of the candidates, then the fresh points.
    """
    logits = sample_each(masks, drawn)
    index = least(logits[:, : counts.candidates].abs(), counts.uncertain)
    pairs = drawn.view(torch.int64).squeeze(-1)  # a point is 8 bytes: moved whole
    kept = torch.cat((pairs.gather(1, index), pairs[:, counts.candidates :]), dim=1)
    values = torch.cat((logits.gather(1, index), logits[:, counts.candidates :]), dim=1)
    return kept.unsqueeze(-1).view(torch.float32), values


def least(values: Tensor, count: int) -> Tensor:
    """Indices int64 [M, count] of the `count` smallest of values [M, P], in any order; NaN is largest.

    On the CPU by NumPy's selection, which took 1/20 of the time of torch.topk.
    """
    if count == 0:
        return torch.zeros(len(values), 0, dtype=torch.int64, device=values.device)
    if values.device.type == "cpu":
        return torch.from_numpy(np.argpartition(values.numpy(), count - 1, axis=1)[:, :count]).contiguous()
    return values.topk(count, dim=1, largest=False, sorted=False).indices


def present(labels: Tensor) -> Tensor:
    """Label maps uint8 [B, H, W] -> which values each holds, boolean [B, 256], on their device.

    Counting takes a fifth of the time of scattering on the CPU, and would wait for every image on a GPU.
    """
    if labels.device.type == "cpu":
        return torch.stack([torch.bincount(each.flatten(), minlength=_NUM_VALUES) for each in labels]) > 0
    found = torch.zeros(len(labels), _NUM_VALUES, dtype=torch.bool, device=labels.device)
    return found.scatter_(1, labels.flatten(1).long(), True)


def segments(labels: Tensor, num_classes: int, samples: Sequence[int]) -> list[NDArray[np.int64]]:
    """The classes of each of B label maps, ascending. Waits for the device once.

    Raises DataError for a value that is neither a class nor 255, naming the sample.
    """
    held = present(labels).cpu().numpy()
    for sample, values in zip(samples, held, strict=True):
        if strange := np.flatnonzero(values[num_classes:IGNORED]).tolist():
            raise DataError(
                f"sample {sample} has label {num_classes + strange[0]}, expected 0 to {num_classes - 1} or {IGNORED}; "
                "look with luma data check"
            )
    return [np.flatnonzero(values[:num_classes]) for values in held]


class Neighbours(NamedTuple):
    """The 4 pixels around points: labels as the bytes of an int32 [..., P], shares of the right and the lower two."""

    labels: Tensor
    right: Tensor
    below: Tensor

    def unsqueeze(self) -> Neighbours:
        """The same for every one of an image's segments: [B, P] -> [B, 1, P]."""
        return Neighbours(self.labels[:, None], self.right[:, None], self.below[:, None])

    def masks(self, classes: Tensor) -> Tensor:
        """Values in [0, 1] of the masks of `classes`, int64 that broadcast against [..., P] -> float32 [..., P]."""
        differs = self.labels ^ (classes * _EVERY_BYTE).int()
        upper_left, upper_right, lower_left, lower_right = (_is_zero(differs & byte) for byte in _BYTES)
        upper = torch.lerp(upper_left, upper_right, self.right)
        return torch.lerp(upper, torch.lerp(lower_left, lower_right, self.right), self.below)


def _is_zero(values: Tensor) -> Tensor:
    """1.0 where an integer is 0, else 0.0; written at once, as converting booleans takes five times as long."""
    return torch.eq(values, 0, out=torch.empty(values.shape, device=values.device))


class PackedLabels:
    """Label maps [B, H, W] from which the four pixels around a point are read at once.

    Entry (y, x) of `packed`, int32 [B, H + 1, W + 1], holds the labels of the pixels (y - 1, x - 1), (y - 1, x),
    (y, x - 1) and (y, x) as its bytes. Outside the image there is no class, as `grid_sample` pads with zeros.
    """

    def __init__(self, labels: Tensor) -> None:
        padded = pad(labels, (1, 1, 1, 1), value=IGNORED)
        corners = (padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:])
        self.packed = torch.stack(corners, dim=-1).view(torch.int32).squeeze(-1)
        self.size = (labels.shape[1], labels.shape[2])

    def around(self, grid: Tensor, images: Tensor) -> Neighbours:
        """What lies around points [M, P, 2] (x, y) of `grid_sample`'s range [-1, 1], row m in image images[m]."""
        height, width = self.size
        column, right = split(grid[..., 0], width)
        row, below = split(grid[..., 1], height)
        first = (images * (height + 1) * (width + 1)).int()
        index = torch.add(column, row, alpha=width + 1).add_(first[:, None])
        return Neighbours(self.packed.view(-1).index_select(0, index.view(-1)).view(index.shape), right, below)
