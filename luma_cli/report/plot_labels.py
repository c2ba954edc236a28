"""Labels beside points that overlap neither each other nor the points, by trying places around each in turn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luma_cli.report.plot_file import INK, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FONT_SIZE = 5.6
_MARKER_PIXELS = 7.0
_PADDING_PIXELS = 2.0
# Places are tried near before far; at each distance up and to the left first, which a rising front leaves free.
_DISTANCES = (9, 16, 26, 40, 58, 80, 105)
_ANGLES = (135, 90, 160, 112, 180, 60, 45, 315, 0, 290, 270, 225, 200, 20)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether the two share any area."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def within(self, other: Box) -> bool:
        """Whether it lies inside the other."""
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.bottom <= self.bottom
            and self.top <= other.top
        )


def place(
    anchors: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], frame: Box, avoid: Sequence[Box] = ()
) -> list[Box | None]:
    """A free box for a label of each size beside each anchor, in pixels; None where there is no room.

    anchors: in the order in which they are served. avoid: boxes that no label may cover.
    """
    taken = [*avoid, *(_around(x, y) for x, y in anchors)]
    found: list[Box | None] = []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        free = next(
            (
                box
                for box in _places(x, y, width, height)
                if box.within(frame) and not any(box.meets(other) for other in taken)
            ),
            None,
        )
        found.append(free)
        taken += [free] if free is not None else []
    return found


def _around(x: float, y: float) -> Box:
    return Box(x - _MARKER_PIXELS, y - _MARKER_PIXELS, x + _MARKER_PIXELS, y + _MARKER_PIXELS)


def _places(x: float, y: float, width: float, height: float) -> Iterator[Box]:
    """Boxes around a point: the side towards the point is at the distance."""
    for distance in _DISTANCES:
        for angle in _ANGLES:
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            centre_x = x + across * (distance + width / 2)
            centre_y = y + up * (distance + height / 2)
            yield Box(centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)


def label_points(
    axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], avoid: Sequence[Box] = ()
) -> None:
    """Write a label beside each point in data coordinates, with a thin line where it stands apart.

    Limits and scales must be final. A label that finds no room is left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axes.figure
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call,arg-type]
    drawn = [axes.text(0, 0, text, fontsize=_FONT_SIZE, color=INK, va="bottom", ha="left") for text in texts]
    sizes = []
    for each in drawn:
        extent = each.get_window_extent(renderer)
        sizes.append((extent.width + 2 * _PADDING_PIXELS, extent.height))
    anchors = [tuple(axes.transData.transform(point)) for point in points]
    window = axes.get_window_extent(renderer)
    frame = Box(window.x0, window.y0, window.x1, window.y1)
    boxes = place(anchors, sizes, frame, avoid)
    inverse = axes.transData.inverted()
    for text, box, anchor in zip(drawn, boxes, anchors, strict=True):
        if box is None:
            text.remove()
            continue
        text.set_position(tuple(inverse.transform((box.left + _PADDING_PIXELS, box.bottom))))
        near = (min(max(anchor[0], box.left), box.right), min(max(anchor[1], box.bottom), box.top))
        if math.dist(near, anchor) > _DISTANCES[1]:
            ends = inverse.transform([near, anchor])
            axes.plot(ends[:, 0], ends[:, 1], "-", color=SOFT, linewidth=0.4, zorder=2)
