"""Makes `profiles/params.csv`: parameters of every timm architecture without classifier, counted on the meta device.

    python -m luma_cli.backbone.param_table profiles/params.csv

About three minutes. Architectures that installed timm cannot build without further arguments are left out.
"""

from __future__ import annotations

import csv
import io
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import timm
import torch

from luma_cli import files


def count(architecture: str) -> int | None:
    """Parameters of the architecture without classifier; None when it cannot be built by its name alone.

    >>> count("resnet18")
    11176512
    """
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            model = timm.create_model(architecture, pretrained=False, num_classes=0)
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError):
        return None
    return sum(parameter.numel() for parameter in model.parameters())


def table_text(architectures: Iterable[str]) -> str:
    """The table as CSV, sorted by name."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["architecture", "params"])
    counted = ((name, count(name)) for name in sorted(architectures))
    writer.writerows(row for row in counted if row[1] is not None)
    return out.getvalue()


def main(arguments: Sequence[str]) -> int:
    """Writes the table of installed timm to the file named on the command line."""
    if len(arguments) != 2:
        print("usage: python -m luma_cli.backbone.param_table OUT.csv", file=sys.stderr)
        return 2
    files.write_text(Path(arguments[1]), table_text(timm.list_models()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
