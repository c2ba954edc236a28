"""Which results a scaling law may be read from, and on which level each of them stands.

A level is everything but size and resolution: head, protocol, source, series and pretraining. Errors are compared raw
within a level only; between levels the law allows any factor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from luma_cli.accuracy.backbones import recognise
from luma_cli.accuracy.subjects import subject_of_row
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.evidence.evidence import Evidence
from luma_cli.evidence.own_runs import OwnRun
from luma_cli.scaling.law import informative, missing
from luma_cli.scaling.point import Point, tokens_of

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
    figures and second scores of one training are left out; published results too where the own runs have sizes and
    resolutions enough, because then nothing but the user's own setting need be trusted.
    """
    left_out: Counter[str] = Counter()
    found = [_of_run(run) for run in runs if run.base == dataset]
    if not own_only:
        rows = [row for row in evidence if row.dataset == dataset and row.provenance != "own run"]
        single = frozenset(_training(row) for row in rows if row.eval == "single-scale")
        found += [_of_row(row, single) for row in rows]
    points = []
    for traits, point, reason in found:
        if family not in ("", traits.family) or pretraining not in ("", traits.pretraining):
            continue
        if point is None:
            left_out[reason] += 1
        else:
            points.append(point)
    own = [point for point in points if point.own]
    if len(own) < len(points) and not missing(informative(own)):
        left_out[_OWN_SUFFICE] = len(points) - len(own)
        points = own
    kept = informative(points)
    if len(kept) < len(points):
        left_out[_ALONE] = len(points) - len(kept)
    return Chosen(tuple(kept), dict(sorted(left_out.items())))


@dataclass(frozen=True, slots=True)
class _Traits:
    """What results are restricted by."""

    family: str
    pretraining: str


_Found = tuple[_Traits, Point | None, str]


def _training(row: Evidence) -> tuple[object, ...]:
    return row.backbone, row.source, row.head, row.recipe, row.regime, row.height, row.width, row.pretraining_raw


def _of_row(row: Evidence, single: frozenset[tuple[object, ...]]) -> _Found:
    """A published or imported result: its traits, and its point or why it gives none."""
    subject = subject_of_row(row)
    traits = _Traits(subject.family, subject.pretraining)
    if row.regime != "fine-tuned":
        return traits, None, "frozen probe"
    if row.doubtful:
        return traits, None, "doubtful figure"
    if not row.height or not row.width:
        return traits, None, "crop size not stated"
    if row.eval != "single-scale" and _training(row) in single:
        return traits, None, "multi-scale score of a training that is here at a single scale"
    if not subject.params or subject.params_guessed:
        return traits, None, _UNKNOWN_PARAMS
    objective = row.pretraining if row.pretraining not in ("", "other") else row.pretraining_raw or "other"
    data = ", ".join(filter(None, (row.pretraining_data, row.extra_data)))
    start = f"{objective} ({data})" if data else objective
    level = f"{subject.lineage or subject.architecture} {start}; {row.scale.label}; {row.source}"
    tokens = tokens_of(row.height, row.width)
    return traits, Point(row.id, row.backbone, subject.params, tokens, row.miou_percent, level), ""


def _of_run(run: OwnRun) -> _Found:
    """An own run, whatever its settings: runs that share them are comparable."""
    known = recognise(run.timm_name)
    series = known.lineage.name if known.lineage else known.architecture
    traits = _Traits(known.lineage.family if known.lineage else "unknown", run.pretraining)
    if known.params is None or known.size_origin == "by its size word":
        return traits, None, _UNKNOWN_PARAMS
    if run.status != "finished":
        return traits, None, "run that did not finish"
    start = run.pretraining if run.weights == "pretrained" else f"{run.weights} weights"
    recipe = run.recipe if run.usual_recipe else f"{run.recipe.removesuffix('+')} changed"
    protocol = "single-scale" if run.single_scale else "ms+flip"
    level = f"{series} {start}; own runs, {_head_text(run.head)}, recipe {recipe}, {protocol}, {run.data} {run.split}"
    tokens = tokens_of(run.resolution, run.resolution)
    return traits, Point(run.run_id, run.backbone, known.params, tokens, run.miou_percent, level, own=True), ""


@cache
def _head_text(head: HeadConfig) -> str:
    """The head's name with the options that are not its usual ones."""
    usual = HeadConfig(name=head.name).identity()
    options = [f"{name} {value}" for name, value in head.identity().items() if usual.get(name) != value]
    return " ".join([head.name, *(option for option in options if not option.startswith("num_classes"))])
