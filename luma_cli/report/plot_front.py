"""The learned front as a picture: candidates over the logarithm of their cost, the band that the front runs through."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from luma_cli.report.front_picture import Dot, FrontPicture, Step
from luma_cli.report.plot_file import COLOURS, COLUMN_INCHES, INK, SOFT, save, style
from luma_cli.report.plot_labels import Box, label_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXES_INCHES = 2.35
_ABOVE_INCHES, _BELOW_INCHES = 0.45, 0.45  # title with legend, axis title with caption's first gap
# Of the members of the front those are labelled that add this part of the range of mIoU to the one labelled before.
_LABELLED_RISE = 0.035
_CAPTION_CHARACTERS = 78
_CAPTION_INCHES_PER_LINE = 0.115
_BAND = "#b7d3ea"
_OWN = COLOURS[2]
_MARGIN = 0.06


def draw_front(picture: FrontPicture) -> Figure:
    """The front with its band, labels of its members, and a caption of what it stands on."""
    from matplotlib.figure import Figure

    lines = textwrap.wrap(" ".join(picture.caption), _CAPTION_CHARACTERS)
    below = _BELOW_INCHES + _CAPTION_INCHES_PER_LINE * len(lines)
    height = _ABOVE_INCHES + _AXES_INCHES + below
    figure = Figure(figsize=(COLUMN_INCHES, height), dpi=300)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.115, right=0.97, top=1 - _ABOVE_INCHES / height, bottom=below / height)
    figure.text(0.02, 1 - 0.05 / height, picture.title, fontsize=7.5, color=INK, va="top")
    _band(axes, picture)
    _dots(axes, picture)
    _frame(axes, picture)
    labelled = [*picture.own, *_labelled(picture.front)]
    points = [(dot.cost, dot.miou_percent) for dot in labelled]
    label_points(axes, points, [dot.label for dot in labelled], list(_covered(axes, picture)))
    figure.text(0.02, 0.04 / height, "\n".join(lines), fontsize=5.8, color="#444444", va="bottom", linespacing=1.3)
    return figure


def _labelled(front: Sequence[Dot]) -> list[Dot]:
    """Members that stand visibly above the one labelled before."""
    if not front:
        return []
    rise = _LABELLED_RISE * (front[-1].miou_percent - front[0].miou_percent)
    chosen = [front[0]]
    for dot in front[1:]:
        if dot.miou_percent - chosen[-1].miou_percent > rise:
            chosen.append(dot)
    return chosen


def plot_front(picture: FrontPicture, path: Path) -> None:
    """Write the picture to `path`, .png, .svg or .pdf. Raises LumaError when it cannot be written."""
    with style():
        save(draw_front(picture), path)


def _band(axes: Axes, picture: FrontPicture) -> None:
    """Steps: what is reached at a cost is reached at every greater one."""
    steps = _extended(picture)
    if not steps:
        return
    costs = [step.cost for step in steps]
    low, middle, high = ([getattr(step, name) for step in steps] for name in ("likely", "median", "unlikely"))
    axes.fill_between(
        costs, low, high, step="post", color=_BAND, linewidth=0, zorder=1, label="front, 10 to 90% of draws"
    )
    axes.step(costs, middle, where="post", color=COLOURS[1], linewidth=0.9, zorder=2, label="median")


def _extended(picture: FrontPicture) -> list[Step]:
    """The band with its last step drawn on to the dearest point."""
    if not picture.band:
        return []
    costs = [step.cost for step in picture.band] + [dot.cost for dot in (*picture.front, *picture.own)]
    last = picture.band[-1]
    reach = min(costs) if picture.is_rate else max(costs)
    return [*picture.band, Step(reach, last.likely, last.median, last.unlikely)]


def _dots(axes: Axes, picture: FrontPicture) -> None:
    if picture.cloud:
        xs, ys = zip(*picture.cloud, strict=True)
        axes.plot(xs, ys, ".", color="#c2c2c2", markersize=2.2, markeredgewidth=0, zorder=0.8, label="candidates")
    _marked(axes, picture.beside, "o", "white", "may be on it")
    _marked(axes, picture.front, "o", INK, "on it by the mean")
    _marked(axes, picture.own, "*", _OWN, "own run", size=6.5)


def _marked(axes: Axes, dots: Sequence[Dot], marker: str, fill: str, label: str, size: float = 3.4) -> None:
    """Markers with thin 80% intervals."""
    if not dots:
        return
    costs, mious = [dot.cost for dot in dots], [dot.miou_percent for dot in dots]
    spans = [[dot.miou_percent - dot.low for dot in dots], [dot.high - dot.miou_percent for dot in dots]]
    axes.errorbar(costs, mious, spans, fmt="none", ecolor=SOFT, elinewidth=0.5, zorder=3)
    axes.plot(
        costs, mious, marker, color=INK, markerfacecolor=fill, markersize=size, markeredgewidth=0.5, zorder=4,
        linestyle="none", label=label,
    )  # fmt: skip


def _frame(axes: Axes, picture: FrontPicture) -> None:
    """Limits around front, band and own runs: candidates far below the front are cut off."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    dots = (*picture.front, *picture.beside, *picture.own)
    lows = [dot.low for dot in dots] + [step.likely for step in picture.band]
    highs = [dot.high for dot in dots] + [step.unlikely for step in picture.band]
    low, high = min(lows, default=0.0), max(highs, default=100.0)
    room = max(high - low, 1.0)
    axes.set_ylim(low - _MARGIN * room, high + 2 * _MARGIN * room)
    costs = [dot.cost for dot in dots] + [step.cost for step in picture.band]
    least, most = min(costs, default=1.0), max(costs, default=10.0)
    room = max(most / least, 2.0) ** 0.08
    axes.set_xscale("log")
    axes.set_xlim(*((most * room, least / room) if picture.is_rate else (least / room, most * room)))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if most / least < 1000 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set_xlabel(picture.axis)
    axes.set_ylabel("mIoU (%)")
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.03, 0.99), ncols=3, handletextpad=0.4, borderaxespad=0.2, columnspacing=1.0
    )


def _covered(axes: Axes, picture: FrontPicture) -> Iterator[Box]:
    """What labels stay off: the band, the rise between its steps, intervals of points."""
    steps = _extended(picture)
    for step, following in pairwise(steps):
        yield _box(axes, (step.cost, step.likely), (following.cost, step.unlikely))
        yield _box(axes, (following.cost, step.median), (following.cost, following.median))
    for dot in (*picture.front, *picture.beside, *picture.own):
        yield _box(axes, (dot.cost, dot.low), (dot.cost, dot.high))


def _box(axes: Axes, corner: tuple[float, float], opposite: tuple[float, float]) -> Box:
    """The rectangle between two corners in data coordinates, a little larger, in pixels."""
    (left, bottom), (right, top) = axes.transData.transform([corner, opposite])
    return Box(min(left, right) - 3, min(bottom, top) - 3, max(left, right) + 3, max(bottom, top) + 3)
