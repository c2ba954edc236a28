"""Forward time of mixtures of experts against a dense ViT: `python benchmarks/moe.py [--size S --res N --batch N ...]`.

A ratio of 1 says that a mixture takes as long as its executed multiply-adds predict from the dense ViT of the same
size, timed in the same run: (mixture time / dense time) / (mixture multiply-adds / dense multiply-adds). Dense and
mixture are called in pairs, the order within a pair alternating; the median over pairs comes with its 95% interval.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.create import create_backbone
from luma_cli.catalogue.own import EXPERT_KINDS, PATCH_SIZE, SIZES, architecture
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.measure.facts import backbone_facts

TARGET_RATIO = 1.25
WARM_UP_PAIRS = 2
Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Timed:
    """One mixture beside the dense ViT: medians in ms, gmacs per image, and the ratio described above."""

    kind: str
    gmacs: float
    dense_gmacs: float
    params: int
    ms: float
    dense_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


def main() -> int:
    """Print one line of JSON per mixture; 1 when the interval of a ratio lies above the target."""
    options = _options()
    torch.set_num_threads(options.threads)
    dense = _backbone(f"vit_{options.size}_patch{PATCH_SIZE}_224", options)
    shape = (options.batch, 3, options.res, options.res)
    images = [torch.randn(shape, device=options.device) for _ in range(3)]
    missed = False
    for kind in options.kinds:
        timed = _time(kind, dense, _backbone(architecture(kind, options.size), options), images, options.pairs)
        print(json.dumps({key: round(getattr(timed, key), 4) if key != "kind" else kind for key in Timed.__slots__}))
        missed = missed or timed.ratio_low > TARGET_RATIO
    print(f"target: ratio <= {TARGET_RATIO} on {options.device}, {options.threads} threads, batch {options.batch}")
    return int(missed)


def _backbone(name: str, options: argparse.Namespace) -> Backbone:
    return create_backbone(BackboneSpec(name, name, name), options.res, device=options.device)


def _time(kind: str, dense: Backbone, mixture: Backbone, images: list[Tensor], pairs: int) -> Timed:
    facts, dense_facts = backbone_facts(mixture), backbone_facts(dense)
    predicted = facts.macs / dense_facts.macs
    seconds = _pairs(dense, mixture, images, pairs)
    ratios = sorted(mine / theirs / predicted for theirs, mine in seconds)
    low, high = _interval(ratios)
    return Timed(
        kind=kind,
        gmacs=facts.macs / 1e9,
        dense_gmacs=dense_facts.macs / 1e9,
        params=facts.params,
        ms=1e3 * statistics.median(mine for _, mine in seconds),
        dense_ms=1e3 * statistics.median(theirs for theirs, _ in seconds),
        ratio=statistics.median(ratios),
        ratio_low=low,
        ratio_high=high,
    )


def _pairs(dense: Backbone, mixture: Backbone, images: list[Tensor], pairs: int) -> list[tuple[float, float]]:
    """Seconds of (dense, mixture) per pair."""
    found = []
    with torch.inference_mode():
        for index in range(pairs + WARM_UP_PAIRS):
            batch = images[index % len(images)]
            order = [mixture, dense] if index % 2 else [dense, mixture]
            seconds = {model: _seconds(model, batch) for model in order}
            found.append((seconds[dense], seconds[mixture]))
    return found[WARM_UP_PAIRS:]


def _seconds(model: Backbone, images: Tensor) -> float:
    _wait(images)
    start = time.perf_counter()
    model(images)
    _wait(images)
    return time.perf_counter() - start


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


def _interval(ordered: list[float]) -> tuple[float, float]:
    """95% interval of the median from order statistics (normal approximation of the binomial)."""
    half = Z_95 * len(ordered) ** 0.5 / 2
    low, high = int(len(ordered) / 2 - half), int(len(ordered) / 2 + half)
    return ordered[max(0, low)], ordered[min(len(ordered) - 1, high)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=EXPERT_KINDS, default=list(EXPERT_KINDS))
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--res", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
