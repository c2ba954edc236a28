"""Simple rules that the model must beat, each as scores of rows that it may not look at.

A rule orders rows that share dataset, head and protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from luma_cli.accuracy.design import USUAL_PIXELS
from luma_cli.accuracy.subject import Subject
from luma_cli.evidence.imagenet import top1_percent

# arXiv 2607.00687: N* ~ C^0.83 and T* ~ C^0.2, so error falls this much faster in tokens than in parameters.
PAPER_RATIO = 0.83 / 0.2


@dataclass(frozen=True)
class Known:
    """A row with its mIoU, as a rule may look at it."""

    subject: Subject
    miou_percent: float

    @cached_property
    def place(self) -> tuple[float, float]:
        """Logs of its size and pixels."""
        return _log_params(self.subject), _log_pixels(self.subject)


# Score of a subject, better large, given rows that it may look at.
Rule = Callable[[Subject, Sequence[Known]], float]


def largest_that_fits(subject: Subject, known: Sequence[Known]) -> float:
    """The most parameters times pixels."""
    return log_cost(subject)


def imagenet_top1(subject: Subject, known: Sequence[Known]) -> float:
    """Timm's ImageNet top-1 of the same weights, of the same architecture where these have none, else the lowest."""
    return top1_percent().get(subject.checkpoint, _best_top1().get(subject.architecture, 0.0))


def size_rule(subject: Subject, known: Sequence[Known]) -> float:
    """Parameters and tokens alone, weighed as the paper's 80/20 rule weighs them."""
    return _log_params(subject) + PAPER_RATIO * _log_pixels(subject)


def nearest_neighbour(subject: Subject, known: Sequence[Known]) -> float:
    """The mIoU of the row nearest in size and tokens, the first of several; 0 without rows."""
    place = _log_params(subject), _log_pixels(subject)
    distances = [math.dist(place, each.place) for each in known]
    return known[distances.index(min(distances))].miou_percent if known else 0.0


RULES: Mapping[str, Rule] = {
    "largest that fits": largest_that_fits,
    "ImageNet top-1": imagenet_top1,
    "size and tokens (80/20)": size_rule,
    "nearest neighbour": nearest_neighbour,
}


def log_cost(subject: Subject) -> float:
    """Log of parameters times pixels: what one forward pass costs, up to a factor."""
    return _log_params(subject) + _log_pixels(subject)


@cache
def _best_top1() -> Mapping[str, float]:
    """The best top-1 of every architecture's weights."""
    best: dict[str, float] = {}
    for name, value in top1_percent().items():
        architecture = name.partition(".")[0]
        best[architecture] = max(best.get(architecture, 0.0), value)
    return best


def _log_params(subject: Subject) -> float:
    return math.log(subject.params) if subject.params else 0.0


def _log_pixels(subject: Subject) -> float:
    if subject.height and subject.width:
        return math.log(subject.height * subject.width)
    return math.log(USUAL_PIXELS.get(subject.dataset, 512 * 512))
