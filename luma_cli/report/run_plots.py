"""Plots of trainings as files: learning curves of runs, and the confusion matrix of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from luma_cli.errors import RunError, UsageError
from luma_cli.report.plots import COLOURS, COLUMN_INCHES, INK, save, style
from luma_cli.store.runs import MIOU

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOSS = "train/loss"
Points = Sequence[tuple[int, float]]
_CURVES_INCHES = 3.9
_SMOOTHED_SHARE = 50  # the loss of a step is noise; a fiftieth of the training is averaged
_LONGEST_NAME = 24
_CELL_INCHES, _LEAST_CELL_INCHES = 0.27, 0.09
_MOST_WRITTEN = 25  # classes up to which a cell holds its number


@dataclass(frozen=True, slots=True)
class RunCurves:
    """A run's training loss and its validation mIoU in percent, each (step, value) by step."""

    run_id: str
    loss: Points
    miou: Points


def curves_of(run_id: str, curves: Mapping[str, Points]) -> RunCurves:
    """The curves of a run as the database has them. Raises RunError where it has none."""
    loss, miou = ([at for at in curves.get(name, ()) if math.isfinite(at[1])] for name in (LOSS, MIOU))
    if not loss and not miou:
        raise RunError(f"no loss and no validation of run {run_id} is in the database; see `luma runs show {run_id}`")
    return RunCurves(run_id, loss, miou)


def plot_curves(runs: Sequence[RunCurves], path: Path) -> None:
    """Write loss and mIoU by step to `path`, .png, .svg or .pdf. Raises UsageError for more runs than colours."""
    from matplotlib.figure import Figure

    if len(runs) > len(COLOURS):
        raise UsageError(f"{len(runs)} runs, expected at most {len(COLOURS)}, a colour each")
    with style():
        figure = Figure(figsize=(COLUMN_INCHES, _CURVES_INCHES + 0.13 * len(runs)))
        above, below = figure.subplots(2, 1, sharex=True)
        for run, colour in zip(runs, COLOURS[1:] + COLOURS[:1], strict=False):
            if run.loss:
                above.plot(*zip(*run.loss, strict=True), color=colour, linewidth=0.4, alpha=0.25)
                above.plot(*zip(*smoothed(run.loss), strict=True), color=colour, linewidth=1.0, label=run.run_id)
            if run.miou:
                label = "" if run.loss else run.run_id
                below.plot(*zip(*run.miou, strict=True), "o-", color=colour, linewidth=1.0, markersize=2.4, label=label)
        above.set_ylabel("training loss")
        below.set_ylabel("validation mIoU (%)")
        below.set_xlabel("optimiser step")
        figure.legend(loc="upper left", bbox_to_anchor=(0.01, 1.0), borderaxespad=0.3)
        height = figure.get_figheight()
        top = 1 - (0.12 + 0.13 * len(runs)) / height
        figure.subplots_adjust(left=0.13, right=0.97, top=top, bottom=0.4 / height, hspace=0.12)
        save(figure, path)


def smoothed(points: Points) -> Points:
    """The mean of the points around each: a fiftieth of all."""
    half = len(points) // _SMOOTHED_SHARE // 2
    total = [0.0]
    for _, value in points:
        total.append(total[-1] + value)
    found = []
    for index, (step, _) in enumerate(points):
        first, last = max(0, index - half), min(len(points), index + half + 1)
        found.append((step, (total[last] - total[first]) / (last - first)))
    return found


def plot_confusion(matrix: NDArray[np.int64], names: Sequence[str], title: str, path: Path) -> None:
    """Write a confusion matrix [C, C] of pixels (truth, prediction) to `path`: shares of each true class in percent.

    Rows of classes without true pixels stay empty.
    """
    import numpy as np
    from matplotlib.figure import Figure

    truth = matrix.sum(axis=1, keepdims=True)
    shares = np.where(truth > 0, 100 * matrix / np.maximum(truth, 1), np.nan)
    num, labels = len(names), [name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..." for name in names]
    cell = _CELL_INCHES if num <= _MOST_WRITTEN else _LEAST_CELL_INCHES
    size = 5.5 if num <= _MOST_WRITTEN else 4.5
    room = 0.25 + 0.075 * max(map(len, labels)) * size / 6
    side = max(num * cell, 1.6)
    width, height = room + side + 0.75, room + side + 0.55
    with style():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((room / width, 0.2 / height, side / width, side / height))
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        axes.grid(visible=False)
        axes.set_facecolor("#eeeeee")
        axes.xaxis.tick_top()
        axes.set_xticks(range(num), labels, rotation=90, fontsize=size)
        axes.set_yticks(range(num), labels, fontsize=size)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if num <= _MOST_WRITTEN:
            for row, column in np.argwhere(shares >= 0.5).tolist():
                value = shares[row, column]
                colour = "white" if value > 55 else INK
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=size - 0.7, color=colour)
        bar = figure.add_axes(((room + side + 0.12) / width, 0.2 / height, 0.1 / width, side / height))
        figure.colorbar(image, cax=bar, label="% of the true pixels of the class")
        figure.text(0.02, 1 - 0.05 / height, title, fontsize=7.5, color=INK, va="top")
        save(figure, path)
