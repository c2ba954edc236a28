"""Plots as files: one style, and a file that appears whole, holds no date and is the same for the same numbers.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), each with a marker of its own, dark to light, so that a
plot survives colour blindness and a black-and-white printer. Sizes are those of a paper's column.
"""

from __future__ import annotations

import importlib.util
import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luma_cli.advise.question import TITLES
from luma_cli.errors import LumaError, UsageError
from luma_cli.evidence.evidence import DATASET_TITLES, HEAD_TITLES
from luma_cli.files import write_bytes
from luma_cli.report.front import in_unit
from luma_cli.units import FLOORS, BudgetKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from luma_cli.advise.front import Backdrop, FrontRow, LearnedFront, OwnDistance


SUFFIXES = (".png", ".svg", ".pdf")
COLUMN_INCHES = 3.5
INK, SOFT = "#222222", "#8a8a8a"
# Dark to light, so that they differ in grey too.
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DPI = 300
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.0,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "legend.fontsize": 6.0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "luma",
    "pdf.fonttype": 42,
    "path.simplify": False,
}
# What would differ between two writings of the same plot.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
}
_FONT_SIZE = 5.6
_MARKER_PIXELS = 7.0
_PADDING_PIXELS = 2.0
# Places are tried near before far; at each distance up and to the left first, which a rising front leaves free.
_DISTANCES = (9, 16, 26, 40, 58, 80, 105)
_ANGLES = (135, 90, 160, 112, 180, 60, 45, 315, 0, 290, 270, 225, 200, 20)
_AXES_INCHES = 2.35
_ABOVE_INCHES, _BELOW_INCHES = 0.45, 0.45  # title with legend, axis title with caption's first gap
# Of the members of the front those are labelled that add this part of the range of mIoU to the one labelled before.
_LABELLED_RISE = 0.035
_CAPTION_CHARACTERS = 78
_CAPTION_INCHES_PER_LINE = 0.115
_BAND = "#b7d3ea"
_MARGIN = 0.06
_AXES: Mapping[BudgetKind, str] = {
    "macs": "GFLOPs of the segmenter on one crop",
    "params": "parameters of the segmenter (millions)",
    "ms": "latency (ms per image, batch 1)",
    "images_per_second": "throughput (images/s)",
    "bytes": "peak memory (GiB)",
    "joules": "energy (J per image)",
}


def check_path(path: Path) -> None:
    """Raises UsageError for a suffix that is none of the three, LumaError without matplotlib."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {path} ends in {path.suffix or 'no suffix'}, expected .png, .svg or .pdf")
    if importlib.util.find_spec("matplotlib") is None:
        raise LumaError("plots need matplotlib, which is not installed; pip install 'luma-seg[plot]'")


@contextmanager
def style() -> Iterator[None]:
    """The style of every plot, for as long as it is drawn and saved; the caller's settings come back."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in _STYLE.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]
        yield


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format of the suffix, whole or not at all. Raises LumaError when it cannot be written."""
    suffix = path.suffix.lower()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix[1:], dpi=_DPI, metadata=_METADATA[suffix])
    try:
        write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise LumaError(f"{path} cannot be written: {error.strerror or error}; choose another --out") from error


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether the two share any area."""
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top

    def within(self, other: Box) -> bool:
        """Whether it lies inside the other."""
        across = other.left <= self.left and self.right <= other.right
        return across and other.bottom <= self.bottom and self.top <= other.top


def place(
    anchors: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], frame: Box, avoid: Sequence[Box] = ()
) -> list[Box | None]:
    """A free box for a label of each size beside each anchor, in pixels; None where there is no room.

    anchors: in the order in which they are served. avoid: boxes that no label may cover.
    """
    reach = _MARKER_PIXELS
    taken = [*avoid, *(Box(x - reach, y - reach, x + reach, y + reach) for x, y in anchors)]
    found: list[Box | None] = []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        places = (box for box in _places(x, y, width, height) if box.within(frame))
        free = next((box for box in places if not any(box.meets(other) for other in taken)), None)
        found.append(free)
        taken += [free] if free is not None else []
    return found


def _places(x: float, y: float, width: float, height: float) -> Iterator[Box]:
    """Boxes around a point: the side towards the point is at the distance."""
    for distance in _DISTANCES:
        for angle in map(math.radians, _ANGLES):
            left = x + math.cos(angle) * (distance + width / 2) - width / 2
            bottom = y + math.sin(angle) * (distance + height / 2) - height / 2
            yield Box(left, bottom, left + width, bottom + height)


def _label(axes: Axes, dots: Sequence[Dot], avoid: Sequence[Box]) -> None:
    """Write a label beside each dot, with a thin line where it stands apart.

    Limits and scales must be final. A label that finds no room is left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(axes.figure).get_renderer()  # type: ignore[no-untyped-call,arg-type]
    drawn = [axes.text(0, 0, dot.label, fontsize=_FONT_SIZE, color=INK, va="bottom", ha="left") for dot in dots]
    extents = [text.get_window_extent(renderer) for text in drawn]
    sizes = [(extent.width + 2 * _PADDING_PIXELS, extent.height) for extent in extents]
    anchors = [tuple(axes.transData.transform((dot.cost, dot.miou_percent))) for dot in dots]
    window = axes.get_window_extent(renderer)
    boxes = place(anchors, sizes, Box(window.x0, window.y0, window.x1, window.y1), avoid)
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


@dataclass(frozen=True, slots=True)
class Dot:
    """One candidate: its cost in the unit of the axis, predicted mIoU in percent, and its central 80% interval."""

    label: str
    cost: float
    miou_percent: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Step:
    """What the front reaches from this cost on with 90, 50 and 10% probability, mIoU in percent."""

    cost: float
    likely: float
    median: float
    unlikely: float


@dataclass(frozen=True, slots=True)
class FrontPicture:
    """A front to be drawn.

    axis: title of the cost with its unit. front: on the envelope of the predicted mIoU, cheapest first. beside: off it,
    but with a fair chance to be on it. cloud: cost and mIoU of all other candidates. own: the user's runs, with the
    mIoU that was measured. band: cheapest first. caption: dataset, scale, origin and conditions of the costs.
    is_rate: more is better, as for images/s; the axis then runs from right to left.
    """

    title: str
    axis: str
    front: tuple[Dot, ...]
    beside: tuple[Dot, ...]
    cloud: tuple[tuple[float, float], ...]
    own: tuple[Dot, ...]
    band: tuple[Step, ...]
    caption: tuple[str, ...]
    is_rate: bool = False


def picture_of(front: LearnedFront, behind: Backdrop) -> FrontPicture:
    """The picture of a learned front before its backdrop."""
    kind, question = front.kind, front.question
    origins = sorted({row.priced.costs[kind].origin for row in front.rows})

    def shown(cost: float) -> float:
        return in_unit(kind, cost, question.convention)

    def dot(row: FrontRow) -> Dot:
        name, prediction = f"{row.candidate.name}@{row.candidate.resolution}", row.prediction
        return Dot(name, shown(row.priced.costs[kind].value), prediction.miou_percent, *prediction.interval_80)

    def own(each: OwnDistance) -> Dot:
        run = each.row.run
        label = f"own: {run.backbone}@{run.resolution}"
        return Dot(label, shown(each.priced.costs[kind].value), *[run.miou_percent] * 3)

    head, dataset = (
        HEAD_TITLES.get(question.head, question.head),
        DATASET_TITLES.get(question.dataset, question.dataset),
    )
    return FrontPicture(
        title=f"{dataset}, head {head}: learned front over {TITLES[kind]}",
        axis=_AXES[kind],
        front=tuple(map(dot, front.rows)),
        beside=tuple(map(dot, front.likely)),
        cloud=tuple((shown(cost), miou) for cost, miou in behind.candidates),
        own=tuple(own(each) for each in front.own if kind in each.priced.costs),
        band=tuple(Step(shown(cost), *reached) for cost, reached in behind.band),
        caption=(
            f"{len(behind.candidates):,} candidates, mIoU predicted {front.scale_note}; bars: 80% of one run. "
            f"{TITLES[kind].capitalize() if kind != 'macs' else 'GFLOPs'}: {', '.join(origins)}.",
            *(f"{note[:1].upper()}{note[1:]}." for note in front.notes),
        ),
        is_rate=kind in FLOORS,
    )


def plot_front(picture: FrontPicture, path: Path) -> None:
    """Write the picture to `path`, .png, .svg or .pdf. Raises LumaError when it cannot be written."""
    with style():
        save(draw_front(picture), path)


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
    steps = _extended(picture)
    _band(axes, steps)
    if picture.cloud:
        xs, ys = zip(*picture.cloud, strict=True)
        axes.plot(xs, ys, ".", color="#c2c2c2", markersize=2.2, markeredgewidth=0, zorder=0.8, label="candidates")
    _marked(axes, picture.beside, "o", "white", "may be on it")
    _marked(axes, picture.front, "o", INK, "on it by the mean")
    _marked(axes, picture.own, "*", COLOURS[2], "own run", size=6.5)
    _frame(axes, picture)
    _label(axes, [*picture.own, *_labelled(picture.front)], list(_covered(axes, picture, steps)))
    figure.text(0.02, 0.04 / height, "\n".join(lines), fontsize=5.8, color="#444444", va="bottom", linespacing=1.3)
    return figure


def _labelled(front: Sequence[Dot]) -> list[Dot]:
    """Members that stand visibly above the one labelled before."""
    chosen = list(front[:1])
    for dot in front[1:]:
        rise = _LABELLED_RISE * (front[-1].miou_percent - front[0].miou_percent)
        if dot.miou_percent - chosen[-1].miou_percent > rise:
            chosen.append(dot)
    return chosen


def _extended(picture: FrontPicture) -> list[Step]:
    """The band with its last step drawn on to the dearest point."""
    if not picture.band:
        return []
    costs = [step.cost for step in picture.band] + [dot.cost for dot in (*picture.front, *picture.own)]
    return [*picture.band, replace(picture.band[-1], cost=min(costs) if picture.is_rate else max(costs))]


def _band(axes: Axes, steps: Sequence[Step]) -> None:
    """Steps: what is reached at a cost is reached at every greater one."""
    if steps:
        costs = [step.cost for step in steps]
        low, middle, high = ([getattr(step, name) for step in steps] for name in ("likely", "median", "unlikely"))
        band = "front, 10 to 90% of draws"
        axes.fill_between(costs, low, high, step="post", color=_BAND, linewidth=0, zorder=1, label=band)
        axes.step(costs, middle, where="post", color=COLOURS[1], linewidth=0.9, zorder=2, label="median")


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
    place_of = {"bbox_to_anchor": (-0.03, 0.99), "ncols": 3}
    axes.legend(loc="lower left", handletextpad=0.4, borderaxespad=0.2, columnspacing=1.0, **place_of)


def _covered(axes: Axes, picture: FrontPicture, steps: Sequence[Step]) -> Iterator[Box]:
    """What labels stay off: the band, the rise between its steps, intervals of points; in pixels, a little larger."""
    corners = []
    for step, following in pairwise(steps):
        corners.append([(step.cost, step.likely), (following.cost, step.unlikely)])
        corners.append([(following.cost, step.median), (following.cost, following.median)])
    corners += [[(dot.cost, dot.low), (dot.cost, dot.high)] for dot in (*picture.front, *picture.beside, *picture.own)]
    for pair in corners:
        (left, bottom), (right, top) = axes.transData.transform(pair)
        yield Box(min(left, right) - 3, min(bottom, top) - 3, max(left, right) + 3, max(bottom, top) + 3)
