"""The question to the advisor: budgets, filters, objective; how costs meet budgets, and errors where none does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from luma_cli.advise.candidates import Candidate
from luma_cli.catalogue.heads import HeadName
from luma_cli.catalogue.spec import Family
from luma_cli.catalogue.windows import windows_per_image
from luma_cli.errors import UsageError
from luma_cli.speed.quantity import Quantity
from luma_cli.units import PER_CROP, Budget, BudgetKind, FlopConvention, gflops, gibibytes, of_images

if TYPE_CHECKING:
    from luma_cli.speed.devices import DeviceSpec

Standing = Literal["within", "may exceed", "over", "unknown"]

# Counted from the architecture; the other kinds depend on a device.
EXACT: frozenset[str] = frozenset({"macs", "params", "macs_image"})
# Known without a device.
DEVICELESS: frozenset[str] = EXACT | {"training_bytes"}
PROFILED: frozenset[str] = frozenset({"ms", "fps", "images_per_second", "bytes", "joules"} | PER_CROP.keys() - EXACT)
# Before `is not known`, see `not_known`, and in other sentences.
TITLES: Mapping[BudgetKind, str] = {
    "macs": "GFLOPs",
    "params": "parameters",
    "ms": "latency",
    "fps": "frame rate",
    "images_per_second": "throughput",
    "bytes": "memory",
    "joules": "energy",
    "gpu_hours": "training time",
    "training_bytes": "training memory",
    "macs_image": "GFLOPs per image",
    "ms_image": "latency of an image",
    "fps_image": "frame rate of images",
    "images_per_second_image": "throughput of images",
    "joules_image": "energy of an image",
}


def not_known(kind: BudgetKind) -> str:
    """The title of a cost in a clause.

    >>> not_known("ms"), not_known("params")
    ('latency is not known', 'parameters are not known')
    """
    return f"{TITLES[kind]} {'are' if kind in EXACT else 'is'} not known"  # both that are counted are plural


@dataclass(frozen=True, slots=True)
class Priced:
    """A candidate with its known costs by kind."""

    candidate: Candidate
    costs: Mapping[BudgetKind, Quantity]

    def cost(self, kind: BudgetKind) -> float | None:
        """The value in the kind's own unit; None when it is not known."""
        quantity = self.costs.get(kind)
        return None if quantity is None else quantity.value


def worst(quantity: Quantity, is_floor: bool) -> float:
    """The value that must meet a budget: a counted or measured value, the expensive end of a prediction."""
    if quantity.origin in ("exact", "measured"):
        return quantity.value
    return quantity.low if is_floor else quantity.high


def hold(priced: Priced, budget: Budget) -> Standing:
    """Whether the cost is surely within the budget, or only by its predicted value."""
    quantity = priced.costs.get(budget.kind)
    if quantity is None:
        return "unknown"
    if not budget.holds(quantity.value):
        return "over"
    return "within" if budget.holds(worst(quantity, budget.is_floor)) else "may exceed"


def standing(priced: Priced, budgets: Iterable[Budget]) -> Standing:
    """The worst standing over all budgets; `within` without budgets."""
    found = {hold(priced, budget) for budget in budgets}
    order: tuple[Standing, ...] = ("over", "unknown", "may exceed")
    return next((each for each in order if each in found), "within")


def expense(priced: Priced, budgets: Sequence[Budget]) -> tuple[float, ...]:
    """The bound costs, rates negated, then multiply-adds; infinite where not known. Smaller is better."""
    bound = ((priced.cost(budget.kind), budget.is_floor) for budget in budgets)
    values = [*bound, (priced.cost("macs"), False)]
    return tuple(float("inf") if value is None else -value if floor else float(value) for value, floor in values)


def slack(priced: Priced, budget: Budget) -> float:
    """Share of the budget that is surely left; for rates, the share by which it is exceeded."""
    value = worst(priced.costs[budget.kind], budget.is_floor)
    return (value - budget.limit if budget.is_floor else budget.limit - value) / budget.limit


def binding(priced: Priced, budgets: Sequence[Budget]) -> Budget | None:
    """The budget with the least slack, the first of equals; None without budgets."""
    return min(budgets, key=lambda budget: slack(priced, budget), default=None)


def cheapest(pool: Iterable[Priced], budget: Budget) -> Priced | None:
    """The candidate with the least cost of the budget's kind; None when no cost is known."""
    valued = [each for each in pool if budget.kind in each.costs]
    return min(valued, key=lambda each: (expense(each, [budget]), each.candidate.key), default=None)


def tightest(budgets: Iterable[Budget]) -> tuple[Budget, ...]:
    """The tightest budget of each kind, in the order in which the kinds were named."""
    found: dict[BudgetKind, Budget] = {}
    for budget in budgets:
        other = found.get(budget.kind)
        if other is None or other.holds(budget.limit):
            found[budget.kind] = budget
    return tuple(found.values())


def relaxed(budget: Budget) -> Budget:
    """The budget doubled; of a rate, halved."""
    factor = 0.5 if budget.is_floor else 2.0
    return Budget(budget.kind, budget.limit * factor, f"{'half' if budget.is_floor else 'twice'} {budget.text}")


def describe(kind: BudgetKind, value: float, convention: FlopConvention = "mac", digits: int = 4) -> str:
    """The value with its unit, e.g. `122.6 GFLOPs`."""
    return f"{amount(kind, value, convention, digits)} {_UNITS[kind]}"


def amount(kind: BudgetKind, value: float, convention: FlopConvention = "mac", digits: int = 4) -> str:
    """The value in the unit of `describe`, to so many significant digits, without an exponent.

    >>> amount("macs", 12_345_600_000_000), amount("ms", 1234.5, digits=3)
    ('12350', '1230')
    """
    shown = in_unit(kind, value, convention)
    return f"{shown:.2f}" if kind in ("bytes", "training_bytes") else f"{float(f'{shown:.{digits}g}'):.12g}"


def in_unit(kind: BudgetKind, value: float, convention: FlopConvention) -> float:
    """A cost in the unit of tables and axes: GFLOPs, millions of parameters, GiB; times, rates and energy unchanged."""
    if kind in ("macs", "macs_image"):
        return gflops(value, convention)
    return gibibytes(value) if kind in ("bytes", "training_bytes") else value / (1e6 if kind == "params" else 1)


_UNITS: Mapping[BudgetKind, str] = {
    "macs": "GFLOPs",
    "params": "M parameters",
    "ms": "ms",
    "fps": "fps",
    "images_per_second": "crops/s",
    "bytes": "GiB",
    "joules": "J per crop",
    "gpu_hours": "GPU-hours",
    "training_bytes": "GiB of training",
    "macs_image": "GFLOPs per image",
    "ms_image": "ms per image",
    "fps_image": "fps of images",
    "images_per_second_image": "images/s, all windows",
    "joules_image": "J per image",
}


def explain(quantity: Quantity, convention: FlopConvention = "mac") -> str:
    """The cost with its origin and, if predicted, its interval.

    >>> explain(Quantity("ms", 18.0, 15.0, 22.0, "predicted"))
    '18 ms predicted (80%: 15 to 22)'
    """
    digits = 3 if quantity.origin == "predicted" else 4  # a prediction is no more precise
    said = f"{describe(quantity.kind, quantity.value, convention, digits)} {quantity.origin}"
    if quantity.low < quantity.high and quantity.origin != "measured":
        ends = (amount(quantity.kind, end, convention, digits) for end in (quantity.low, quantity.high))
        said += f" (80%: {' to '.join(ends)})"
    return said + (", extrapolated" if quantity.extrapolated else "")


def cost_note(kind: BudgetKind, pool: Iterable[Priced]) -> list[str]:
    """The notes on the candidates' costs of one kind, each once, as a line; none without notes."""
    notes = (each.costs[kind].note for each in pool if kind in each.costs)
    parts = dict.fromkeys(part for note in notes for part in note.split("; ") if part)
    return [f"{TITLES[kind]}: {'; '.join(parts)}"] if parts else []


Objective = Literal["miou", "miou-per-ms", "knee"]


@dataclass(frozen=True, slots=True)
class Question:
    """Budgets (the tightest of each kind), objective and filters; an empty filter allows all.

    image: height and width in pixels of the images that a cost per image is of; None for the dataset's own.
    train_batch: images per pass of a training, 0 for the batch of the usual recipe.
    """

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
    image: tuple[int, int] | None = None
    device_spec: DeviceSpec | None = None
    train_batch: int = 0

    def windows(self, resolution: int) -> float:
        """Windows of this size per image, see `windows_per_image`."""
        return windows_per_image(self.dataset, self.image, resolution)

    @property
    def axis(self) -> BudgetKind:
        """The front's cost: latency for mIoU per ms, otherwise the first budget's kind, or multiply-adds."""
        if self.objective == "miou-per-ms":
            return "ms"
        return self.budgets[0].kind if self.budgets else "macs"

    @property
    def kinds(self) -> tuple[BudgetKind, ...]:
        """The kinds of cost that an answer needs, each once."""
        return tuple(dict.fromkeys((*(budget.kind for budget in self.budgets), self.axis)))

    def __post_init__(self) -> None:
        """With an image size rates are of whole images. Raises UsageError where one budget makes another void."""
        if self.image is not None:
            object.__setattr__(self, "budgets", tuple(map(of_images, self.budgets)))
        by_kind = {budget.kind: budget for budget in self.budgets}
        for budget in self.budgets:
            crop = by_kind.get(PER_CROP.get(budget.kind, budget.kind))
            # An image has at least one window, so that a crop within `image` is all that an image budget can allow.
            if crop is not None and crop is not budget and not crop.is_floor and budget.limit < crop.limit:
                raise UsageError(
                    f"{crop.text} of a crop and {budget.text}: an image has one window or more, so the first never "
                    "binds; leave it out"
                )

    def eligible(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Candidates with public weights that pass the filters, ordered by their key."""
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
        """The filters in words, to follow `no candidate`."""
        said = [f"at {', '.join(map(str, self.resolutions))} px"] if self.resolutions else []
        named = (("family", self.families), ("pretraining", self.pretrainings), ("licence", self.licences))
        said += [f"of {title} {' or '.join(sorted(names))}" for title, names in named if names]
        return "".join(f" {each}" for each in said)


def check_names(question: Question, candidates: Iterable[Candidate]) -> None:
    """Raises UsageError, naming the valid ones, for a filter that no candidate can pass."""
    pool = list(candidates)
    for option, asked, valid in (
        ("--family", question.families, get_args(Family)),
        ("--pretraining", question.pretrainings, sorted({each.pretraining for each in pool} - {""})),
        ("--license", question.licences, sorted({each.licence for each in pool} - {""})),
    ):
        for name in sorted(asked - set(valid)):
            raise UsageError(f"{option} {name!r} is not known, expected one of {', '.join(valid)}")


def unmet(question: Question, pool: Sequence[Priced]) -> str:
    """Why no candidate of the pool meets the budgets: the nearest one, for each budget that fails."""
    if not pool:
        return f"no candidate with public weights{question.filters}; leave out a filter"
    lines = (_unmet(question, pool, budget) for budget in question.budgets)
    return "; ".join(filter(None, lines)) or _jointly(question, pool)


def _unmet(question: Question, pool: Sequence[Priced], budget: Budget) -> str:
    best = cheapest(pool, budget)
    if best is None:
        device = f" on {question.device}" if question.device else ""
        missing = f"{budget.text}: {not_known(budget.kind)} for any candidate{device}"
        return f"{missing}; run luma profile NAME, or name a known device, e.g. --device 'RTX 4090'"
    quantity = best.costs[budget.kind]
    if budget.holds(quantity.value):
        return ""
    least = "fastest" if budget.is_floor else "cheapest"
    said = explain(quantity, question.convention)
    return f"nothing meets {budget.text}: the {least} candidate is {best.candidate.label} with {said}"


def _jointly(question: Question, pool: Sequence[Priced]) -> str:
    asked = " and ".join(budget.text for budget in question.budgets)
    first, *others = question.budgets
    allowed = [each for each in pool if hold(each, first) == "within"]
    for other in others:
        nearest = cheapest(allowed, other)
        if nearest is not None and not other.holds(nearest.costs[other.kind].value):
            said = explain(nearest.costs[other.kind], question.convention)
            within = f"within {first.text} the cheapest candidate is {nearest.candidate.label} with {said}"
            return f"nothing meets {asked} together: {within}"
    return f"nothing meets {asked} together"
