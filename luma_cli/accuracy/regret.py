"""What a rule's choices cost: mIoU lost against the best row under a budget, over seven budgets per group.

A group is the fine-tuned rows of one dataset, head, recipe and test-time protocol with at least five backbones of
known size. A budget is a quantile of cost (parameters times pixels) among them, so that each group has seven.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luma_cli.accuracy.baselines import RULES, Known, log_cost
from luma_cli.accuracy.fit import Fit, leave_out
from luma_cli.accuracy.observations import Observations
from luma_cli.accuracy.subject import Subject

if TYPE_CHECKING:
    from luma_cli.accuracy.observations import Vector

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


def left_out_regrets(fitted: Fit, truth: Vector) -> dict[str, dict[str, Regret]]:
    """Regrets of the model and of the rules, backbones left out. truth: mIoU of every observation in percent [n]."""
    observed = fitted.observations
    means, _ = leave_out(fitted, [subject.backbone for subject in observed.subjects])
    return regrets(observed, truth.tolist(), observed.percent(means).tolist())


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
