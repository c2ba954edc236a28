"""Plots as files: one style, and a file that appears whole, holds no date and is the same for the same numbers.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/), each with a marker of its own, dark to light, so that a
plot survives colour blindness and a black-and-white printer. Sizes are those of a paper's column.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luma_cli.errors import LumaError, UsageError
from luma_cli.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def check_path(path: Path) -> Path:
    """`path` itself. Raises UsageError for a suffix that is none of the three, LumaError without matplotlib."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {path} ends in {path.suffix or 'no suffix'}, expected .png, .svg or .pdf")
    if importlib.util.find_spec("matplotlib") is None:
        raise LumaError("plots need matplotlib, which is not installed; pip install 'luma-seg[plot]'")
    return path


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
