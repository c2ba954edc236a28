"""Plots of the front and of the scaling law as files; equal numbers give equal files, without a date.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), each with its own marker, for colour-blind readers and
black-and-white printers. The width is a column of a paper.
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

from luma_cli.advise.question import TITLES, in_unit
from luma_cli.errors import LumaError, UsageError
from luma_cli.evidence.evidence import DATASET_TITLES, HEAD_TITLES
from luma_cli.files import write_bytes
from luma_cli.scaling.answer import Scaling
from luma_cli.scaling.law import PAPER, PAPER_SOURCE, Law, Point, distinct
from luma_cli.units import FLOORS, BudgetKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from luma_cli.advise.front import FrontRow, LearnedFront


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
# These fields would differ between two runs that write the same plot.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
}
_FONT_SIZE = 5.6
_MARKER_PIXELS = 7.0
_PADDING_PIXELS = 2.0
# Places for a label: near before far; at each distance up and to the left first, which a rising front leaves free.
_DISTANCES = (9, 16, 26, 40, 58, 80, 105)
_ANGLES = (135, 90, 160, 112, 180, 60, 45, 315, 0, 290, 270, 225, 200, 20)
_AXES_INCHES = 2.35
_ABOVE_INCHES, _BELOW_INCHES = 0.45, 0.45  # title with legend; axis title with the gap above the caption
# A member of the front has a label if it adds this share of the range of mIoU to the labelled one before it.
_LABELLED_RISE = 0.035
_CAPTION_CHARACTERS = 78
_CAPTION_INCHES_PER_LINE = 0.115
_MARGIN = 0.06
_SCALING_INCHES = 4.7
# Groups of sizes at one resolution are drawn side by side, this share of it apart.
_ASIDE = 0.012
_AXES: Mapping[BudgetKind, str] = {
    "macs": "GFLOPs of the segmenter on one crop",
    "params": "parameters of the segmenter (millions)",
    "ms": "latency (ms per image, batch 1)",
    "images_per_second": "throughput (images/s)",
    "bytes": "peak memory (GiB)",
    "joules": "energy (J per image)",
}


def check_path(path: Path) -> None:
    """Raises UsageError for another suffix and a folder that does not exist, LumaError without matplotlib."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {path} ends in {path.suffix or 'no suffix'}, expected .png, .svg or .pdf")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}; make it first: mkdir -p {path.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise LumaError("plots need matplotlib, which is not installed; pip install 'luma-seg[plot]'")


@contextmanager
def style() -> Iterator[None]:
    """The style of every plot, while it is drawn and saved; the caller's settings are restored."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in _STYLE.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]
        yield


def save(figure: Figure, path: Path) -> None:
    """Write the figure atomically, in the format of the suffix. Raises LumaError when it cannot be written."""
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
    """A free box for a label of each size beside each anchor, in pixels and in this order; None where there is no room.

    avoid: boxes that no label may cover.
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
    for distance in _DISTANCES:
        for angle in map(math.radians, _ANGLES):
            left = x + math.cos(angle) * (distance + width / 2) - width / 2
            bottom = y + math.sin(angle) * (distance + height / 2) - height / 2
            yield Box(left, bottom, left + width, bottom + height)


def _label(axes: Axes, dots: Sequence[Dot], avoid: Sequence[Box]) -> None:
    """Write a label beside each dot, with a thin line to a distant one. The limits of the axes must be final."""
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
    """One candidate: cost in the unit of the axis, predicted mIoU in percent, central 80% interval."""

    label: str
    cost: float
    miou_percent: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BandStep:
    """mIoU in percent of the best model from this cost on: its 10, 50 and 90% quantiles."""

    cost: float
    likely: float
    median: float
    unlikely: float


@dataclass(frozen=True, slots=True)
class FrontPicture:
    """A front to draw; front and band cheapest first.

    beside: off the front, but likely on it. cloud: cost and mIoU of the other candidates. own: the user's runs as
    measured. is_rate: more is better, as for images/s; the axis then runs from right to left.
    """

    title: str
    axis: str
    front: tuple[Dot, ...]
    beside: tuple[Dot, ...]
    cloud: tuple[tuple[float, float], ...]
    own: tuple[Dot, ...]
    band: tuple[BandStep, ...]
    caption: tuple[str, ...]
    is_rate: bool = False


def picture_of(front: LearnedFront) -> FrontPicture:
    """The picture of a learned front with its candidates and band."""
    kind, question, behind = front.kind, front.question, front.backdrop
    origins = sorted({row.priced.costs[kind].origin for row in front.rows})

    def shown(cost: float) -> float:
        return in_unit(kind, cost, question.convention)

    def dot(row: FrontRow) -> Dot:
        name, prediction = f"{row.candidate.name}@{row.candidate.resolution}", row.prediction
        return Dot(name, shown(row.priced.costs[kind].value), prediction.miou_percent, *prediction.interval_80)

    own = [(each.row.run, each.priced.costs[kind].value) for each in front.own if kind in each.priced.costs]
    head = HEAD_TITLES.get(question.head, question.head)
    dataset = DATASET_TITLES.get(question.dataset, question.dataset)
    return FrontPicture(
        title=f"{dataset}, head {head}: learned front over {TITLES[kind]}",
        axis=_AXES[kind],
        front=tuple(map(dot, front.rows)),
        beside=tuple(map(dot, front.likely)),
        cloud=tuple((shown(cost), miou) for cost, miou in behind.candidates),
        own=tuple(
            Dot(f"own: {run.backbone}@{run.resolution}", shown(cost), *[run.miou_percent] * 3) for run, cost in own
        ),
        band=tuple(BandStep(shown(cost), *reached) for cost, reached in behind.band),
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
    """The front with its band, labels and a caption."""
    from matplotlib.figure import Figure

    lines = textwrap.wrap(" ".join(picture.caption), _CAPTION_CHARACTERS)
    below = _BELOW_INCHES + _CAPTION_INCHES_PER_LINE * len(lines)
    height = _ABOVE_INCHES + _AXES_INCHES + below
    figure = Figure(figsize=(COLUMN_INCHES, height), dpi=_DPI)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.115, right=0.97, top=1 - _ABOVE_INCHES / height, bottom=below / height)
    _write(figure, picture.title, lines, height)
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
    return figure


def _write(figure: Figure, title: str, caption: Sequence[str], height: float) -> None:
    figure.text(0.02, 1 - 0.05 / height, title, fontsize=7.5, color=INK, va="top")
    text = "\n".join(caption)
    figure.text(0.02, 0.04 / height, text, fontsize=5.8, color="#444444", va="bottom", linespacing=1.3)


def _labelled(front: Sequence[Dot]) -> list[Dot]:
    """Members that are visibly above the labelled one before."""
    chosen = list(front[:1])
    for dot in front[1:]:
        rise = _LABELLED_RISE * (front[-1].miou_percent - front[0].miou_percent)
        if dot.miou_percent - chosen[-1].miou_percent > rise:
            chosen.append(dot)
    return chosen


def _extended(picture: FrontPicture) -> list[BandStep]:
    """The band with its last step drawn on to the most expensive point."""
    if not picture.band:
        return []
    costs = [step.cost for step in picture.band] + [dot.cost for dot in (*picture.front, *picture.own)]
    return [*picture.band, replace(picture.band[-1], cost=min(costs) if picture.is_rate else max(costs))]


def _band(axes: Axes, steps: Sequence[BandStep]) -> None:
    # Steps, not slopes: what is reached at a cost is reached at every greater one.
    if steps:
        costs = [step.cost for step in steps]
        low, middle, high = ([getattr(step, name) for step in steps] for name in ("likely", "median", "unlikely"))
        band = "front, 10 to 90%"
        axes.fill_between(costs, low, high, step="post", color="#b7d3ea", linewidth=0, zorder=1, label=band)
        axes.step(costs, middle, where="post", color=COLOURS[1], linewidth=0.9, zorder=2, label="median")


def _marked(axes: Axes, dots: Sequence[Dot], marker: str, fill: str, label: str, size: float = 3.4) -> None:
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
    # Limits around front, band and own runs: candidates far below the front are cut off.
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


def _covered(axes: Axes, picture: FrontPicture, steps: Sequence[BandStep]) -> Iterator[Box]:
    """The boxes that labels avoid, in pixels: the band, the rise between its steps, intervals of points."""
    corners = []
    for step, following in pairwise(steps):
        corners.append([(step.cost, step.likely), (following.cost, step.unlikely)])
        corners.append([(following.cost, step.median), (following.cost, following.median)])
    corners += [[(dot.cost, dot.low), (dot.cost, dot.high)] for dot in (*picture.front, *picture.beside, *picture.own)]
    for pair in corners:
        (left, bottom), (right, top) = axes.transData.transform(pair)
        yield Box(min(left, right) - 3, min(bottom, top) - 3, max(left, right) + 3, max(bottom, top) + 3)


def plot_scaling(answer: Scaling, path: Path) -> None:
    """Write error against parameters and against image tokens to `path`. Raises LumaError when it cannot be written.

    A curve is drawn where its exponent may be quoted. Without a law, the points keep their own level and lines join
    those of one level.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(COLUMN_INCHES, _SCALING_INCHES))
        by_size, by_tokens = figure.subplots(2, 1)
        law = answer.fit.law if answer.fit is not None else None
        told = answer.exponents
        _panel(by_size, answer.chosen.points, law, "tokens", told is not None and told.a.tells)
        _panel(by_tokens, answer.chosen.points, law, "params", told is not None and told.b.tells)
        by_size.set_xlabel("backbone parameters (millions)")
        by_tokens.set_xlabel("side of a square with as many pixels, sizes side by side")
        lines = textwrap.wrap(_caption(answer), _CAPTION_CHARACTERS)
        dataset = DATASET_TITLES.get(answer.dataset, answer.dataset)
        _write(figure, f"{dataset}: error by size and resolution", lines, _SCALING_INCHES)
        bottom = (_CAPTION_INCHES_PER_LINE * len(lines) + _BELOW_INCHES) / _SCALING_INCHES
        figure.subplots_adjust(left=0.13, right=0.955, top=0.9, bottom=bottom, hspace=0.62)
        save(figure, path)


def _panel(axes: Axes, points: Sequence[Point], law: Law | None, by: str, told: bool) -> None:
    """Points in groups of the other quantity, `by`, with the law's curve through each group where it is told.

    There are at most seven groups, a colour each: neighbours within 15% are one, further ones are joined evenly.
    """
    sizes = distinct([getattr(point, by) for point in points])
    groups = sizes[:: -(-len(sizes) // len(COLOURS)) or 1]
    for index, (low, high) in enumerate(zip(groups, [*groups[1:], float("inf")], strict=True)):
        members = [point for point in points if low <= getattr(point, by) < high]
        aside = 1.0 if told or by == "tokens" else 1.0 + _ASIDE * (index - (len(groups) - 1) / 2)
        # Errors are moved onto the reference level where a law says how far the levels are apart.
        errors = [point.error / law.levels[point.level] if law is not None else point.error for point in members]
        axes.plot(
            [aside * _x(point, by) for point in members], errors, MARKERS[index], color=COLOURS[index], markersize=3.2,
            markeredgewidth=0.5, fillstyle="full" if law else "none", alpha=0.75, label=_range(members, by),
            linestyle="none",
        )  # fmt: skip
        if law is not None and told:
            _curve(axes, members, law, by, COLOURS[index])
    if law is None:
        _join(axes, points, by)
    _dress(axes, by, law)


def _x(point: Point, by: str) -> float:
    return point.params / 1e6 if by == "tokens" else float(point.side)


def _range(members: Sequence[Point], by: str) -> str:
    """The range of the other quantity in a group, `512 px` or `22 to 25 M`."""
    if by == "tokens":
        unit, ends = "px", [str(find(point.side for point in members)) for find in (min, max)]
    else:
        unit, ends = "M", [f"{find(point.params for point in members) / 1e6:.3g}" for find in (min, max)]
    return f"{' to '.join(dict.fromkeys(ends))} {unit}"


def _curve(axes: Axes, members: Sequence[Point], law: Law, by: str, colour: str) -> None:
    """The law at the group's geometric mean of the other quantity, over the range of its points."""
    import numpy as np

    other = float(np.exp(np.mean([np.log(getattr(point, by)) for point in members])))
    values = [point.params if by == "tokens" else point.tokens for point in members]
    if min(values) < max(values):
        grid = np.geomspace(min(values), max(values), 60)
        errors = [law.error(each, other) if by == "tokens" else law.error(other, each) for each in grid]
        axes.plot(grid / 1e6 if by == "tokens" else 16 * np.sqrt(grid), errors, color=colour, linewidth=0.9, alpha=0.9)


def _join(axes: Axes, points: Sequence[Point], by: str) -> None:
    """Thin lines through the points of one level that share the other quantity."""
    groups: dict[tuple[str, float], list[Point]] = {}
    for point in points:
        groups.setdefault((point.level, getattr(point, by)), []).append(point)
    for members in groups.values():
        ends = sorted((_x(point, by), point.error) for point in members)
        axes.plot(*zip(*ends, strict=True), color=SOFT, linewidth=0.4, zorder=1)


def _dress(axes: Axes, by: str, law: Law | None) -> None:
    """Scale, ticks and legend."""
    from matplotlib.ticker import NullFormatter, NullLocator, ScalarFormatter

    axes.set_xscale("log")
    axes.set_ylabel("100 - mIoU (%)" + (", one level" if law is not None else ""))
    low, high = axes.get_xlim()
    ticks = [3, 10, 30, 100, 300, 1000, 3000] if by == "tokens" else [224, 384, 512, 640, 768, 1024, 1280, 2048]
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    if handles := axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=min(4, len(handles)) if len(handles) != 6 else 3,
            handletextpad=0.1, borderaxespad=0.1, columnspacing=1.0,
        )  # fmt: skip


def _caption(answer: Scaling) -> str:
    """The results that are drawn, and what follows from them."""
    num_points, num_levels = len(answer.chosen.points), len(answer.chosen.levels)
    filters = f", {answer.asked}" if answer.asked else ""
    levels = "one level" if num_levels == 1 else f"{num_levels} levels"
    parts = [f"{num_points} results on {levels}{filters}, {answer.chosen.num_own} of them own runs."]
    if answer.fit is None:
        parts.append(f"No law: {answer.refusal}. Thin lines join results of one level.")
    else:
        moved = "Level" if num_levels == 1 else "All moved onto the level"
        parts.append(f"{moved}: {answer.fit.law.reference}.")
    if answer.measured and answer.exponents is not None:
        n, t = answer.exponents.size, answer.exponents.tokens
        parts.append(
            f"Near {answer.at.model.label}: N* ~ C^{n.value:.2f} ({n.low:.2f} to {n.high:.2f}), "
            f"T* ~ C^{t.value:.2f} ({t.low:.2f} to {t.high:.2f}), 90% intervals."
        )
    else:
        paper = f"N* ~ C^{PAPER.size:g}, T* ~ C^{PAPER.tokens:g}"
        parts.append(f"These results cannot determine how to split compute; the paper ({PAPER_SOURCE}) says {paper}.")
    return " ".join(parts)
