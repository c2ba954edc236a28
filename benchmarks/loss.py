"""The loss of a training step, matching included, against transformers' Mask2Former loss: forward and backward.

    python benchmarks/loss.py [--threads 2] [--rounds 9] [--device cuda] [--predictions 5]

Batch 16, 100 queries, 150 classes, 20 segments per image, 512 px (mask logits 128 x 128), 12,544 points. The two take
turns; a ratio is taken within each round, and its median is given with a 95% interval. Theirs gets binary masks, made
beforehand and not timed; ours gets label maps. Target: at least 3 times as fast. Both see the same numbers, and the
losses must agree to 2% (each draws its own points).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.parts import HeadOutput
from luma_cli.measure.timing import median, median_interval
from luma_cli.train.criterion import create_criterion

TARGET = 3.0
AGREEMENT = 0.02
WEIGHTS = {"loss_mask": 5.0, "loss_dice": 5.0, "loss_cross_entropy": 2.0}


@dataclass(frozen=True, slots=True)
class Size:
    """What is compared; `segments` per image, all of the same area."""

    batch: int = 16
    queries: int = 100
    classes: int = 150
    segments: int = 20
    resolution: int = 512
    predictions: int = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """Median milliseconds of both, and how many times faster ours is, with the 95% interval of that median."""

    ours_ms: float
    theirs_ms: float
    ratio: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        return (
            f"ours {self.ours_ms:.0f} ms, transformers {self.theirs_ms:.0f} ms, "
            f"{self.ratio:.2f} times as fast ({self.low:.2f}-{self.high:.2f}, {self.rounds} rounds)"
        )


class Problem:
    """Predictions and targets of one batch, and the two losses of them, each with its backward pass."""

    def __init__(self, size: Size, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = _label_maps(size, generator).to(device)
        self.predictions = [_prediction(size, generator, device) for _ in range(size.predictions)]
        self.classes = [each.unique().long() for each in self.labels]
        self.masks = [(each == own[:, None, None]).float() for each, own in zip(self.labels, self.classes, strict=True)]
        self._ours = create_criterion(HeadConfig(num_queries=size.queries, num_classes=size.classes), Recipe(), seed=0)
        configure: Any = Mask2FormerConfig
        self._theirs: Any = Mask2FormerLoss(configure(num_labels=size.classes), {}).to(device)

    def ours(self) -> float:
        """Totals of the batch, loss and gradients."""
        totals = self._ours.totals(self.labels)
        parts = self._ours(self.predictions, self.labels, totals, 0, range(len(self.labels)))
        return self._backward(parts.total)

    def theirs(self) -> float:
        """Loss and gradients."""
        first, *others = [
            {"masks_queries_logits": each.mask_logits, "class_queries_logits": each.class_logits}
            for each in self.predictions
        ]
        parts = self._theirs(
            **first, mask_labels=self.masks, class_labels=self.classes, auxiliary_predictions=others or None
        )
        weighted = [value * WEIGHTS[_base(name)] for name, value in parts.items()]
        return self._backward(torch.stack(weighted).sum())

    def _backward(self, total: Tensor) -> float:
        total.backward()  # type: ignore[no-untyped-call]
        for logits in (each for prediction in self.predictions for each in prediction):
            logits.grad = None
        return float(total.detach())


def compare(size: Size = Size(), *, device: str = "cpu", rounds: int = 9) -> Comparison:  # noqa: B008  (frozen)
    """Time both in turns. Raises ValueError when the two losses disagree."""
    problem = Problem(size, device)
    ours, theirs = problem.ours(), problem.theirs()
    if abs(ours - theirs) > AGREEMENT * abs(theirs):
        raise ValueError(f"ours is {ours:.4f}, transformers' {theirs:.4f}: not the same loss")
    seconds: dict[Callable[[], float], list[float]] = {problem.ours: [], problem.theirs: []}
    for number in range(rounds):
        for call in list(seconds)[:: 1 if number % 2 else -1]:
            seconds[call].append(_seconds(call, device))
    of_ours, of_theirs = seconds.values()
    ratios = [slow / fast for fast, slow in zip(of_ours, of_theirs, strict=True)]
    return Comparison(1e3 * median(of_ours), 1e3 * median(of_theirs), median(ratios), *median_interval(ratios), rounds)


def _seconds(call: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _label_maps(size: Size, generator: torch.Generator) -> Tensor:
    """Vertical stripes of different classes: uint8 [B, R, R]."""
    stripes = torch.arange(size.resolution) * size.segments // size.resolution
    chosen = torch.stack([torch.randperm(size.classes, generator=generator) for _ in range(size.batch)])
    rows = chosen[:, stripes].to(torch.uint8)
    return rows[:, None].repeat(1, size.resolution, 1)


def _prediction(size: Size, generator: torch.Generator, device: str) -> HeadOutput:
    """Random logits, the masks' smooth as those of a network."""
    side = size.resolution // 4
    classes = torch.randn(size.batch, size.queries, size.classes + 1, generator=generator)
    coarse = 5 * torch.randn(size.batch, size.queries, side // 4, side // 4, generator=generator)
    masks = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return HeadOutput(classes.to(device).requires_grad_(), masks.to(device).requires_grad_())


def _base(name: str) -> str:
    """`loss_mask_0`, of an earlier prediction, is weighted as `loss_mask` is."""
    return next(known for known in WEIGHTS if name.startswith(known))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; 1 when the target is missed, unless the run is a quick one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--predictions", type=int, default=1)
    parser.add_argument("--batch", type=int, default=Size().batch)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="two rounds, exit 0 whatever comes out")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    size = Size(batch=options.batch, predictions=options.predictions)
    found = compare(size, device=options.device, rounds=2 if options.quick else options.rounds)
    print(json.dumps({**asdict(size), **asdict(found)}) if options.json else found)
    met = found.high >= TARGET
    if not met:
        print(f"missed: at least {TARGET:.0f} times as fast was expected", file=sys.stderr)
    return 0 if met or options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
