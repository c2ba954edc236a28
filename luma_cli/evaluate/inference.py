"""Semantic segmentation of images of any size with a segmenter of one window size, as EoMT evaluates.

The short side is resized to the window, windows are spread evenly along the long side, scores are averaged where they
overlap and resized to the image, then argmax (arXiv 2503.19108, section 4.1; `scale_img_size_semantic`,
`window_imgs_semantic`, `to_per_pixel_logits_semantic` and `revert_window_logits_semantic` of
https://github.com/tue-mps/eomt). Scores are made a strip of rows at a time: 150 classes of a 2000 x 3000 image would be
3.6 GB at once.

H W pixels of the image, h w of the resized image, n windows of R x R pixels, C classes. A window has J maps on a grid
g: of K queries with g = R / 4, or of C classes on the patch grid for the linear head. Maps are [rows, columns,
channels]: with neighbouring channels side by side in memory, resizing, products and argmax are fast on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from luma_cli.backbone.timm_model import Normalisation
from luma_cli.catalogue.datasets import Labels
from luma_cli.catalogue.windows import WindowPlan, plan_windows
from luma_cli.errors import BadSample, Diverged, UsageError
from luma_cli.head.linear import PixelLogits
from luma_cli.head.parts import HeadOutput
from luma_cli.head.segmenter import Segmenter
from luma_cli.measure import devices
from luma_cli.measure.devices import find_cuda

MAX_RESIZED_PIXELS = 64_000_000  # 192 MB of RGB: a strip of 1 x 2000 pixels would become 512 x 1,024,000


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def torch_device(name: str = "auto") -> torch.device:
    """The device `name`, numbered as in nvidia-smi; `auto` is the first GPU, or the CPU without one.

    Raises UsageError for an unknown name and for a missing GPU.
    """
    if name == "auto":
        try:
            return torch_device("cuda")
        except UsageError:
            return torch.device("cpu")
    found = devices.find(name)
    return torch.device("cpu") if found.kind == "cpu" else torch.device("cuda", find_cuda(found.uuid))


def autocast_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format of `fp32`, `bf16` or `fp16`; `auto` is bf16 on a GPU that has it, else fp32."""
    if name == "auto":
        name = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if name not in DTYPES:
        raise UsageError(f"dtype {name!r} is unknown, expected auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, as in records."""
    return str(dtype).removeprefix("torch.")


def predict_labels(
    segmenter: Segmenter,
    image: Pixels,
    resolution: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    tta: bool = False,
    batch: int = 1,
) -> Labels:
    """Class indices [H, W] of an RGB image [H, W, 3] of bytes, on the device where the segmenter is.

    resolution: side of the windows in pixels, 0 for that of the backbone. dtype: float32, or that of autocast; scores
    are always float32. batch: windows per forward pass. Memory: logits of all windows (`K R^2 / 16` numbers each) and
    strips of at most STRIP_BYTES_CPU or STRIP_BYTES_GPU. Raises BadSample, Diverged, UsageError.
    """
    with inference(segmenter):
        return predict_views(
            segmenter, [look_at(image, resolution or segmenter.backbone.resolution, tta=tta)], dtype, batch
        )[0]


def score_map(
    segmenter: Segmenter,
    image: Pixels,
    resolution: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    tta: bool = False,
    batch: int = 1,
) -> Tensor:
    """Class scores float32 [C, H, W] whose argmax is `predict_labels`: 4 C H W bytes of memory.

    With queries they are sums of sigmoid times softmax, not probabilities; of a linear head they are its logits.
    """
    with inference(segmenter):
        return whole_score_map(
            _run(segmenter, [look_at(image, resolution or segmenter.backbone.resolution, tta=tta)], dtype, batch)[0]
        )


def predict_views(
    segmenter: Segmenter, images: Sequence[Sequence[View]], dtype: torch.dtype, batch: int
) -> list[Labels]:
    """Class indices [H, W] of images that are already cut; windows share forward passes. Call inside `inference`."""
    return [label_map(views).cpu().numpy() for views in _run(segmenter, images, dtype, batch)]


def seen_views(
    segmenter: Segmenter, views: tuple[View, ...], dtype: torch.dtype = torch.float32, batch: int = 1
) -> tuple[Seen, ...]:
    """The logits of every view of one image, for `strips`. Call inside `inference`."""
    return _run(segmenter, [views], dtype, batch)[0]


@contextmanager
def inference(segmenter: nn.Module) -> Iterator[None]:
    """Within the block `segmenter` is in eval mode, without gradients and with exact float32 products.

    torch's inference mode is not used: tensors that a model caches in it cannot be trained with afterwards.
    """
    training = [module for module in segmenter.modules() if module.training]
    precision = torch.get_float32_matmul_precision()
    segmenter.eval()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        for module in training:
            module.training = True


def _run(
    segmenter: Segmenter, images: Sequence[Sequence[View]], dtype: torch.dtype, batch: int
) -> list[tuple[Seen, ...]]:
    """The logits of every view of every image."""
    views = [view for image in images for view in image]
    logits = run_windows(segmenter, [view.windows for view in views], batch, dtype)
    found, end = [], 0
    for image in images:
        seen = []
        for view in image:
            start, end = end, end + len(view.windows)
            queries = logits.class_probabilities
            part = WindowLogits(logits.maps[start:end], None if queries is None else queries[start:end])
            seen.append(Seen(view.plan, view.flipped, part))
        found.append(tuple(seen))
    return found


def check_size(plan: WindowPlan) -> None:
    """Raise BadSample for an image so narrow that resizing its short side would fill the memory."""
    if plan.resized_height * plan.resized_width > MAX_RESIZED_PIXELS:
        raise BadSample(
            f"{plan.width} x {plan.height} pixels become {plan.resized_width} x {plan.resized_height} when the short"
            f" side is resized, expected at most {MAX_RESIZED_PIXELS // 10**6} Mpx; crop the image"
        )


TTA_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # mmsegmentation's tta_pipeline, with a flip of each

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class View:
    """Windows [n, R, R, 3] of the plan, cut from the mirrored image where `flipped`."""

    plan: WindowPlan
    flipped: bool
    windows: Pixels


def look_at(image: Pixels, side: int, *, tta: bool = False) -> tuple[View, ...]:
    """The views of an RGB image [H, W, 3]: one, or with `tta` six sizes with and without a flip.

    Resized as in EoMT by PIL, bilinear, on bytes. Raises BadSample for other shapes or types and for a far too narrow
    image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise BadSample(f"an image of shape {list(image.shape)} and type {image.dtype}, expected [H, W, 3] of uint8")
    height, width = image.shape[:2]
    views = []
    for scale in TTA_SCALES if tta else (1.0,):
        plan = plan_windows(height, width, side, scale)
        check_size(plan)
        size = (plan.resized_width, plan.resized_height)
        resized = image
        if size != (width, height):
            resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        views.append(View(plan, False, cut(resized, plan)))
        if tta:
            views.append(View(plan, True, cut(resized[:, ::-1], plan)))
    return tuple(views)


def cut(resized: Pixels, plan: WindowPlan) -> Pixels:
    """Windows [n, R, R, 3] of a resized image; black, as in training, where it is smaller than a window."""
    windows = np.zeros((plan.num_windows, plan.side, plan.side, resized.shape[2]), dtype=np.uint8)
    for window, (top, left) in zip(windows, plan.corners, strict=True):
        seen = resized[top : top + plan.side, left : left + plan.side]
        window[: seen.shape[0], : seen.shape[1]] = seen
    return windows


@dataclass(frozen=True, slots=True)
class WindowLogits:
    """maps [n, g, g, J], and class_probabilities [n, J, C] of the queries, without "no object".

    A class's score at a pixel is the sum over queries of sigmoid(map) times probability; without queries
    (class_probabilities None, J = C) the map itself.
    """

    maps: Tensor
    class_probabilities: Tensor | None

    @property
    def num_classes(self) -> int:
        """C."""
        return self.maps.shape[-1] if self.class_probabilities is None else self.class_probabilities.shape[-1]


def run_windows(
    segmenter: Segmenter, windows: Sequence[NDArray[np.uint8]], batch: int, dtype: torch.dtype = torch.float32
) -> WindowLogits:
    """Logits of windows [n, R, R, 3], given in pieces, in forward passes of at most `batch` windows.

    dtype: float32, or that of autocast. Raises Diverged for logits that are not finite, UsageError without a head.
    """
    stacked = windows[0] if len(windows) == 1 else np.concatenate(windows)
    parts = [_forward(segmenter, stacked[at : at + batch], dtype) for at in range(0, len(stacked), batch)]
    if parts[0].class_probabilities is None:
        return WindowLogits(torch.cat([part.maps for part in parts]), None)
    probabilities = [part.class_probabilities for part in parts if part.class_probabilities is not None]
    return WindowLogits(torch.cat([part.maps for part in parts]), torch.cat(probabilities))


def _forward(segmenter: Segmenter, windows: NDArray[np.uint8], dtype: torch.dtype) -> WindowLogits:
    like = next(segmenter.parameters())
    images = normalise(torch.from_numpy(windows).to(like.device), segmenter.backbone.normalisation).to(like.dtype)
    with torch.autocast(like.device.type, dtype, enabled=dtype != torch.float32):
        output = segmenter(images)
    if isinstance(output, HeadOutput):
        probabilities = output.class_logits.float().softmax(dim=-1)[..., :-1]
        found = WindowLogits(output.mask_logits.permute(0, 2, 3, 1).contiguous(), probabilities)
    elif isinstance(output, PixelLogits):
        found = WindowLogits(output.logits.permute(0, 2, 3, 1).contiguous(), None)
    else:
        raise UsageError("this segmenter has head 'none', which predicts no classes; build it with --head luma")
    # A sum is finite only if every number is, and cheaper than testing each.
    total = found.maps.sum(dtype=torch.float32)
    if found.class_probabilities is not None:
        total = total + found.class_probabilities.sum()
    if not bool(total.isfinite()):
        raise Diverged("the model's logits are not finite numbers; use an earlier checkpoint, or --dtype fp32")
    return found


def normalise(windows: Tensor, normalisation: Normalisation) -> Tensor:
    """Bytes [n, R, R, 3] -> float32 [n, 3, R, R], as the backbone's checkpoint wants them."""
    mean = torch.tensor(normalisation.mean, device=windows.device).view(1, 3, 1, 1)
    std = torch.tensor(normalisation.std, device=windows.device).view(1, 3, 1, 1)
    return windows.permute(0, 3, 1, 2).float().div(255).sub(mean).div(std)


Rows = NDArray[np.int64]


def source_rows(rows: Rows, num_source: int, num_target: int) -> Rows:
    """The rows of `num_source` that these of `num_target` rows need, ascending."""
    if num_source == num_target:
        return rows
    lower, upper, _ = _taps(rows, num_source, num_target)
    return np.unique(np.concatenate([lower, upper]))


def resize_rows(slab: Tensor, slab_rows: Rows, rows: Rows, num_source: int, num_target: int) -> Tensor:
    """Rows `rows` of the resized map [len(rows), w, C], from a slab [len(slab_rows), w, C] with all rows they need.

    Equal, up to rounding, to `interpolate(..., mode="bilinear", align_corners=False)`. A product with a matrix of at
    most two weights per row is twice as fast on a CPU as gathering and mixing.
    """
    if num_source == num_target:
        return slab if len(rows) == len(slab_rows) else slab[torch.from_numpy(rows - slab_rows[0]).to(slab.device)]
    lower, upper, weight = _taps(rows, num_source, num_target)
    matrix = np.zeros((len(rows), len(slab_rows)), dtype=np.float32)
    order = np.arange(len(rows))
    matrix[order, np.searchsorted(slab_rows, lower)] = 1 - weight
    matrix[order, np.searchsorted(slab_rows, upper)] += weight
    mixing = torch.from_numpy(matrix).to(slab.device)
    return (mixing @ slab.flatten(1)).view(len(rows), *slab.shape[1:])


def resize_columns(slab: Tensor, num_columns: int) -> Tensor:
    """[rows, w, C] -> [rows, num_columns, C]."""
    if slab.shape[1] == num_columns:
        return slab
    planes = slab.permute(2, 0, 1)[None]
    resized = interpolate(planes, (slab.shape[0], num_columns), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0)


def _taps(rows: Rows, num_source: int, num_target: int) -> tuple[Rows, Rows, NDArray[np.float32]]:
    """Per target row the two source rows around it, and the weight of the second; in float32 like torch."""
    ratio, half = np.float32(num_source) / np.float32(num_target), np.float32(0.5)
    at = np.maximum(ratio * (rows.astype(np.float32) + half) - half, np.float32(0))
    lower = np.minimum(at.astype(np.int64), num_source - 1)
    upper = np.minimum(lower + 1, num_source - 1)
    return lower, upper, at - lower.astype(np.float32)


# Bytes of a strip's largest array. CPU: what stays in the caches.
STRIP_BYTES_CPU = 4 * 2**20
STRIP_BYTES_GPU = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Seen:
    """One view of an image, and the logits of its windows."""

    plan: WindowPlan
    flipped: bool
    logits: WindowLogits


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
