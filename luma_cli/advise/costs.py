"""Costs of candidates: counts from the cost table, the rest from one device's measurements; and costs of training."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from luma_cli.advise.candidates import MODEST_MACS, Candidate, num_classes
from luma_cli.advise.question import DEVICELESS, TITLES, Priced, Question
from luma_cli.catalogue.datasets import load_card
from luma_cli.catalogue.recipes import Recipe, default_recipe, load_recipe, recipe_names
from luma_cli.errors import NothingMeasured
from luma_cli.speed.quantity import Quantity, Workload
from luma_cli.store import database as files
from luma_cli.units import FLOORS, PER_CROP, BudgetKind, counted, gflops

if TYPE_CHECKING:
    from luma_cli.speed.bench import Bench
    from luma_cli.speed.model import SpeedModel
    from luma_cli.store.profiles import Conditions, Measured


CostUnit = Literal["GPU-hours", "PFLOP"]
WELL_KNOWN = ("dinov3", "dinov2", "supervised_in1k", "supervised_in21k")
# A training step is a forward pass and a backward pass of twice its multiply-adds.
STEP_PER_FORWARD = 3
# Where most published figures are: ADE20K crops of 512, Cityscapes crops of 1024.
_USUAL_RESOLUTION = {"ade20k": 512, "cityscapes": 1024}


def workload(candidate: Candidate, head: str, num_classes: int) -> Workload:
    """The candidate with a head, as the model of speed knows it."""
    return Workload(
        architecture=candidate.architecture,
        resolution=candidate.resolution,
        family=candidate.family,
        macs=candidate.macs,
        params=candidate.params,
        head=head,
        num_classes=num_classes,
    )


def price(
    candidates: Sequence[Candidate],
    kinds: Iterable[BudgetKind],
    speed: SpeedModel | None,
    head: str,
    num_classes: int,
    windows: Callable[[int], float] = lambda _: 1.0,
    train_batch: int = 16,
) -> list[Priced]:
    """The candidates in order, with multiply-adds, parameters and the asked kinds where they are known.

    windows: per image, by the side of a window. train_batch: images per pass of a training.
    """
    costs = [_counted(each) for each in candidates]
    kinds = tuple(kinds)
    asked = [kind for kind in dict.fromkeys(PER_CROP.get(kind, kind) for kind in kinds) if kind not in DEVICELESS]
    if speed is not None and asked:
        loads = [workload(each, head, num_classes) for each in candidates]
        # Weights do not change the speed: each architecture and size is predicted once.
        distinct = {(each.architecture, each.resolution): each for each in loads}
        for kind in asked:
            known = dict(zip(distinct, speed.quantities(kind, list(distinct.values())), strict=True))
            for load, cost in zip(loads, costs, strict=True):
                quantity = known[load.architecture, load.resolution]
                if quantity is not None:
                    cost[kind] = quantity
    if "training_bytes" in kinds:
        from luma_cli.speed.memory import training_memory

        for candidate, cost in zip(candidates, costs, strict=True):
            if (quantity := training_memory(workload(candidate, head, num_classes), train_batch)) is not None:
                cost["training_bytes"] = quantity
    for candidate, cost in zip(candidates, costs, strict=True):
        for kind in PER_CROP.keys() & kinds:
            if (of_crop := cost.get(PER_CROP[kind])) is not None:
                cost[kind] = _of_image(of_crop, kind, windows(candidate.resolution))
    return [Priced(each, cost) for each, cost in zip(candidates, costs, strict=True)]


def _of_image(of_crop: Quantity, kind: BudgetKind, num_windows: float) -> Quantity:
    """The cost of all windows of an image, one after the other."""
    factor = 1 / num_windows if kind in FLOORS else num_windows
    return replace(
        of_crop, kind=kind, value=of_crop.value * factor, low=of_crop.low * factor, high=of_crop.high * factor
    )


def _counted(candidate: Candidate) -> dict[BudgetKind, Quantity]:
    counts: tuple[tuple[BudgetKind, int | None], ...] = (("macs", candidate.macs), ("params", candidate.params))
    return {kind: Quantity(kind, value, value, value, "exact") for kind, value in counts if value is not None}


def load_speed(question: Question, kinds: Sequence[BudgetKind], database: Path | None) -> tuple[SpeedModel, list[str]]:
    """The model of the device's speed for these kinds of cost, with its notes.

    Raises UsageError when several devices could be meant, StoreError.
    """
    from luma_cli.speed.imported import every_latency
    from luma_cli.speed.model import SpeedModel, trained_runs
    from luma_cli.store.runs import list_runs

    measured = measured_rows(database, question.device)
    runs = []
    if "gpu_hours" in kinds:
        with files.reading(database) as connection:
            runs = trained_runs(list_runs(connection))
    speed = SpeedModel.load(
        measured,
        question.device,
        head=question.head,
        runs=runs,
        spec=question.device_spec,
        published=every_latency(database),
    )
    missing = [why for kind in kinds if kind not in DEVICELESS and (why := speed.why(PER_CROP.get(kind, kind)))]
    return speed, [*([] if missing else [speed.basis]), *dict.fromkeys(missing), *set_apart(measured, speed.bench)]


def measured_rows(database: Path | None = None, device: str | None = None) -> list[Measured]:
    """Measured rows of the store; of one device alone where `device` is part of just one device's name."""
    from luma_cli.store.profiles import device_names, measurements

    with files.reading(database) as connection:
        wanted = (device or "").lower()
        is_kind = wanted.partition(":")[0] in ("", "cpu", "cuda")  # may mean several devices
        named = [] if is_kind else [name for name in device_names(connection) if wanted in name.lower()]
        return measurements(connection, named[0] if len(named) == 1 else None)


def check_known(question: Question, pool: Sequence[Priced], speed: SpeedModel) -> None:
    """Raises NothingMeasured, with the command that measures it, when a needed cost is known of no candidate."""
    unknown = [kind for kind in question.kinds if pool and not any(kind in each.costs for each in pool)]
    kind = next((kind for kind in unknown if kind not in DEVICELESS), None)
    if kind is None:
        return
    bound = (budget.text for budget in question.budgets if budget.kind == kind)
    asked = next(bound, f"--objective {question.objective}")
    of_crop = PER_CROP.get(kind, kind)
    reason = speed.why(of_crop).partition("; try:")[0] or f"nothing is known of {TITLES[kind]}"
    anchor = _anchor(question, pool, speed, of_crop)
    head = "" if question.head == "luma" else f" --head {question.head}"
    from luma_cli.speed.devices import is_address

    # `luma profile` measures this machine: a device that is named, not addressed, is another one.
    is_here = question.device is not None and is_address(question.device)
    device = f" --device {shlex.quote(question.device)}" if question.device and is_here else ""
    there = "" if is_here or question.device is None else " on that machine"
    elsewhere = ", or name a known device, e.g. --device 'RTX 4090'"
    if question.device is None and question.device_spec is None and of_crop != "joules":
        raise NothingMeasured(
            f"{asked} depends on the device: name one, e.g. --device 'RTX 4090' or --device 'Jetson Orin', or measure "
            f"this machine: luma profile {anchor.name} --res {anchor.resolution}{head}",
            anchor.name,
            anchor.resolution,
        )
    command = f"luma profile {anchor.name} --res {anchor.resolution}{head}{device}"
    raise NothingMeasured(
        f"{asked} cannot be answered: {reason}; run{there}: {command}"
        + (elsewhere if of_crop != "joules" and "ships" in reason else ""),  # no device's energy ships
        anchor.name,
        anchor.resolution,
    )


def _anchor(question: Question, pool: Sequence[Priced], speed: SpeedModel, kind: BudgetKind) -> Candidate:
    """The most informative candidate to measure, of modest size and at the usual resolution."""
    usual = _USUAL_RESOLUTION[question.dataset]
    sized = [each.candidate for each in pool if each.candidate.resolution == usual] or [each.candidate for each in pool]
    modest = [each for each in sized if (each.macs or 0) <= MODEST_MACS]
    names: dict[str, Candidate] = {}
    # Weights do not change the speed, so a backbone that the reader knows is as good as any.
    familiar = [each for each in modest or sized if each.pretraining in WELL_KNOWN]
    for each in familiar or modest or sized:
        names.setdefault(each.architecture, each)
    loads = [workload(each, question.head, num_classes(question.dataset)) for each in names.values()]
    anchor = next(iter(speed.anchors(loads, 1, kind)), None)
    return names[anchor.architecture] if anchor else next(iter(names.values()))


def set_apart(measured: Sequence[Measured], bench: Bench) -> list[str]:
    """Why measured rows of this device do not answer directly: one line for each reason, most rows first.

    Related rows inform predictions, with an offset of their own; all others are ignored.
    """
    here = bench.conditions
    if here is None:
        return []
    used, related = set(map(id, bench.rows)), set(map(id, bench.related))
    reasons = Counter(
        (_reason(row, here), "corrected by an offset" if id(row) in related else "left out")
        for row in measured
        if row.conditions.device_name == bench.device_name and id(row) not in used
    )
    ordered = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
    return [f"{counted(count, 'measured row')} {why}: {what}" for (why, what), count in ordered]


def _reason(row: Measured, here: Conditions) -> str:
    if row.flags:
        return f"flagged {' and '.join(row.flags)}"
    names = [each.name for each in fields(here) if each.name != "device"]
    different = [name for name in names if getattr(row.conditions, name) != getattr(here, name)]
    return f"with another {', '.join(different).replace('_', ' ')}" if different else "repeated since"


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """Cost of one run. low, high: its 80% interval, equal to value when counted. source: `counted` or an origin."""

    value: float
    low: float
    high: float
    unit: CostUnit
    source: str

    @property
    def text(self) -> str:
        """e.g. `5.2 GPU-hours (80%: 4 to 6.8)`."""
        ends = f" (80%: {rounded(self.low)} to {rounded(self.high)})" if self.low < self.high else ""
        return f"{rounded(self.value)} {self.unit}{ends}"

    def share(self, part: float) -> TrainingCost:
        """The cost of a part of the schedule."""
        return replace(self, value=self.value * part, low=self.low * part, high=self.high * part)

    def to_json(self) -> dict[str, Any]:
        """The value with its unit, interval and source."""
        return {"value": self.value, "interval_80": [self.low, self.high], "unit": self.unit, "source": self.source}


def rounded(value: float) -> str:
    """A cost to three digits, thousands separated, without an exponent.

    >>> rounded(5.234), rounded(44_412.0)
    ('5.23', '44,400')
    """
    return f"{value:.3g}" if value < 999.5 else f"{float(f'{value:.3g}'):,.0f}"


def usual_recipe(dataset: str, head: str) -> Recipe:
    """The default recipe of the dataset and head."""
    return load_recipe(default_recipe(dataset, head, recipe_names()))


def train_batch(question: Question) -> int:
    """Images per pass of a training: as asked, else the batch of the usual recipe."""
    return question.train_batch or usual_recipe(question.dataset, question.head).batch


def training_costs(
    question: Question, pool: Sequence[Priced], recipe: Recipe, in_hours: bool
) -> dict[int, TrainingCost]:
    """Cost of training each candidate by the recipe, by its index in the pool; unknown costs are left out.

    in_hours: in GPU-hours of this device; otherwise in PFLOP, multiply-adds in the question's convention.
    """
    num_images = load_card(question.dataset).splits["train"].count
    seen = recipe.steps * recipe.batch if recipe.steps else recipe.epochs * num_images
    found = {}
    for at, priced in enumerate(pool):
        hours, macs = priced.costs.get("gpu_hours"), priced.candidate.macs
        if in_hours and hours is not None:
            found[at] = TrainingCost(hours.value, hours.low, hours.high, "GPU-hours", hours.origin)
        elif not in_hours and macs is not None:
            total = gflops(macs, question.convention) * STEP_PER_FORWARD * seen / 1e6
            found[at] = TrainingCost(total, total, total, "PFLOP", "counted")
    return found
