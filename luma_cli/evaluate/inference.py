"""Semantic segmentation of images of any size with a segmenter of one window size.

H W pixels, C classes. As EoMT evaluates (arXiv 2503.19108, section 4.1): short side resized to the window, windows
along the long side, scores averaged where they overlap and resized to the image, argmax.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from luma_cli.catalogue.datasets import Labels
from luma_cli.evaluate import scores
from luma_cli.evaluate.scores import Seen
from luma_cli.evaluate.views import Pixels, View, look_at
from luma_cli.evaluate.window_logits import run_windows
from luma_cli.head.segmenter import Segmenter


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
    are float32 always. batch: windows per forward pass. Memory: logits of all windows (`K R^2 / 16` numbers each) and
    strips of `scores.STRIP_BYTES_CPU` or `..._GPU` bytes, whatever H, W and C. Raises BadSample, Diverged, UsageError.
    """
    with inference(segmenter):
        return predict_views(segmenter, [_views(segmenter, image, resolution, tta)], dtype, batch)[0]


def score_map(
    segmenter: Segmenter,
    image: Pixels,
    resolution: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    tta: bool = False,
    batch: int = 1,
) -> Tensor:
    """Class scores float32 [C, H, W] of which `predict_labels` takes the argmax: 4 C H W bytes of memory.

    With queries the scores are sums of sigmoid times softmax, not probabilities; of a linear head they are its logits.
    """
    with inference(segmenter):
        return scores.whole_score_map(_run(segmenter, [_views(segmenter, image, resolution, tta)], dtype, batch)[0])


def predict_views(
    segmenter: Segmenter, images: Sequence[Sequence[View]], dtype: torch.dtype, batch: int
) -> list[Labels]:
    """Class indices [H, W] of images that are cut already, whose windows share forward passes of at most `batch`.

    To be called inside `inference`.
    """
    return [scores.label_map(views).cpu().numpy() for views in _run(segmenter, images, dtype, batch)]


@contextmanager
def inference(segmenter: nn.Module) -> Iterator[None]:
    """Inside, `segmenter` is in eval mode, without gradients and with exact float32 products; afterwards as before.

    Not torch's inference mode: what a model caches inside it could not be trained with afterwards.
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


def _views(segmenter: Segmenter, image: Pixels, resolution: int, tta: bool) -> tuple[View, ...]:
    return look_at(image, resolution or segmenter.backbone.resolution, tta=tta)


def _run(
    segmenter: Segmenter, images: Sequence[Sequence[View]], dtype: torch.dtype, batch: int
) -> list[tuple[Seen, ...]]:
    """The logits of every view of every image."""
    views = [view for image in images for view in image]
    logits = run_windows(segmenter, [view.windows for view in views], batch, dtype)
    parts = logits.split([len(view.windows) for view in views])
    found = iter([scores.seen(view, part) for view, part in zip(views, parts, strict=True)])
    return [tuple(next(found) for _ in image) for image in images]
