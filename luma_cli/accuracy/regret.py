"""Regret of a rule: mIoU lost by its choice against the best row under a budget; and the simple rules to beat.

A group is the fine-tuned rows of one dataset, head, recipe and test-time protocol with at least five backbones of known
size. Its seven budgets are quantiles of cost (parameters times pixels). A rule may not look at the rows it orders.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from luma_cli.accuracy.effects import USUAL_PIXELS, Observations
from luma_cli.accuracy.subjects import Subject
from luma_cli.evidence.evidence import top1_percent

if TYPE_CHECKING:
    pass


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


NUM_BUDGETS = 7
LEAST_BACKBONES = 5
MODEL = "luma's model"
Group = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Regret:
    """Mean mIoU lost by taking a rule's first choice, and the best of its first three, over `num` budgets."""

    at_1: float
    at_3: float
    num: int


def regrets(observed: Observations, mious: Sequence[float], predicted: Sequence[float]) -> dict[str, dict[str, Regret]]:
    """By dataset and rule, the model's among them. predicted: mIoU of every row from the rows of other backbones."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for group, rows in groups(observed.subjects).items():
        known = [Known(observed.subjects[row], mious[row]) for row in rows]
        costs, truth = [log_cost(each.subject) for each in known], [each.miou_percent for each in known]
        scores = {MODEL: [predicted[row] for row in rows]}
        for name, rule in RULES.items():
            scores[name] = [rule(each.subject, _others(known, each.subject.backbone)) for each in known]
        for name, values in scores.items():
            found[group[0]][name] += _losses(costs, values, truth)
    return {
        dataset: {name: _mean(losses) for name, losses in by_rule.items()} for dataset, by_rule in sorted(found.items())
    }


def groups(subjects: Sequence[Subject]) -> dict[Group, list[int]]:
    """Rows whose mIoU may be compared, where there are enough backbones to choose among."""
    found: dict[Group, list[int]] = defaultdict(list)
    for index, each in enumerate(subjects):
        if each.regime == "fine-tuned" and each.params and each.eval and not each.extra_data:
            found[each.dataset, each.head, each.recipe, each.eval].append(index)
    return {
        group: rows
        for group, rows in sorted(found.items())
        if len({subjects[row].backbone for row in rows}) >= LEAST_BACKBONES
    }


def best_rule(by_rule: Mapping[str, Regret]) -> str:
    """The rule of least regret; the model where it is not beaten."""
    return min(by_rule, key=lambda name: (by_rule[name].at_1, name != MODEL, name))


def _others(known: Sequence[Known], backbone: str) -> list[Known]:
    return [each for each in known if each.subject.backbone != backbone]


def _losses(costs: Sequence[float], scores: Sequence[float], mious: Sequence[float]) -> list[tuple[float, float]]:
    ordered = sorted(costs)
    found = []
    for number in range(1, NUM_BUDGETS + 1):
        limit = ordered[number * len(ordered) // (NUM_BUDGETS + 1)]
        within = [index for index, cost in enumerate(costs) if cost <= limit]
        within.sort(key=lambda index: (-scores[index], costs[index], index))
        best = max(mious[index] for index in within)
        found.append((best - mious[within[0]], best - max(mious[index] for index in within[:3])))
    return found


def _mean(losses: Sequence[tuple[float, float]]) -> Regret:
    count = len(losses)
    return Regret(sum(first for first, _ in losses) / count, sum(third for _, third in losses) / count, count)
