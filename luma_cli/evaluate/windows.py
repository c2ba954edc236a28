"""Where the square windows lie through which a model sees an image of any size. No torch.

EoMT's plan for semantic segmentation (arXiv 2503.19108, section 4.1; `scale_img_size_semantic` and
`window_imgs_semantic` of https://github.com/tue-mps/eomt): the short side is resized to the window's side, and the
windows are spread evenly along the long side. H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from luma_cli.errors import BadSample

MAX_RESIZED_PIXELS = 64_000_000  # 192 MB of RGB: a strip of 1 x 2000 pixels would become 512 x 1,024,000


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """An image of height x width pixels, its size when resized, and the upper left corners of its windows there.

    tops, lefts: every top is combined with every left. A resized side below `side` is padded at its end.
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

    EoMT computes int(j * (side - overlap)) in floating point, which is the same number but for a rounding error that
    can leave the last pixel out; whole numbers leave none out.
    """
    if length <= side:
        return (0,)
    last = -(-length // side) - 1
    return tuple(number * (length - side) // last for number in range(last + 1))


def check_size(plan: WindowPlan) -> None:
    """Raise BadSample for an image so narrow that resizing its short side would fill the memory."""
    if plan.resized_height * plan.resized_width > MAX_RESIZED_PIXELS:
        raise BadSample(
            f"{plan.width} x {plan.height} pixels become {plan.resized_width} x {plan.resized_height} when the short"
            f" side is resized, expected at most {MAX_RESIZED_PIXELS // 10**6} Mpx; crop the image"
        )
