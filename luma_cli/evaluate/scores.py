"""Class scores of an image from the logits of its windows, a strip of rows at a time.

H W pixels of the image, h w of the resized image, R side of a window, C classes. Per window: maps resized to the
window, class scores per pixel; overlapping windows averaged; resized to the image. So do EoMT's
`to_per_pixel_logits_semantic` and `revert_window_logits_semantic` (https://github.com/tue-mps/eomt). No [C, H, W] array
exists unless it is asked for: 150 classes of a 2000 x 3000 image would be 3.6 GB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from luma_cli.evaluate.resampling import Rows, resize_columns, resize_rows, source_rows
from luma_cli.evaluate.views import View
from luma_cli.evaluate.window_logits import WindowLogits
from luma_cli.evaluate.windows import WindowPlan

# Bytes of a strip's largest array. CPU: what stays in the caches.
STRIP_BYTES_CPU = 4 * 2**20
STRIP_BYTES_GPU = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Seen:
    """One view of an image, and what the model said about its windows."""

    plan: WindowPlan
    flipped: bool
    logits: WindowLogits


def seen(view: View, logits: WindowLogits) -> Seen:
    """The view without its pixels."""
    return Seen(view.plan, view.flipped, logits)


def label_map(views: Sequence[Seen], strip_bytes: int = 0) -> Tensor:
    """The class with the highest score at every pixel, uint8 [H, W], on the logits' device; the first of equal ones.

    strip_bytes: bound of the largest array, 0 for the device's own. At least one row is worked on at a time.
    """
    plan = views[0].plan
    labels = torch.empty(plan.height, plan.width, dtype=torch.uint8, device=views[0].logits.maps.device)
    for rows, scores in strips(views, strip_bytes):
        labels[rows[0] : rows[-1] + 1] = scores.argmax(dim=-1)
    return labels


def whole_score_map(views: Sequence[Seen], strip_bytes: int = 0) -> Tensor:
    """All scores of an image at once, float32 [C, H, W]: 4 C H W bytes."""
    return torch.cat([scores for _, scores in strips(views, strip_bytes)]).permute(2, 0, 1)


def strips(views: Sequence[Seen], strip_bytes: int = 0) -> Iterator[tuple[Rows, Tensor]]:
    """Rows of the image and their scores [rows, W, C], float32, averaged over the views, from top to bottom."""
    plan, logits = views[0].plan, views[0].logits
    bound = strip_bytes or (STRIP_BYTES_GPU if logits.maps.is_cuda else STRIP_BYTES_CPU)
    num_rows = max(1, bound // max(_bytes_per_row(view) for view in views))
    for first in range(0, plan.height, num_rows):
        rows = np.arange(first, min(first + num_rows, plan.height))
        scores = _view_scores(views[0], rows)
        for view in views[1:]:
            scores = scores + _view_scores(view, rows)
        yield rows, scores / len(views) if len(views) > 1 else scores


def _bytes_per_row(view: Seen) -> int:
    """Of the largest float32 array that one row of the image needs: scores before and after, or maps of a window."""
    plan, logits = view.plan, view.logits
    resized_rows = max(1, min(2, plan.resized_height / plan.height))
    wide = max(plan.width, plan.resized_width * resized_rows) * logits.num_classes
    return int(4 * max(wide, plan.side * resized_rows * logits.maps.shape[-1]))


def _view_scores(view: Seen, rows: Rows) -> Tensor:
    """Scores [rows, W, C] of rows of the image, from one view."""
    plan = view.plan
    needed = source_rows(rows, plan.resized_height, plan.height)
    slab = _resized_scores(plan, view.logits, needed)
    slab = slab.flip(1) if view.flipped else slab
    return resize_columns(resize_rows(slab, needed, rows, plan.resized_height, plan.height), plan.width)


def _resized_scores(plan: WindowPlan, logits: WindowLogits, rows: Rows) -> Tensor:
    """Scores [rows, w, C] of rows of the resized image, averaged where windows overlap."""
    if plan.num_windows == 1 and plan.resized_width == plan.side:
        return _window_scores(plan, logits, 0, rows)
    device, shape = logits.maps.device, (len(rows), plan.resized_width)
    total = torch.zeros(*shape, logits.num_classes, device=device)
    count = torch.zeros(*shape, 1, device=device)
    for number, (top, left) in enumerate(plan.corners):
        first, last = np.searchsorted(rows, (top, top + plan.side))
        if first == last:
            continue
        width = min(plan.side, plan.resized_width - left)
        scores = _window_scores(plan, logits, number, rows[first:last] - top)[:, :width]
        total[first:last, left : left + width] += scores
        count[first:last, left : left + width] += 1
    return total.div_(count)


def _window_scores(plan: WindowPlan, logits: WindowLogits, number: int, rows: Rows) -> Tensor:
    """Scores [rows, R, C] of rows of one window."""
    maps = logits.maps[number]
    needed = source_rows(rows, maps.shape[0], plan.side)
    held = np.arange(needed[0], needed[-1] + 1)
    slab = resize_rows(maps[needed[0] : needed[-1] + 1].float(), held, rows, maps.shape[0], plan.side)
    resized = resize_columns(slab, plan.side)
    if logits.class_probabilities is None:
        return resized
    scores = resized.sigmoid().reshape(-1, maps.shape[-1]) @ logits.class_probabilities[number]
    return scores.view(len(rows), plan.side, -1)
