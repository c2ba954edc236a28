"""What the law is read from and spent on: results as points, the models of one series, its slopes, designs of runs.

A point's level is everything but size and resolution: head, protocol, source, series and pretraining. Errors are
compared raw within a level only; between levels the law allows any factor.

A series is every size of a card with one pretraining, with the exact cost of each at every resolution of the cost
table. Slopes of its ln C are taken between the next smaller and the next larger neighbour, one-sided at the ends: ViT's
C is 2NT plus attention's share in T^2, so q grows with resolution and shrinks with width.

How sure n would be after a design of runs is read off the Fisher information of the law, for seeds that scatter by
`NOISE_MIOU`; docs/understand/scaling.md has the same by simulation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np

from luma_cli.accuracy.backbones import recognise
from luma_cli.accuracy.subjects import subject_of_row
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BadResolution, BuildError, NoAnswer, UsageError
from luma_cli.evidence.evidence import DATASET_TITLES, Evidence
from luma_cli.scaling.law import (
    TOKEN_PIXELS,
    ComputeSplit,
    Elasticity,
    Law,
    Point,
    distinct,
    informative,
    missing,
    tokens_of,
)
from luma_cli.store.runs import OwnRun

SPELLING = "vit_b.dinov3@512"
# Neighbours are at least this factor apart in parameters or tokens: ViT-S and S+ differ in more than size.
_NEIGHBOUR = 1.4
# Scatter of one run between seeds, in mIoU points: what recommend.md's simulation takes.
NOISE_MIOU = 0.2
# Sides of a design: 9 runs decide well, 16 give the exponents within 0.05 (docs/understand/scaling.md).
DECIDE, MEASURE = 3, 4
# Sizes beyond this are left out of a design where enough smaller ones exist: ViT-7B costs 20 times ViT-H+.
MOST_PARAMS = 1.5e9
# What is believed of (a, b, E, A, B) before any run, as standard deviations: wide, only to rank first runs.
_BELIEF = (0.3, 0.8, 20.0, 15.0, 15.0)
_Z90 = 1.645
_ALONE = "nothing else on its level to compare it with"
_OWN_SUFFICE = "published result, where the own runs are enough for a law of their own"
_UNKNOWN_PARAMS = "parameters of the backbone not known"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Points to fit, and how many results of the dataset were left out, by reason."""

    points: tuple[Point, ...]
    left_out: Mapping[str, int]

    @property
    def num_own(self) -> int:
        """Points that are runs of the user's own."""
        return sum(point.own for point in self.points)

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels."""
        return tuple(sorted({point.level for point in self.points}))


# Family and pretraining of a result, and its point or the reason why it gives none.
_Found = tuple[str, str, Point | str]


def choose(
    evidence: Sequence[Evidence],
    runs: Sequence[OwnRun],
    dataset: str,
    *,
    family: str = "",
    pretraining: str = "",
    own_only: bool = False,
) -> Chosen:
    """The points of a dataset, restricted to a family and a pretraining where given.

    runs: the user's own; those on other files of the dataset have a level of their own. Frozen probes, doubtful figures
    and second scores of one training are left out; published results too where the own runs have sizes and resolutions
    enough, because then nothing but the user's own setting need be trusted.
    """
    found = [_of_run(run) for run in runs if run.base == dataset]
    if not own_only:
        rows = [row for row in evidence if row.dataset == dataset and row.provenance != "own run"]
        single = frozenset(_training(row) for row in rows if row.eval == "single-scale")
        found += [_of_row(row, single) for row in rows]
    asked = [point for of, start, point in found if family in ("", of) and pretraining in ("", start)]
    left_out = Counter(point for point in asked if isinstance(point, str))
    points = [point for point in asked if isinstance(point, Point)]
    own = [point for point in points if point.own]
    if len(own) < len(points) and not missing(informative(own)):
        left_out[_OWN_SUFFICE] = len(points) - len(own)
        points = own
    kept = informative(points)
    if len(kept) < len(points):
        left_out[_ALONE] = len(points) - len(kept)
    return Chosen(tuple(kept), dict(sorted(left_out.items())))


def _training(row: Evidence) -> tuple[object, ...]:
    return row.backbone, row.source, row.head, row.recipe, row.regime, row.height, row.width, row.pretraining_raw


def _of_row(row: Evidence, single: frozenset[tuple[object, ...]]) -> _Found:
    """A published or imported result."""
    subject = subject_of_row(row)
    unusable = {
        "frozen probe": row.regime != "fine-tuned",
        "doubtful figure": row.doubtful,
        "crop size not stated": not row.height or not row.width,
        "multi-scale score of a training that is here at a single scale": row.eval != "single-scale"
        and _training(row) in single,
        _UNKNOWN_PARAMS: not subject.params or subject.params_guessed,
    }
    if reason := next((name for name, applies in unusable.items() if applies), ""):
        return subject.family, subject.pretraining, reason
    objective = row.pretraining if row.pretraining not in ("", "other") else row.pretraining_raw or "other"
    data = ", ".join(filter(None, (row.pretraining_data, row.extra_data)))
    start = f"{objective} ({data})" if data else objective
    level = f"{subject.lineage or subject.architecture} {start}; {row.scale.label}; {row.source}"
    tokens = tokens_of(row.height or 0, row.width or 0)
    point = Point(row.id, row.backbone, subject.params or 0.0, tokens, row.miou_percent, level)
    return subject.family, subject.pretraining, point


def _of_run(run: OwnRun) -> _Found:
    """An own run, whatever its settings: runs that share them are comparable."""
    known = recognise(run.timm_name)
    series = known.lineage.name if known.lineage else known.architecture
    family = known.lineage.family if known.lineage else "unknown"
    if known.params is None or known.size_origin == "by its size word":
        return family, run.pretraining, _UNKNOWN_PARAMS
    if run.status != "finished":
        return family, run.pretraining, "run that did not finish"
    start = run.pretraining if run.weights == "pretrained" else f"{run.weights} weights"
    recipe = run.recipe if run.usual_recipe else f"{run.recipe.removesuffix('+')} changed"
    protocol = "single-scale" if run.single_scale else "ms+flip"
    level = f"{series} {start}; own runs, {_head_text(run.head)}, recipe {recipe}, {protocol}, {run.data} {run.split}"
    tokens = tokens_of(run.resolution, run.resolution)
    point = Point(run.run_id, run.backbone, known.params, tokens, run.miou_percent, level, own=True)
    return family, run.pretraining, point


@cache
def _head_text(head: HeadConfig) -> str:
    """The head's name with the options that are not its usual ones."""
    usual = HeadConfig(name=head.name).identity()
    options = [f"{name} {value}" for name, value in head.identity().items() if usual.get(name) != value]
    return " ".join([head.name, *(option for option in options if not option.startswith("num_classes"))])


@dataclass(frozen=True, slots=True)
class Model:
    """One backbone at one resolution with a head. params: of the backbone; macs: of the segmenter on one crop."""

    name: str = field(metadata={"json": "backbone"})
    resolution: int
    params: float
    macs: int
    public_weights: bool = field(default=True, metadata={"json": None})

    JSON_ALSO: ClassVar = ("tokens",)

    @property
    def tokens(self) -> float:
        """Image tokens, cells of 16 x 16 pixels."""
        return tokens_of(self.resolution, self.resolution)

    @property
    def label(self) -> str:
        """As it is typed, e.g. `vit_b.dinov3@512`."""
        return f"{self.name}@{self.resolution}"

    def train_line(self, dataset: str) -> str:
        """The command that trains it; a dataset of the user's own is named by its file."""
        data = dataset if dataset in DATASET_TITLES else f"{dataset}.toml"
        return f"luma train {self.name} --data {data} --res {self.resolution}"


@dataclass(frozen=True, slots=True)
class Series:
    """Every size of a card with one objective, smallest first, at every resolution that is costed.

    name: of the series with its pretraining, e.g. `vit, dinov3`. sizes: names by backbone parameters, ascending.
    """

    name: str
    sizes: tuple[str, ...]
    models: Mapping[tuple[str, int], Model]

    def model(self, name: str, resolution: int) -> Model:
        """One of the models. Raises BadResolution, naming the sizes that are costed."""
        found = self.models.get((name, resolution))
        if found is None:
            costed = ", ".join(str(each) for size, each in sorted(self.models) if size == name)
            raise BadResolution(f"no cost of {name} is shipped at {resolution} px, expected one of {costed}")
        return found

    def public(self, above: float, up_to: float = math.inf) -> list[Model]:
        """Models with public weights whose multiply-adds are more than `above` and at most `up_to`, cheapest first."""
        found = [each for each in self.models.values() if each.public_weights and above < each.macs <= up_to]
        return sorted(found, key=lambda model: (model.macs, model.label))


def parse_model(text: str) -> tuple[str, int]:
    """Name and resolution of `vit_b.dinov3@512`. Raises UsageError for another form.

    >>> parse_model("vit_b.dinov3@512")
    ('vit_b.dinov3', 512)
    """
    name, _, resolution = text.strip().rpartition("@")
    if not name or not resolution.isdecimal():
        raise UsageError(f"{text!r} is no backbone with a resolution, expected NAME@PIXELS; try {SPELLING}")
    return name, int(resolution)


def load_series(name: str, head: HeadConfig) -> tuple[Series, str]:
    """The series of a backbone by any of its names, and the backbone's own name within it.

    Raises UnknownName for no backbone, UsageError for one that belongs to no card.
    """
    from luma_cli.catalogue.cards import load_cards, spec_of
    from luma_cli.catalogue.costs import load_costs
    from luma_cli.catalogue.head_cost import head_macs
    from luma_cli.catalogue.names import resolve

    spec = resolve(name)
    card = load_cards().get(spec.card)
    if card is None:
        raise UsageError(f"{name} belongs to no card, so its other sizes are not known; try {SPELLING}")
    members = {}
    for size in card.sizes.values():
        if not spec.pretraining or spec.pretraining in size.pretraining:
            found = spec_of(card, size, spec.pretraining)
            members[found.architecture] = found
    models = {}
    for (architecture, resolution), facts in load_costs().items():
        member = members.get(architecture)
        if member is None or not facts.complete:
            continue
        try:
            macs = facts.macs + head_macs(facts, head)
        except BuildError:  # the backbone does not take the head
            continue
        key = member.name, resolution
        models[key] = Model(member.name, resolution, float(facts.params), macs, member.public_weights)
    largest = {size: model.params for (size, _), model in sorted(models.items())}
    sizes = tuple(sorted(largest, key=lambda size: (largest[size], size)))
    title = f"{card.name}, {spec.pretraining}" if spec.pretraining else card.name
    return Series(title, sizes, models), card.spelling(spec.size, spec.pretraining)


@dataclass(frozen=True, slots=True)
class Local:
    """The elasticities at one model, and the neighbours that they were read from (labels)."""

    model: Model
    elasticity: Elasticity
    neighbours: tuple[str, ...]

    def __json__(self) -> dict[str, Any]:
        """The model, p and q, and what they are slopes between, in one object."""
        from luma_cli.to_json import to_json

        at = self.elasticity
        return {**to_json(self.model), "p": at.p, "q": at.q, "between": self.neighbours}


def local(series: Series, model: Model) -> Local:
    """The elasticities at a model. Raises NoAnswer where it has no neighbour in size or resolution."""
    slopes, neighbours = [], []
    for what, same, amount in (("size", "resolution", "params"), ("resolution", "name", "tokens")):
        alike = [each for each in series.models.values() if getattr(each, same) == getattr(model, same)]
        below, above = _around(model, alike, amount)
        if below == above:
            raise NoAnswer(
                f"{model.label} has no neighbour in {what} in the cost table; compute's slope there is unknown"
            )
        slopes.append(math.log(above.macs / below.macs) / math.log(getattr(above, amount) / getattr(below, amount)))
        neighbours += [each.label for each in (below, above) if each != model]
    return Local(model, Elasticity(*slopes), tuple(dict.fromkeys(neighbours)))


def _around(model: Model, models: Sequence[Model], amount: str) -> tuple[Model, Model]:
    """The nearest smaller and larger of `models` by params or tokens, `model` itself in place of a missing one."""
    at = getattr(model, amount)
    ordered = sorted(models, key=lambda each: (getattr(each, amount), each.name))
    below = [each for each in ordered if getattr(each, amount) * _NEIGHBOUR <= at]
    above = [each for each in ordered if getattr(each, amount) >= at * _NEIGHBOUR]
    return below[-1] if below else model, above[0] if above else model


@dataclass(frozen=True, slots=True)
class Target:
    """Where `factor` times the compute of a model would be spent best, if sizes and resolutions were continuous.

    macs: the budget. side: of the square crop with `tokens`, in pixels.
    """

    factor: float
    macs: float = field(metadata={"json": "budget_macs"})
    params: float
    tokens: float

    JSON_ALSO: ClassVar = ("side",)

    @property
    def side(self) -> float:
        """Side in pixels of the square crop."""
        return TOKEN_PIXELS * math.sqrt(self.tokens)


def check_factor(factor: float) -> float:
    """`factor` itself. Raises UsageError unless it is a number above 1."""
    if not (math.isfinite(factor) and factor > 1):
        raise UsageError(f"--more is {factor:g}, expected how many times more compute there is; try --more 10")
    return factor


def target(at: Local, factor: float, exponents: ComputeSplit) -> Target:
    """The point for `factor` times the compute of `at`. Raises UsageError unless factor is a number above 1."""
    check_factor(factor)
    model = at.model
    return Target(
        factor, model.macs * factor, model.params * factor**exponents.size, model.tokens * factor**exponents.tokens
    )


def next_model(series: Series, at: Local, wanted: Target, law: Law | None = None) -> Model | None:
    """The affordable model with the least error by the law, or, without one, nearest to the target.

    Near is measured in compute: |p ln N/N*| + |q ln T/T*|. None where nothing affordable is larger than `at`.
    """
    p, q = at.elasticity.p, at.elasticity.q

    def far(model: Model) -> float:
        if law is not None:
            return law.error(model.params, model.tokens)
        return abs(p * math.log(model.params / wanted.params)) + abs(q * math.log(model.tokens / wanted.tokens))

    return min(series.public(at.model.macs, wanted.macs), key=far, default=None)


# The law that designs are judged by, no result: the paper's split (a/b = 0.205), and errors of fine-tuned ViTs on
# ADE20K, 57 for ViT-S at 256 px to 41 for ViT-H at 1024 px.
ASSUMED = Law(floor=25.0, by_size=14.0, by_tokens=9.0, a=0.17, b=0.83, params_mean=86e6, tokens_mean=1024.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a design, and whether a result of the user's own is there already."""

    model: Model
    done: bool


@dataclass(frozen=True, slots=True)
class Experiment:
    """A grid of runs in one series.

    half_width: of the 90% interval of n after all runs, if the law were `ASSUMED` and seeds scattered by NOISE_MIOU.
    """

    series: str
    runs: tuple[Planned, ...]
    half_width: float

    @property
    def missing(self) -> tuple[Model, ...]:
        """The runs that are not there yet, cheapest first."""
        left = (each.model for each in self.runs if not each.done)
        return tuple(sorted(left, key=lambda model: (model.macs, model.label)))


def experiment(series: Series, side: int, elasticity: Elasticity, points: Sequence[Point] = ()) -> Experiment | None:
    """A grid of `side` sizes and resolutions, spread evenly in logs; None where the series has too few of either.

    points: of the user's own; runs that they hold are marked done.
    """
    usual = (each for _, each in sorted(series.models.items()) if each.public_weights and each.params <= MOST_PARAMS)
    largest = {model.name: model.params for model in usual}
    by_params = {params: name for name, params in sorted(largest.items(), reverse=True)}
    sizes = [by_params[params] for params in _spread(distinct(list(by_params)), side)]
    resolutions = _spread(sorted({float(resolution) for _, resolution in series.models}), side)
    models = [series.models.get((size, int(resolution))) for size in sizes for resolution in resolutions]
    chosen = [model for model in models if model is not None]
    if len(chosen) < side**2:
        return None
    held = {(point.name, point.side) for point in points if point.own}
    runs = tuple(Planned(model, (model.name, model.resolution) in held) for model in chosen)
    after = size_exponent_sd([(each.params, each.tokens) for each in chosen], elasticity)
    return Experiment(series.name, runs, _Z90 * after)


def _spread(values: Sequence[float], count: int) -> list[float]:
    """`count` of ascending values, ends included, nearest to even steps of their logarithm; fewer if there are."""
    left = list(values)
    if len(left) <= count:
        return left
    chosen: list[float] = []
    for wanted in np.linspace(math.log(left[0]), math.log(left[-1]), count):
        chosen.append(min(set(left) - set(chosen), key=lambda each: (abs(math.log(each) - wanted), each)))
    return sorted(chosen)


def size_exponent_sd(runs: Sequence[tuple[float, float]], elasticity: Elasticity, *, prior: bool = False) -> float:
    """Standard deviation of n after runs of these (params, tokens); infinity where they do not tell it.

    prior: with a wide belief about the law, which makes it finite from the first run on: what `most_telling` needs.
    """
    params, tokens = np.array(runs, dtype=np.float64).reshape(-1, 2).T
    size, area = params / ASSUMED.params_mean, tokens / ASSUMED.tokens_mean
    a, b, by_size, by_tokens = ASSUMED.a, ASSUMED.b, size**-ASSUMED.a, area**-ASSUMED.b
    by_a, by_b = -ASSUMED.by_size * by_size * np.log(size), -ASSUMED.by_tokens * by_tokens * np.log(area)
    slopes = np.stack([by_a, by_b, np.ones_like(by_size), by_size, by_tokens], axis=1)
    information = slopes.T @ slopes / NOISE_MIOU**2 + (np.diag(np.array(_BELIEF) ** -2) if prior else 0.0)
    if not prior and np.linalg.matrix_rank(slopes) < slopes.shape[1]:
        return math.inf
    weight = (elasticity.p * b + elasticity.q * a) ** 2
    # n = b / (pb + qa): its slopes by a and b.
    gradient = np.array([-elasticity.q * b / weight, elasticity.q * a / weight, 0.0, 0.0, 0.0])
    return float(np.sqrt(gradient @ np.linalg.solve(information, gradient)))


def most_telling(points: Sequence[Point], candidates: Sequence[Model], elasticity: Elasticity) -> Model | None:
    """The candidate whose run narrows n most, given results on one level; the cheapest of those within 2%."""
    runs = [(point.params, point.tokens) for point in points]
    after = {
        model: size_exponent_sd([*runs, (model.params, model.tokens)], elasticity, prior=True) for model in candidates
    }
    if not after:
        return None
    least = min(after.values())
    return min((model for model in after if after[model] <= 1.02 * least), key=lambda model: (model.macs, model.label))
