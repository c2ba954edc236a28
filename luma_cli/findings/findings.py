"""Every claim tested on what ships and on what the user's store holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from luma_cli.accuracy.model import load_model
from luma_cli.advise.candidates import num_classes
from luma_cli.catalogue.costs import load_costs
from luma_cli.errors import StoreError, UsageError
from luma_cli.evidence.evidence import DATASET_TITLES, Evidence, load_reference, top1_percent
from luma_cli.evidence.own_runs import evidence_of
from luma_cli.evidence.table import load_evidence
from luma_cli.findings.finding import Finding
from luma_cli.findings.front import front
from luma_cli.findings.heads import heads
from luma_cli.findings.imagenet import imagenet_top1
from luma_cli.findings.mixers import mixers
from luma_cli.findings.pretraining import pretraining
from luma_cli.findings.profiles import of_device
from luma_cli.findings.scores import usable
from luma_cli.findings.snapshot import snapshot_notes
from luma_cli.findings.split import split
from luma_cli.store import database as files
from luma_cli.store.profiles import Measured, measurements
from luma_cli.store.runs import OwnRun, scored_runs
from luma_cli.to_json import to_json


@dataclass(frozen=True, slots=True)
class _World:
    """Everything that a claim may rest on. rows: all evidence, own runs as well. device: part of a device's name."""

    dataset: str
    device: str | None
    rows: Sequence[Evidence]
    runs: Sequence[OwnRun] = ()
    measured: Sequence[Measured] = ()

    @property
    def published(self) -> list[Evidence]:
        """Shipped and imported rows."""
        return [row for row in self.rows if row.provenance != "own run"]

    @property
    def evidence(self) -> list[Evidence]:
        """Published rows, and own LUMA runs that may be compared with each other."""
        own = [evidence_of(run) for run in self.runs if usable(run, self.dataset) and run.head.name == "luma"]
        return [*self.published, *own]


@dataclass(frozen=True, slots=True)
class ClaimVerdicts:
    """The claims in order. notes: what could not be read."""

    dataset: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    def to_json(self, with_rows: bool = False) -> dict[str, Any]:
        """As `luma findings --json` prints it; the rows behind each claim only when asked for."""
        found = [
            {**to_json(each), "rows": to_json(each.rows)} if with_rows else to_json(each) for each in self.findings
        ]
        return {"schema": 1, "dataset": self.dataset, "findings": found, "notes": list(self.notes)}


# What `--claim` takes, in the order of output.
CLAIMS: Mapping[str, Callable[[_World], Finding]] = {
    "front": lambda of: front(load_model(of.rows), of.measured, of.device, of.dataset),
    "pretraining": lambda of: pretraining(of.evidence, of.dataset),
    "imagenet": lambda of: imagenet_top1(of.evidence, top1_percent(), of.dataset),
    "split": lambda of: split(of.published, of.runs, of.dataset, num_classes(of.dataset)),
    "mixers": lambda of: mixers(of.runs, of.measured, of.device, of.dataset),
    "heads": lambda of: heads(of.runs, load_costs(), of.dataset),
}


def findings(
    dataset: str = "ade20k",
    *,
    claims: Sequence[str] = (),
    device: str | None = None,
    database: Path | None = None,
) -> ClaimVerdicts:
    """The claims named, or all of them, on one dataset. Raises UsageError for a claim or dataset that is not known.

    database: the store with own runs and profiles, $LUMA_DB or the data folder when None; a store that cannot be read
    gives a note, not an error.

    >>> findings("ade20k", claims=["pretraining"]).findings[0].name  # doctest: +SKIP
    'pretraining'
    """
    if dataset not in DATASET_TITLES:
        raise UsageError(f"dataset {dataset!r} has no evidence; use {' or '.join(DATASET_TITLES)}")
    unknown = [name for name in claims if name not in CLAIMS]
    if unknown:
        raise UsageError(f"claim {unknown[0]!r} is not known; use {', '.join(CLAIMS)}")
    notes = []
    try:
        world = _stored(dataset, device, database)
        if device is not None and not of_device(world.measured, device)[0]:
            how = "run `luma profile NAME` there, and `luma db merge` its database here"
            notes.append(f"you profiled nothing on {device}; {how}")
    except StoreError as error:
        if database is not None:  # named by the user: an answer without it would be to another question
            raise
        world = _World(dataset, device, load_reference())
        notes.append(f"your own results were not read: {error}")
    found = [test(world) for name, test in CLAIMS.items() if not claims or name in claims]
    if dataset == "ade20k":
        found = [replace(each, notes=(*each.notes, *snapshot_notes(each.name))) for each in found]
    return ClaimVerdicts(dataset, tuple(found), tuple(notes))


def _stored(dataset: str, device: str | None, database: Path | None) -> _World:
    """What ships with what the store adds. Raises StoreError where it cannot be read."""
    rows = load_evidence(database)
    with files.reading(database) as connection:
        return _World(dataset, device, rows, scored_runs(connection), measurements(connection))
