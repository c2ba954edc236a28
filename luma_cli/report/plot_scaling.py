"""The scaling law as a picture: error by size and by resolution, every level moved onto one, and how compute splits.

A curve is drawn where its exponent may be quoted. Without a law the points stay where they were measured, and those of
one level are joined.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from luma_cli.evidence.evidence import DATASET_TITLES
from luma_cli.report.plots import COLOURS, COLUMN_INCHES, INK, MARKERS, SOFT, save, style
from luma_cli.scaling.answer import Scaling
from luma_cli.scaling.law import PAPER, PAPER_SOURCE, Law, Point, distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_HEIGHT_INCHES = 4.7
_CAPTION_CHARACTERS = 78
_MOST_SERIES = len(COLOURS)
# Groups of sizes stand beside each other at one resolution, this part of it apart.
_ASIDE = 0.012


def draw_scaling(answer: Scaling) -> Figure:
    """Two panels, error against parameters and against image tokens, with a caption that says what may be concluded."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(COLUMN_INCHES, _HEIGHT_INCHES))
    by_size, by_tokens = figure.subplots(2, 1)
    law = answer.fit.law if answer.fit is not None else None
    told = answer.exponents
    _panel(by_size, answer.chosen.points, law, "tokens", told is not None and told.a.tells)
    _panel(by_tokens, answer.chosen.points, law, "params", told is not None and told.b.tells)
    by_size.set_xlabel("backbone parameters (millions)")
    by_tokens.set_xlabel("side of a square of as many pixels, sizes side by side")
    title = DATASET_TITLES.get(answer.dataset, answer.dataset)
    figure.text(0.02, 0.985, f"{title}: error by size and resolution", fontsize=7.5, color=INK, va="top")
    lines = textwrap.wrap(_caption(answer), _CAPTION_CHARACTERS)
    figure.text(0.02, 0.01, "\n".join(lines), fontsize=5.8, color="#444444", va="bottom", linespacing=1.3)
    bottom = (0.115 * len(lines) + 0.45) / _HEIGHT_INCHES
    figure.subplots_adjust(left=0.13, right=0.955, top=0.9, bottom=bottom, hspace=0.62)
    return figure


def plot_scaling(answer: Scaling, path: Path) -> None:
    """Write the picture to `path`, .png, .svg or .pdf. Raises LumaError when it cannot be written."""
    with style():
        save(draw_scaling(answer), path)


def _panel(axes: Axes, points: Sequence[Point], law: Law | None, by: str, told: bool) -> None:
    """Points in groups of the other quantity, with the law's curve through each group where it is told.

    At most seven groups: neighbours within 15% are one, further ones are joined evenly.
    """
    sizes = distinct([getattr(point, by) for point in points])
    groups = sizes[:: -(-len(sizes) // _MOST_SERIES) or 1]
    for index, (low, high) in enumerate(zip(groups, [*groups[1:], float("inf")], strict=True)):
        members = [point for point in points if low <= getattr(point, by) < high]
        colour, marker = COLOURS[index], MARKERS[index]
        aside = 1.0 if told or by == "tokens" else 1.0 + _ASIDE * (index - (len(groups) - 1) / 2)
        # Errors are moved onto the reference level where a law says how far the levels are apart.
        errors = [point.error / law.levels[point.level] if law is not None else point.error for point in members]
        axes.plot(
            [aside * _x(point, by) for point in members], errors, marker, color=colour, markersize=3.2,
            markeredgewidth=0.5, fillstyle="full" if law else "none", alpha=0.75, label=_label(members, by),
            linestyle="none",
        )  # fmt: skip
        if law is not None and told:
            _curve(axes, members, law, by, colour)
    if law is None:
        _join(axes, points, by)
    _dress(axes, by, law)


def _x(point: Point, by: str) -> float:
    return point.params / 1e6 if by == "tokens" else float(point.side)


def _label(members: Sequence[Point], by: str) -> str:
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
    own = "params" if by == "tokens" else "tokens"
    values = [getattr(point, own) for point in members]
    if min(values) == max(values):
        return
    grid = np.geomspace(min(values), max(values), 60)
    errors = [law.error(each, other) if by == "tokens" else law.error(other, each) for each in grid]
    xs = grid / 1e6 if by == "tokens" else 16 * np.sqrt(grid)
    axes.plot(xs, errors, "-", color=colour, linewidth=0.9, alpha=0.9)


def _join(axes: Axes, points: Sequence[Point], by: str) -> None:
    """Thin lines along each level, through points that share the other quantity."""
    groups: dict[tuple[str, float], list[Point]] = {}
    for point in points:
        groups.setdefault((point.level, getattr(point, by)), []).append(point)
    for members in groups.values():
        ordered = sorted(members, key=lambda point: _x(point, by))
        axes.plot(
            [_x(point, by) for point in ordered], [point.error for point in ordered], "-", color=SOFT, linewidth=0.4,
            zorder=1,
        )  # fmt: skip


def _dress(axes: Axes, by: str, law: Law | None) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator, ScalarFormatter

    axes.set_xscale("log")
    axes.set_ylabel("100 - mIoU (%)" + (", one level" if law is not None else ""))
    low, high = axes.get_xlim()
    ticks = [3, 10, 30, 100, 300, 1000, 3000] if by == "tokens" else [224, 384, 512, 640, 768, 1024, 1280, 2048]
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=min(4, len(handles)) if len(handles) != 6 else 3,
            handletextpad=0.1, borderaxespad=0.1, columnspacing=1.0,
        )  # fmt: skip


def _caption(answer: Scaling) -> str:
    """What was drawn, what it tells, and what it does not."""
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
        parts.append(f"These results cannot tell how compute splits; the paper ({PAPER_SOURCE}) says {paper}.")
    return " ".join(parts)
