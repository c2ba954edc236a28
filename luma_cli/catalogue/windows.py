"""The windows that an image is cut into: how many crops one image costs. For evaluation, prediction and the advisor.

The short side is resized to the window, windows are spread evenly along the long side (arXiv 2503.19108, section 4.1;
`scale_img_size_semantic` and `window_imgs_semantic` of https://github.com/tue-mps/eomt).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Images of the datasets' own protocols, height x width. ADE20K's images differ in size; EoMT's table 1 gives 721 GFLOPs
# per image for what is 394 per crop of 512 px, so 1.83 windows in the mean (arXiv 2503.19108).
USUAL_IMAGES: Mapping[str, tuple[int, int]] = {"cityscapes": (1024, 2048)}
_MEAN_WINDOWS = {"ade20k": 1.83}


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """An image of height x width pixels, its resized size, and the upper left corners of its windows there.

    Every top is combined with every left. A resized side below `side` is padded at its end.
    """

    height: int
    width: int
    resized_height: int
    resized_width: int
    side: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """(top, left) of every window, row by row."""
        return tuple((top, left) for top in self.tops for left in self.lefts)

    @property
    def num_windows(self) -> int:
        """Windows of the image."""
        return len(self.tops) * len(self.lefts)


def plan_windows(height: int, width: int, side: int, scale: float = 1.0) -> WindowPlan:
    """The plan for an image of height x width pixels and windows of `side` pixels.

    scale: of the resized image, 1 for a short side of `side`; other values are for test-time augmentation.

    >>> plan_windows(1024, 2048, 512).lefts
    (0, 512)
    >>> plan_windows(512, 683, 512).lefts
    (0, 171)
    """
    factor = max(side / height, side / width)
    resized_height = max(1, round(height * factor * scale))
    resized_width = max(1, round(width * factor * scale))
    tops, lefts = spread(resized_height, side), spread(resized_width, side)
    return WindowPlan(height, width, resized_height, resized_width, side, tops, lefts)


def spread(length: int, side: int) -> tuple[int, ...]:
    """Starts of ceil(length / side) windows, evenly spread from 0 to length - side; one where the window is longer.

    EoMT computes int(j * (side - overlap)) in floating point, whose rounding error can leave out the last pixel.
    """
    if length <= side:
        return (0,)
    last = -(-length // side) - 1
    return tuple(number * (length - side) // last for number in range(last + 1))


def windows_per_image(dataset: str, image: tuple[int, int] | None, side: int) -> float:
    """Windows of `side` pixels per image: of height x width, else of the dataset's own images (a mean for ADE20K).

    >>> windows_per_image("cityscapes", None, 1024), windows_per_image("ade20k", (480, 640), 512)
    (2.0, 2.0)
    """
    size = image or USUAL_IMAGES.get(dataset)
    return _MEAN_WINDOWS[dataset] if size is None else float(plan_windows(*size, side).num_windows)
