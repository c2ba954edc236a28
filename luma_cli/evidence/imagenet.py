"""ImageNet-1k top-1 accuracy of timm checkpoints, as timm publishes it: a predictor to be tested, never evidence.

Source: https://github.com/huggingface/pytorch-image-models, `results/results-imagenet.csv`. Only exact tags: the same
architecture with other weights has another accuracy. Self-supervised weights without a classifier have none.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from luma_cli import files
from luma_cli.errors import BadCard

_COLUMNS = ["timm", "img_size", "top1_percent"]


def table_path() -> Path:
    """The shipped table, one row per checkpoint and evaluation size."""
    return files.root() / "profiles" / "reference" / "imagenet_top1.csv"


@cache
def top1_percent() -> Mapping[str, float]:
    """Top-1 in percent by timm name with its tag, at the smallest size published: the size of training, mostly.

    Larger sizes are test-time upscaling, which moves checkpoints of one architecture apart by their schedule.

    >>> round(top1_percent()["resnet50.a1_in1k"], 1)
    80.4
    """
    return MappingProxyType(read_top1(table_path()))


def read_top1(path: Path) -> dict[str, float]:
    """The table at `path`. Raises BadCard, naming file and line, for a column or number that does not parse."""
    best: dict[str, tuple[int, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        if next(reader, []) != _COLUMNS:
            raise BadCard(f"{path}: the first line is not {','.join(_COLUMNS)}; restore the file")
        for line, row in enumerate(reader, start=2):
            name, side, top1 = _row(path, line, row)
            if name not in best or side < best[name][0]:
                best[name] = (side, top1)
    return {name: top1 for name, (_, top1) in best.items()}


def _row(path: Path, line: int, row: list[str]) -> tuple[str, int, float]:
    try:
        name, side, top1 = row
        found = name, int(side), float(top1)
    except ValueError as error:
        raise BadCard(f"{path}, line {line}: {row} is not a name, a size and a percentage") from error
    if not 0 < found[2] < 100:
        raise BadCard(f"{path}, line {line}: top-1 is {top1}, expected a percentage")
    return found
