"""Budgets held against candidates: what each costs in a budget's unit, whether it fits, and what is cheapest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from luma_cli.advise.candidates import Candidate
from luma_cli.units import Budget, BudgetKind, FlopConvention, gflops, gibibytes

# Kinds that only a measurement can answer; they are never derived from counts.
MEASURED: frozenset[str] = frozenset({"ms", "fps", "images_per_second", "bytes", "joules"})

# What a kind measures, for sentences.
TITLES: Mapping[BudgetKind, str] = {
    "macs": "GFLOPs",
    "params": "parameters",
    "ms": "latency",
    "fps": "frame rate",
    "images_per_second": "throughput",
    "bytes": "memory",
    "joules": "energy",
}


def cost(candidate: Candidate, kind: BudgetKind) -> float | None:
    """The candidate's value in the kind's own unit; None when it is not known or was not measured."""
    if kind == "macs":
        return candidate.macs
    if kind == "params":
        return candidate.params
    row = candidate.measured
    if row is None:
        return None
    if kind == "fps":
        return 1000 / row.latency_ms if row.latency_ms else None
    return {
        "ms": row.latency_ms,
        "images_per_second": row.images_per_second,
        "bytes": row.memory_bytes,
        "joules": row.energy_joules,
    }[kind]


def fits(candidate: Candidate, budgets: Iterable[Budget]) -> bool:
    """Whether every budget holds; a value that is not known never does."""
    return all((value := cost(candidate, budget.kind)) is not None and budget.holds(value) for budget in budgets)


def expense(candidate: Candidate, budgets: Sequence[Budget]) -> tuple[float, ...]:
    """What is to be kept small: the bound quantities with rates negated, or multiply-adds when nothing is bound."""
    if not budgets:
        return (float(candidate.macs) if candidate.macs is not None else float("nan"),)
    values = ((cost(candidate, budget.kind), budget.is_floor) for budget in budgets)
    return tuple(float("nan") if value is None else -value if floor else float(value) for value, floor in values)


def slack(candidate: Candidate, budget: Budget) -> float:
    """Part of the budget that is left, 0 at the limit; for rates, the part by which it is exceeded."""
    value = cost(candidate, budget.kind)
    if value is None:
        raise ValueError(f"{candidate.name} has no {budget.kind}")
    return (value - budget.limit if budget.is_floor else budget.limit - value) / budget.limit


def cheapest(candidates: Sequence[Candidate], budget: Budget) -> Candidate | None:
    """The candidate that comes nearest to the budget from its cheap side; None when none has a value."""
    valued = [candidate for candidate in candidates if cost(candidate, budget.kind) is not None]
    return min(valued, key=lambda each: (expense(each, [budget]), each.key), default=None)


def tightest(budgets: Iterable[Budget]) -> tuple[Budget, ...]:
    """The budgets that bind: of several in one kind, the tightest; in the order in which the kinds were named."""
    binding: dict[BudgetKind, Budget] = {}
    for budget in budgets:
        other = binding.get(budget.kind)
        if other is None or other.holds(budget.limit):
            binding[budget.kind] = budget
    return tuple(binding.values())


def describe(kind: BudgetKind, value: float, convention: FlopConvention = "mac") -> str:
    """The value with its unit, as a table shows it.

    >>> describe("macs", 122_600_000_000), describe("bytes", 2**30)
    ('122.6 GFLOPs', '1.00 GiB')
    """
    shown = {
        "macs": lambda: f"{gflops(value, convention):.4g} GFLOPs",
        "params": lambda: f"{value / 1e6:.4g} M parameters",
        "ms": lambda: f"{value:.4g} ms",
        "fps": lambda: f"{value:.4g} fps",
        "images_per_second": lambda: f"{value:.4g} images/s",
        "bytes": lambda: f"{gibibytes(value):.2f} GiB",
        "joules": lambda: f"{value:.4g} J per image",
    }
    return shown[kind]()
