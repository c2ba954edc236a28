"""An image as windows: once for the ordinary protocol, at several sizes and mirrored for test-time augmentation.

No torch. n windows of R x R pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luma_cli.errors import BadSample
from luma_cli.evaluate.windows import WindowPlan, check_size, plan_windows

TTA_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # mmsegmentation's tta_pipeline, with a flip of each

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class View:
    """One way to look at an image: windows [n, R, R, 3] of the plan, cut from the mirrored image where `flipped`."""

    plan: WindowPlan
    flipped: bool
    windows: Pixels


def look_at(image: Pixels, side: int, *, tta: bool = False) -> tuple[View, ...]:
    """The views of an RGB image [H, W, 3]: one, or with `tta` six sizes with and without a flip.

    Resized as EoMT does, by PIL, bilinear, on whole numbers from 0 to 255. Raises BadSample for a shape or type that is
    no RGB image, and for one that is far too narrow.
    """
    check_image(image)
    height, width = image.shape[:2]
    views = []
    for scale in TTA_SCALES if tta else (1.0,):
        plan = plan_windows(height, width, side, scale)
        check_size(plan)
        resized = _resize(image, plan)
        views.append(View(plan, False, cut(resized, plan)))
        if tta:
            views.append(View(plan, True, cut(resized[:, ::-1], plan)))
    return tuple(views)


def check_image(image: Pixels) -> None:
    """Raise BadSample unless this is an RGB image [H, W, 3] of bytes."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise BadSample(f"an image of shape {list(image.shape)} and type {image.dtype}, expected [H, W, 3] of uint8")


def _resize(image: Pixels, plan: WindowPlan) -> Pixels:
    size = (plan.resized_width, plan.resized_height)
    if size == (image.shape[1], image.shape[0]):
        return image
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def cut(resized: Pixels, plan: WindowPlan) -> Pixels:
    """Windows [n, R, R, 3] of a resized image; black, as in training, where it is smaller than a window."""
    windows = np.zeros((plan.num_windows, plan.side, plan.side, resized.shape[2]), dtype=np.uint8)
    for window, (top, left) in zip(windows, plan.corners, strict=True):
        seen = resized[top : top + plan.side, left : left + plan.side]
        window[: seen.shape[0], : seen.shape[1]] = seen
    return windows
