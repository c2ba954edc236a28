"""The candidates: every card with every pretraining at every resolution, with its exact cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from luma_cli.accuracy.sightings import AccuracyModel, Prediction
from luma_cli.accuracy.subjects import Subject, subject_of
from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BadResolution, BuildError, NoAnswer, UsageError
from luma_cli.evidence.evidence import HEAD_TITLES

if TYPE_CHECKING:
    from luma_cli.catalogue.costs import BackboneFacts
    from luma_cli.store.profiles import Measured
    from luma_cli.store.runs import OwnRun


# A first run should cost little: about a ViT-B at 512 px.
MODEST_MACS = 150e9
RESOLUTIONS = (224, 384, 512, 640, 768, 1024)
NUM_CLASSES: Mapping[str, int] = {"ade20k": 150, "cityscapes": 19}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One backbone with its pretraining at one resolution, with a head.

    macs, params: of the whole segmenter on one square crop; None when the count is only a lower bound.
    """

    name: str
    timm_name: str
    architecture: str
    resolution: int
    macs: int | None
    params: int | None
    backbone_params: int | None = None
    family: str = "unknown"
    pretraining: str = ""
    licence: str = ""
    public_weights: bool = True
    card: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        """Sort key of every listing."""
        return (self.name, self.timm_name, self.resolution)

    @property
    def run_key(self) -> tuple[str, int]:
        """Checkpoint and size, which identify a training."""
        return self.timm_name, self.resolution

    @property
    def title(self) -> str:
        """The card's name, with the objective."""
        objective = self.pretraining
        return self.name if not objective or objective in self.name else f"{self.name} ({objective})"

    @property
    def label(self) -> str:
        """Title and size."""
        return f"{self.title} at {self.resolution} px"

    def to_json(self) -> dict[str, Any]:
        """The candidate's identity and exact costs."""
        return {
            "backbone": self.name,
            "timm_name": self.timm_name,
            "family": self.family,
            "pretraining": self.pretraining or None,
            "licence": self.licence or None,
            "resolution": self.resolution,
            "macs": self.macs,
            "gmacs": None if self.macs is None else self.macs / 1e9,
            "params": self.params,
        }


def num_classes(dataset: str) -> int:
    """Classes of a dataset with evidence. Raises UsageError for another."""
    if dataset not in NUM_CLASSES:
        raise UsageError(f"dataset {dataset!r} is not known; use {' or '.join(NUM_CLASSES)}")
    return NUM_CLASSES[dataset]


def build(
    specs: Sequence[BackboneSpec],
    costs: Mapping[tuple[str, int], BackboneFacts],
    dataset: str,
    resolutions: Sequence[int] = RESOLUTIONS,
    head: HeadName = "luma",
) -> list[Candidate]:
    """A candidate for every spec and resolution of known cost that supports the head.

    Raises BadResolution, naming the known sizes, when no cost is known at one.
    """
    config = HeadConfig(name=head, num_classes=num_classes(dataset))
    known = {resolution for _, resolution in costs}
    missing = [resolution for resolution in resolutions if resolution not in known]
    if missing:
        sizes = ", ".join(map(str, sorted(known)))
        raise BadResolution(f"no cost is known at {missing[0]} px; use --res {sizes}")
    keys = {(spec.architecture, resolution) for spec in specs for resolution in resolutions} & costs.keys()
    extra = {key: _head_cost(costs[key], config) for key in keys}  # once, however many weights there are
    return [
        _candidate(spec, costs[key], *cost)
        for spec in specs
        for resolution in resolutions
        if (cost := extra.get(key := (spec.architecture, resolution))) is not None
    ]


def attached(spec: BackboneSpec, facts: BackboneFacts, head: HeadConfig) -> Candidate | None:
    """One backbone at the size of its facts with a head; None where it does not support the head."""
    extra = _head_cost(facts, head)
    return None if extra is None else _candidate(spec, facts, *extra)


def _head_cost(facts: BackboneFacts, head: HeadConfig) -> tuple[int, int] | None:
    """Multiply-adds and parameters of the head; None where this backbone does not support it."""
    from luma_cli.catalogue.head_cost import head_macs, head_params

    try:
        return head_macs(facts, head), head_params(facts, head)
    except BuildError:
        return None


def _candidate(spec: BackboneSpec, facts: BackboneFacts, head_macs: int, head_params: int) -> Candidate:
    return Candidate(
        name=spec.name,
        timm_name=spec.timm_name,
        architecture=spec.architecture,
        resolution=facts.resolution,
        macs=facts.macs + head_macs if facts.complete else None,
        params=facts.params + head_params,
        backbone_params=facts.params,
        family=spec.family,
        pretraining=spec.pretraining,
        licence=spec.licence,
        public_weights=spec.public_weights,
        card=spec.card,
    )


def uncarded(model: Measured | OwnRun, name: str, family: str) -> Candidate:
    """The model that was measured or trained, where no card has it."""
    return Candidate(
        name=name,
        timm_name=model.timm_name,
        architecture=model.architecture,
        resolution=model.resolution,
        macs=model.macs,
        params=model.params,
        family=family,
        pretraining=model.pretraining,
    )


def load(
    dataset: str, resolutions: Sequence[int] = (), any_resolution: bool = False, head: HeadName = "luma"
) -> list[Candidate]:
    """Every card, pretraining with public weights and resolution of the shipped tables that supports the head.

    any_resolution: sizes without a known cost are no error, as measured rows have their own counts. Raises NoAnswer
    without a cost table.
    """
    from luma_cli.catalogue.cards import candidates
    from luma_cli.catalogue.costs import load_costs

    costs = load_costs()
    if not costs:
        raise NoAnswer("the cost table profiles/costs.csv is missing or empty; reinstall luma, or run make costs")
    sizes = tuple(resolutions or RESOLUTIONS)
    if any_resolution:
        known = {resolution for _, resolution in costs}
        sizes = tuple(size for size in sizes if size in known) or RESOLUTIONS
    return build([spec for spec in candidates() if spec.public_weights], costs, dataset, sizes, head)


def with_measured(candidates: Sequence[Candidate], measured: Iterable[Measured], head: str) -> list[Candidate]:
    """The candidates, with models measured with this head that lack a card or have another size.

    The user's own modules are left out, as their accuracy is not known.
    """
    from luma_cli.catalogue.timm_index import load_index

    known = {(each.architecture, each.resolution) for each in candidates}
    cards: dict[str, dict[str, Candidate]] = {}
    for each in candidates:
        cards.setdefault(each.architecture, {}).setdefault(each.timm_name, each)
    added: dict[tuple[str, int], Candidate] = {}
    for row in measured:
        if row.own_module or row.conditions.head != head or (row.architecture, row.resolution) in known:
            continue
        sized = [
            replace(card, resolution=row.resolution, macs=row.macs, params=row.params)
            for card in cards.get(row.architecture, {}).values()
        ]
        if not sized and load_index().get(row.architecture) is not None:
            sized = [uncarded(row, row.name, row.family)]
        added.update({each.run_key: each for each in sized})
    return [*candidates, *added.values()]


def subject(candidate: Candidate, dataset: str, head: str) -> Subject:
    """The candidate with this head, fine-tuned on square crops of its size, scored at a single scale.

    Without a head the mIoU is LUMA's; only the costs are the backbone's.
    """
    return subject_of(
        candidate.timm_name,
        dataset,
        resolution=candidate.resolution,
        pretraining=candidate.pretraining,
        head="luma" if head == "none" else head,
    )


def scale_note(model: AccuracyModel, head: str) -> str:
    """The scale of the mIoU of `subject`."""
    return model.scale_note if head in ("luma", "none") else f"on the scale of the {HEAD_TITLES.get(head, head)} head"


def has_evidence(prediction: Prediction) -> bool:
    """Whether any row of the evidence is about the backbone."""
    support = prediction.support
    return support.own_runs + support.published_luma + support.other_heads > 0
