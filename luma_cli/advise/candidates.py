"""What can be recommended: every card with every pretraining at every resolution, with its exact cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from luma_cli.catalogue.spec import BackboneSpec, Family
from luma_cli.errors import BadResolution, BuildError, UsageError
from luma_cli.head.config import HeadConfig, HeadName
from luma_cli.speed.measured import Bench, Measured

if TYPE_CHECKING:
    from luma_cli.catalogue.costs import BackboneFacts

RESOLUTIONS = (224, 384, 512, 640, 768, 1024)
NUM_CLASSES: Mapping[str, int] = {"ade20k": 150, "cityscapes": 19}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One backbone with its pretraining at one resolution, a head attached.

    macs, params: of the whole segmenter on one crop; None when the count is only a lower bound. objective and tag of
    the weights are in `pretraining` and `timm_name`. measured: its row on the bench of this answer, if any.
    """

    name: str
    timm_name: str
    architecture: str
    resolution: int
    macs: int | None
    params: int | None
    family: str = "unknown"
    pretraining: str = ""
    licence: str = ""
    public_weights: bool = True
    card: str = ""
    measured: Measured | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """Order that makes every listing deterministic."""
        return (self.name, self.timm_name, self.resolution)

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
    """Classes of a dataset that evidence exists for. Raises UsageError for another."""
    if dataset not in NUM_CLASSES:
        raise UsageError(f"dataset {dataset!r} is not known; use {' or '.join(NUM_CLASSES)}")
    return NUM_CLASSES[dataset]


def check_families(families: Iterable[str]) -> frozenset[str]:
    """The families asked for. Raises UsageError for one that no card can have."""
    asked = frozenset(families)
    unknown = sorted(asked - set(get_args(Family)))
    if unknown:
        raise UsageError(f"family {unknown[0]!r} is not known; use one of {', '.join(get_args(Family))}")
    return asked


def build(
    specs: Sequence[BackboneSpec],
    costs: Mapping[tuple[str, int], BackboneFacts],
    dataset: str,
    resolutions: Sequence[int] = RESOLUTIONS,
    head: HeadName = "luma",
) -> list[Candidate]:
    """A candidate for every spec at every resolution whose backbone cost is known and that takes the head.

    Raises BadResolution, naming the sizes that can be costed, when none is known at a size.
    """
    config = HeadConfig(name=head, num_classes=num_classes(dataset))
    known = {resolution for _, resolution in costs}
    missing = [resolution for resolution in resolutions if resolution not in known]
    if missing:
        sizes = ", ".join(map(str, sorted(known)))
        raise BadResolution(f"no cost is known at {missing[0]} px; recommend answers at --res {sizes}")
    known_costs = [
        (spec, costs[spec.architecture, resolution])
        for spec in specs
        for resolution in resolutions
        if (spec.architecture, resolution) in costs
    ]
    return [each for spec, facts in known_costs if (each := _candidate(spec, facts, config)) is not None]


def _candidate(spec: BackboneSpec, facts: BackboneFacts, head: HeadConfig) -> Candidate | None:
    """The candidate; None where this backbone does not take the head."""
    from luma_cli.head.formula import head_macs, head_params

    try:
        macs, params = head_macs(facts, head), head_params(facts, head)
    except BuildError:
        return None
    return Candidate(
        name=spec.name,
        timm_name=spec.timm_name,
        architecture=spec.architecture,
        resolution=facts.resolution,
        macs=facts.macs + macs if facts.complete else None,
        params=facts.params + params,
        family=spec.family,
        pretraining=spec.pretraining,
        licence=spec.licence,
        public_weights=spec.public_weights,
        card=spec.card,
    )


def on_bench(candidates: Sequence[Candidate], bench: Bench) -> list[Candidate]:
    """What the bench measured: every pretraining of a measured architecture, and models without a card."""
    by_architecture: dict[str, dict[str, Candidate]] = {}
    exact = {(candidate.timm_name, candidate.resolution): candidate for candidate in candidates}
    for candidate in candidates:
        by_architecture.setdefault(candidate.architecture, {}).setdefault(candidate.timm_name, candidate)
    found: list[Candidate] = []
    for row in bench.rows:
        cards = () if row.own_module else tuple(by_architecture.get(row.architecture, {}).values())
        for card in cards:
            known = exact.get((card.timm_name, row.resolution))
            sized = known or replace(card, resolution=row.resolution, macs=row.macs, params=row.params)
            found.append(replace(sized, measured=row))
        if not cards:
            found.append(_uncarded(row))
    return found


def _uncarded(row: Measured) -> Candidate:
    return Candidate(
        name=row.name,
        timm_name=row.timm_name,
        architecture=row.architecture,
        resolution=row.resolution,
        macs=row.macs,
        params=row.params,
        family=row.family,
        pretraining=row.pretraining,
        measured=row,
    )
