"""Which results a scaling law may be read from, and on which level each of them stands.

A level is everything but size and resolution: head, protocol, source, series and pretraining. Errors are compared raw
within a level only; between levels the law allows any factor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from luma_cli.evidence.evidence import Evidence
from luma_cli.evidence.own_run import OwnRun
from luma_cli.scaling.law import informative
from luma_cli.scaling.point import Point, tokens_of

_ALONE = "nothing else on its level to compare it with"
_UNKNOWN_PARAMS = "parameters of the backbone not known"
# Scopes of published parameter counts that mean the backbone without a head.
_BACKBONE_SCOPES = ("backbone", "as published (backbone)")


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
        """Names of the levels, those with most points first."""
        counts = Counter(point.level for point in self.points)
        return tuple(sorted(counts, key=lambda name: (-counts[name], name)))


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

    runs: the user's own; those on other files of the dataset stand on a level of their own. Frozen probes, doubtful
    figures and second scores of one training are left out.
    """
    params = params_by_architecture()
    left_out: Counter[str] = Counter()
    points = []
    for run in runs:
        if run.base == dataset and _wanted(family_of(run.architecture), run.pretraining, family, pretraining):
            found, reason = _of_run(run, params)
            left_out.update([reason] if reason else [])
            points += [found] if found else []
    if not own_only:
        every = [row for row in evidence if row.dataset == dataset and row.provenance != "own run"]
        single = {_training(row) for row in every if row.eval == "single-scale"}
        for row in every:
            if _wanted(family_of(row.architecture, row.family), row.pretraining, family, pretraining):
                found, reason = _of_row(row, params, single)
                left_out.update([reason] if reason else [])
                points += [found] if found else []
    kept = informative(points)
    left_out.update([_ALONE] * (len(points) - len(kept)))
    return Chosen(tuple(kept), dict(sorted(left_out.items())))


def _wanted(family: str, objective: str, asked_family: str, asked_objective: str) -> bool:
    return asked_family in ("", family) and asked_objective in ("", objective)


def params_by_architecture() -> dict[str, float]:
    """Parameters of every backbone of the cost table, by architecture, at its largest size."""
    from luma_cli.catalogue.costs import load_costs

    return {name: float(facts.params) for (name, _), facts in sorted(load_costs().items())}


def family_of(architecture: str, otherwise: str = "unknown") -> str:
    """The family that a card gives the architecture, else what is said about it."""
    from luma_cli.catalogue.spellings import owner

    meaning = owner(architecture) if architecture else None
    return meaning.card.family if meaning else otherwise


def series_of(architecture: str) -> str:
    """The series whose sizes may share a level: the card's name, else the first word of the name.

    >>> series_of("swin_tiny_patch4_window7_224"), series_of("vit_base_patch16_dinov3")
    ('swin', 'vit')
    """
    from luma_cli.catalogue.spellings import owner

    meaning = owner(architecture)
    return meaning.card.name if meaning else architecture.partition("_")[0]


def _training(row: Evidence) -> tuple[object, ...]:
    return row.backbone, row.source, row.head, row.recipe, row.regime, row.height, row.width, row.pretraining_raw


def _of_row(
    row: Evidence, params: Mapping[str, float], single: Iterable[tuple[object, ...]]
) -> tuple[Point | None, str]:
    """The point of a published result, or why it gives none."""
    if row.regime != "fine-tuned":
        return None, "frozen probe"
    if row.doubtful:
        return None, "doubtful figure"
    if not row.height or not row.width:
        return None, "crop size not stated"
    if row.eval != "single-scale" and _training(row) in single:
        return None, "multi-scale score of a training that is here at a single scale"
    stated = row.params_m * 1e6 if row.params_m and row.params_scope in _BACKBONE_SCOPES else None
    size = params.get(row.architecture, stated)
    if size is None:
        return None, _UNKNOWN_PARAMS
    name = row.architecture or row.backbone
    objective = row.pretraining if row.pretraining != "other" else row.pretraining_raw or "other"
    extra = f" + {row.extra_data}" if row.extra_data else ""
    level = f"{series_of(name)} {objective}{extra}, {row.scale.label}, {row.source}"
    tokens = tokens_of(row.height, row.width)
    return Point(row.id, row.backbone, size, tokens, row.miou_percent, level), ""


def _of_run(run: OwnRun, params: Mapping[str, float]) -> tuple[Point | None, str]:
    """The point of an own run, or why it gives none: whatever its settings, runs that share them are comparable."""
    size = params.get(run.architecture)
    if size is None:
        return None, _UNKNOWN_PARAMS
    if run.status != "finished":
        return None, "run that did not finish"
    recipe = run.recipe if run.usual_recipe else f"{run.recipe} changed"
    protocol = "single-scale" if run.single_scale else "ms+flip"
    start = run.pretraining or run.weights
    level = (
        f"{series_of(run.architecture)} {start}, own runs with {run.head.name} "
        f"(K={run.head.num_queries}), recipe {recipe}, {protocol}, {run.data} {run.split}"
    )
    tokens = tokens_of(run.resolution, run.resolution)
    return Point(run.run_id, run.backbone, size, tokens, run.miou_percent, level, own=True), ""
