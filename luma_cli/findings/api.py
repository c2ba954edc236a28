"""Every claim tested on what ships and on what the user's store holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from luma_cli.errors import StoreError, UsageError
from luma_cli.evidence.evidence import DATASET_TITLES, Evidence, load_reference
from luma_cli.evidence.own_runs import OwnRun, from_scored
from luma_cli.evidence.table import load_evidence
from luma_cli.findings import front as front_claim
from luma_cli.findings import heads as heads_claim
from luma_cli.findings import imagenet_top1 as imagenet_claim
from luma_cli.findings import mixers as mixers_claim
from luma_cli.findings import pretraining as pretraining_claim
from luma_cli.findings import split as split_claim
from luma_cli.findings.benches import of_device
from luma_cli.findings.finding import Finding
from luma_cli.findings.own import usable
from luma_cli.speed.measured import Measured, from_measurements
from luma_cli.store import database as files
from luma_cli.store.profiles import measurements
from luma_cli.store.runs import scored_runs


@dataclass(frozen=True)
class World:
    """Everything that a claim may rest on. rows: all evidence, own runs as well. device: part of a device's name."""

    dataset: str
    rows: Sequence[Evidence]
    runs: Sequence[OwnRun] = ()
    measured: Sequence[Measured] = ()
    device: str | None = None

    @cached_property
    def published(self) -> list[Evidence]:
        """Shipped and imported rows."""
        return [row for row in self.rows if row.provenance != "own run"]

    @cached_property
    def evidence(self) -> list[Evidence]:
        """Published rows, and own LUMA runs that may stand beside each other."""
        own = [run.evidence for run in self.runs if usable(run, self.dataset) and run.head.name == "luma"]
        return [*self.published, *own]


@dataclass(frozen=True, slots=True)
class Findings:
    """The claims in order. notes: what could not be read."""

    dataset: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = field(default=())

    def to_json(self, with_rows: bool = False) -> dict[str, Any]:
        """As `luma findings --json` prints it."""
        return {
            "schema": 1,
            "dataset": self.dataset,
            "findings": [finding.to_json(with_rows) for finding in self.findings],
            "notes": list(self.notes),
        }


def findings(
    dataset: str = "ade20k",
    *,
    claims: Sequence[str] = (),
    device: str | None = None,
    database: Path | None = None,
) -> Findings:
    """The claims named, or all of them, on one dataset. Raises UsageError for a claim or dataset that is not known.

    database: the store with own runs and profiles, $LUMA_DB or the data folder when None; what cannot be read of it is
    a note, not an error.

    >>> findings("ade20k", claims=["pretraining"]).findings[0].name  # doctest: +SKIP
    'pretraining'
    """
    if dataset not in DATASET_TITLES:
        raise UsageError(f"dataset {dataset!r} has no evidence; use {' or '.join(DATASET_TITLES)}")
    asked = check_claims(claims)
    world, notes = _stored(dataset, device, database)
    return Findings(dataset, tuple(_CLAIMS[name](world) for name in asked), notes)


def claim_names() -> tuple[str, ...]:
    """What `--claim` takes, in the order of output."""
    return tuple(_CLAIMS)


def check_claims(claims: Sequence[str]) -> tuple[str, ...]:
    """The claims asked for in the order of output, all when none is. Raises UsageError for one that is not known."""
    unknown = [name for name in claims if name not in _CLAIMS]
    if unknown:
        raise UsageError(f"claim {unknown[0]!r} is not known; use {', '.join(_CLAIMS)}")
    return tuple(name for name in _CLAIMS if not claims or name in claims)


def _stored(dataset: str, device: str | None, database: Path | None) -> tuple[World, tuple[str, ...]]:
    """What ships with what the store adds; what ships alone, and why, where the store cannot be read."""
    try:
        rows = load_evidence(database)
        connection = files.open_read(database)
        if connection is None:
            return World(dataset, rows, device=device), _unknown_device((), device)
        with closing(connection):
            runs, measured = from_scored(scored_runs(connection)), from_measurements(measurements(connection))
        return World(dataset, rows, runs, measured, device), _unknown_device(measured, device)
    except StoreError as error:
        return World(dataset, load_reference(), device=device), (f"your own results were not read: {error}",)


def _unknown_device(measured: Sequence[Measured], device: str | None) -> tuple[str, ...]:
    if device is None or of_device(measured, device)[0]:
        return ()
    return (f"you profiled nothing on {device}; run `luma profile NAME` there, and `luma db merge` its database here",)


def _front(world: World) -> Finding:
    from luma_cli.accuracy.model import load_model
    from luma_cli.speed import shipped

    model = load_model(world.rows)
    return front_claim.front(model, world.measured, shipped.load(), world.device, world.dataset)


def _pretraining(world: World) -> Finding:
    from luma_cli.accuracy.fit import load_components

    return pretraining_claim.pretraining(world.evidence, world.dataset, load_components().effects)


def _imagenet(world: World) -> Finding:
    from luma_cli.evidence.evidence import top1_percent

    return imagenet_claim.imagenet_top1(world.evidence, top1_percent(), world.dataset)


def _heads(world: World) -> Finding:
    from luma_cli.catalogue.costs import load_costs

    return heads_claim.heads(world.runs, load_costs(), world.dataset)


def _split(world: World) -> Finding:
    from luma_cli.advise.candidates import num_classes

    return split_claim.split(world.published, world.runs, world.dataset, num_classes(world.dataset))


def _mixers(world: World) -> Finding:
    return mixers_claim.mixers(world.runs, world.measured, world.device, world.dataset)


_CLAIMS: Mapping[str, Callable[[World], Finding]] = {
    front_claim.NAME: _front,
    pretraining_claim.NAME: _pretraining,
    imagenet_claim.NAME: _imagenet,
    split_claim.NAME: _split,
    mixers_claim.NAME: _mixers,
    heads_claim.NAME: _heads,
}
