"""What was asked of the advisor: budgets, filters and what is wanted most; and the line that says why nothing fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from luma_cli.advise import budgets as held
from luma_cli.advise.budgets import Priced
from luma_cli.advise.candidates import Candidate
from luma_cli.catalogue.heads import HeadName
from luma_cli.catalogue.spec import Family
from luma_cli.errors import UsageError
from luma_cli.units import Budget, BudgetKind, FlopConvention

Objective = Literal["miou", "miou-per-ms", "knee"]


@dataclass(frozen=True, slots=True)
class Question:
    """Budgets, the tightest of each kind, and filters. resolutions and the filters of names: empty for any."""

    dataset: str
    budgets: tuple[Budget, ...] = ()
    objective: Objective = "miou"
    resolutions: tuple[int, ...] = ()
    families: frozenset[str] = frozenset()
    pretrainings: frozenset[str] = frozenset()
    licences: frozenset[str] = frozenset()
    convention: FlopConvention = "mac"
    device: str | None = None
    head: HeadName = "luma"

    @property
    def axis(self) -> BudgetKind:
        """The cost that the front stands on: of mIoU per ms the latency, else what the first budget bounds, or MACs."""
        if self.objective == "miou-per-ms":
            return "ms"
        return self.budgets[0].kind if self.budgets else "macs"

    @property
    def kinds(self) -> tuple[BudgetKind, ...]:
        """Every kind of cost that an answer needs, each once."""
        return tuple(dict.fromkeys((*(budget.kind for budget in self.budgets), self.axis)))

    @property
    def is_timed(self) -> bool:
        """Whether a cost is needed that depends on a device."""
        return not held.EXACT.issuperset(self.kinds)

    def eligible(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Candidates whose weights can be had and that pass the filters, in an order that no input changes."""
        passed = [
            each
            for each in candidates
            if each.public_weights
            and (not self.families or each.family in self.families)
            and (not self.pretrainings or each.pretraining in self.pretrainings)
            and (not self.licences or each.licence in self.licences)
            and (not self.resolutions or each.resolution in self.resolutions)
        ]
        return sorted(passed, key=lambda each: each.key)

    @property
    def filters(self) -> str:
        """The filters, as they follow `no candidate`."""
        said = [f"at {', '.join(map(str, self.resolutions))} px"] if self.resolutions else []
        named = (("family", self.families), ("pretraining", self.pretrainings), ("licence", self.licences))
        said += [f"of {title} {' or '.join(sorted(names))}" for title, names in named if names]
        return "".join(f" {each}" for each in said)


def check_names(question: Question, candidates: Iterable[Candidate]) -> None:
    """Raises UsageError, naming the valid ones, for a filter that no candidate can pass by its spelling."""
    pool = list(candidates)
    check_families(question.families)
    _check("--pretraining", question.pretrainings, sorted({each.pretraining for each in pool} - {""}))
    _check("--license", question.licences, sorted({each.licence for each in pool} - {""}))


def check_families(families: Iterable[str]) -> None:
    """Raises UsageError, naming the valid ones, for a family that no backbone can have."""
    _check("--family", families, get_args(Family))


def _check(option: str, asked: Iterable[str], valid: Sequence[str]) -> None:
    unknown = sorted(set(asked) - set(valid))
    if unknown:
        raise UsageError(f"{option} {unknown[0]!r} is not known, expected one of {', '.join(valid)}")


def unmet(question: Question, pool: Sequence[Priced]) -> str:
    """Why no candidate of the pool meets the budgets: the nearest one and its value, per budget that fails."""
    if not pool:
        return f"no candidate with public weights is left{question.filters}; leave out a filter"
    lines = (_unmet(question, pool, budget) for budget in question.budgets)
    return "; ".join(filter(None, lines)) or _jointly(question, pool)


def _unmet(question: Question, pool: Sequence[Priced], budget: Budget) -> str:
    best = held.cheapest(pool, budget)
    if best is None:
        missing = f"{budget.text}: {held.TITLES[budget.kind]} is not known of any candidate"
        device = f" on {question.device}" if question.device else ""
        return (
            f"{missing}{device}; run luma profile NAME, or name a device whose figures ship, e.g. --device 'RTX 4090'"
        )
    quantity = best.costs[budget.kind]
    if budget.holds(quantity.value):
        return ""
    least = "fastest" if budget.is_floor else "cheapest"
    said = held.explain(quantity, question.convention)
    return f"nothing meets {budget.text}: the {least} candidate is {best.candidate.label} with {said}"


def _jointly(question: Question, pool: Sequence[Priced]) -> str:
    asked = " and ".join(budget.text for budget in question.budgets)
    first, *others = question.budgets
    allowed = [each for each in pool if held.hold(each, first) == "within"]
    for other in others:
        nearest = held.cheapest(allowed, other)
        if nearest is not None and not other.holds(nearest.costs[other.kind].value):
            said = held.explain(nearest.costs[other.kind], question.convention)
            within = f"within {first.text} the cheapest candidate is {nearest.candidate.label} with {said}"
            return f"nothing meets {asked} together: {within}"
    return f"nothing meets {asked} together"
