"""Speed of counting against fvcore, as ratios: `python benchmarks/cost.py [--repeats N] [--table]`.

Both sides include building the model; fvcore runs on the CPU as its users run it, with the handle that it lacks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import timm
import torch

from luma_cli.catalogue.names import resolve
from luma_cli.measure.cost import CountJob
from luma_cli.measure.cost_table import architectures, count_all
from luma_cli.measure.facts import RGB, answer, fvcore_macs

NAME, SIDE = "vit_base_patch16_224", 512
TARGET_RATIO = 15.0
TARGET_TABLE_SECONDS = 360.0


def main() -> int:
    """Print one JSON line; 1 when a target is missed."""
    options = _options()
    job = CountJob(resolve(NAME), SIDE)
    answer(job)  # imports and the first call's caches belong to neither side
    ours = [_seconds(lambda: answer(job)) for _ in range(options.repeats)]
    theirs = [_seconds(_fvcore) for _ in range(max(1, options.repeats // 3))]
    ratio = statistics.median(theirs) / statistics.median(ours)
    result = {"luma_seconds": statistics.median(ours), "fvcore_seconds": statistics.median(theirs), "ratio": ratio}
    table_seconds = _seconds(lambda: count_all(architectures())) if options.table else None
    print(json.dumps({**result, "target": TARGET_RATIO, "table_seconds": table_seconds}))
    return 0 if ratio >= TARGET_RATIO and (table_seconds or 0.0) <= TARGET_TABLE_SECONDS else 1


def _fvcore() -> None:
    model = timm.create_model(NAME, img_size=SIDE, num_classes=0).eval()
    fvcore_macs(model, torch.zeros(1, RGB, SIDE, SIDE))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--table", action="store_true", help="also time the whole cost table (minutes)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
