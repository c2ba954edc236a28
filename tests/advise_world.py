"""Small made-up worlds for the advisor's tests: candidates, results, measured rows, and models that know a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from luma_cli.accuracy.sightings import Effect, Prediction, Relation, Support
from luma_cli.accuracy.subjects import Subject
from luma_cli.advise.candidates import Candidate
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.evidence.evidence import Evidence
from luma_cli.speed.quantity import Quantity, Workload
from luma_cli.store.profiles import Conditions, Measured
from luma_cli.store.runs import OwnRun
from luma_cli.units import BudgetKind

if TYPE_CHECKING:
    from luma_cli.accuracy.sightings import Draws


def candidate(name: str, gmacs: float | None = 10.0, resolution: int = 512, **fields: Any) -> Candidate:
    """A card's candidate `family_size.objective` whose timm name is `arch_<name without objective>.<objective>`."""
    base, _, objective = name.partition(".")
    objective = objective or "supervised_in1k"
    values: dict[str, Any] = {
        "name": name,
        "timm_name": f"arch_{base}.{objective}",
        "architecture": f"arch_{base}",
        "resolution": resolution,
        "macs": None if gmacs is None else int(gmacs * 1e9),
        "params": 50_000_000,
        "family": "isotropic",
        "pretraining": objective,
        "card": base.split("_")[0],
    }
    return Candidate(**{**values, **fields})


def result(of: Candidate, miou: float, number: int, **fields: Any) -> Evidence:
    """A fine-tuned single-scale UPerNet result of the candidate's own weights at its size."""
    values: dict[str, Any] = {
        "id": f"row-{number}",
        "provenance": "other head",
        "trust": "primary",
        "dataset": "ade20k",
        "split": "val",
        "head": "upernet",
        "regime": "fine-tuned",
        "eval": "single-scale",
        "backbone": of.timm_name,
        "miou_percent": miou,
        "height": of.resolution,
        "width": of.resolution,
        "pretraining": of.pretraining,
        "timm": of.timm_name,
        "architecture": of.architecture,
        "in_timm": "tag",
        "source": f"paper {number}",
        "url": f"https://example.org/{number}",
    }
    return Evidence(**{**values, **fields})


def conditions(**fields: Any) -> Conditions:
    """Eager float32 on a CPU."""
    values: dict[str, Any] = {
        "device": "cpu",
        "device_name": "Test CPU",
        "dtype": "float32",
        "attention": "auto",
        "compile": "none",
        "channels_last": "auto",
        "head": "luma",
        "num_queries": 100,
        "num_classes": 150,
        "l2": 1,
        "tap": "output",
        "ffn": "auto",
        "prefix": False,
        "design": '["paper-page",4,0,1,"own",1]',
        "environment": json.dumps({"torch": "2.0"}),
    }
    return Conditions(**{**values, **fields})


def measured(timm_name: str, latency_ms: float | None = 10.0, resolution: int = 512, **fields: Any) -> Measured:
    """A profile of backbone and LUMA head, everything measured."""
    values: dict[str, Any] = {
        "name": timm_name,
        "timm_name": timm_name,
        "resolution": resolution,
        "conditions": conditions(),
        "macs": 10_000_000_000,
        "params": 50_000_000,
        "latency_ms": latency_ms,
        "images_per_second": 100.0,
        "memory_bytes": float(2**30),
        "energy_joules": 2.0,
        "started_at": "2026-01-01T00:00:00Z",
        "fingerprint": f"fp-{timm_name}-{resolution}",
    }
    return Measured(**{**values, **fields})


def finished_run(timm_name: str, miou: float, **fields: Any) -> OwnRun:
    """A finished run of the user's own on ADE20K with LUMA and the shipped recipe, as they are by default."""
    values: dict[str, Any] = {
        "run_id": f"run-{timm_name}",
        "status": "finished",
        "backbone": timm_name,
        "timm_name": timm_name,
        "pretraining": "dinov3",
        "weights": "pretrained",
        "resolution": 512,
        "head": HeadConfig(),
        "dataset": "ade20k",
        "recipe": "ade20k",
        "usual_recipe": True,
        "seed": 0,
        "step": 100,
        "data": "ade20k",
        "split": "val",
        "single_scale": True,
        "absent": "skip",
        "num_images": 2000,
        "num_skipped": 0,
        "miou_percent": miou,
    }
    return OwnRun(**{**values, **fields})


def own_run(of: Candidate, miou: float, **fields: Any) -> OwnRun:
    """A finished run of the candidate's weights."""
    mine: dict[str, Any] = {
        "run_id": f"run-{of.name}-{of.resolution}",
        "backbone": of.name,
        "pretraining": of.pretraining,
        "resolution": of.resolution,
        "macs": of.macs,
        "params": of.params,
    }
    return finished_run(of.timm_name, miou, **{**mine, **fields})


@dataclass(frozen=True)
class TableModel:
    """An accuracy model that knows each backbone's mIoU and its standard deviation by timm name.

    Draws depend on the backbone's name and the seed alone. What is not in the table is predicted at 50 +- 5 without
    evidence. num_facts: rows of other heads that it claims to know of each. ids: rows that it names as nearest. By
    timm name: relations: whom those rows are about; outside: extrapolated; own: with a run of one's own.
    """

    table: Mapping[str, tuple[float, float]]
    num_facts: int = 3
    ids: tuple[str, ...] = ()
    relations: Mapping[str, Relation] = field(default_factory=dict)
    outside: frozenset[str] = frozenset()
    own: frozenset[str] = frozenset()
    scale_note: str = "on the EoMT scale, no LUMA run seen"

    def predict(self, subjects: Sequence[Subject]) -> list[Prediction]:
        return [self._predict(each) for each in subjects]

    def _predict(self, subject: Subject) -> Prediction:
        known = subject.backbone in self.table
        miou, sd = self.table.get(subject.backbone, (50.0, 5.0))
        half, most, nearly_all = ((miou - z * sd, miou + z * sd) for z in (0.6745, 1.2816, 1.6449))
        relation = self.relations.get(subject.backbone, "these weights")
        own = int(subject.backbone in self.own)
        support = Support(own, 0, self.num_facts if known else 0, self.ids, relation)
        reason = "" if known else f"no evidence about {subject.architecture}"
        outside = not known or subject.backbone in self.outside
        return Prediction(miou, half, most, nearly_all, sd, support, outside, reason)

    def draws(self, subjects: Sequence[Subject], num_draws: int = 2000, seed: int = 0) -> Draws:
        columns = []
        for each in subjects:
            miou, sd = self.table.get(each.backbone, (50.0, 5.0))
            digest = hashlib.sha256(f"{seed} {each.backbone}".encode()).digest()
            columns.append(np.random.default_rng(list(digest)).normal(miou, sd, num_draws))
        return np.stack(columns, axis=1)

    def effects(self, subject: Subject) -> list[Effect]:
        return [Effect(f"pretraining {subject.pretraining}", 2.5, 0.4), Effect("size", -1.0, 0.2)]


@dataclass(frozen=True)
class TableSpeed:
    """Costs of one device by architecture and kind: a number is measured, a triple is predicted with its interval."""

    table: Mapping[str, Mapping[BudgetKind, float | tuple[float, float, float]]]

    def quantities(self, kind: BudgetKind, workloads: Sequence[Workload]) -> list[Quantity | None]:
        return [self._quantity(kind, self.table.get(each.architecture, {}).get(kind)) for each in workloads]

    @staticmethod
    def _quantity(kind: BudgetKind, known: float | tuple[float, float, float] | None) -> Quantity | None:
        if known is None:
            return None
        if isinstance(known, tuple):
            return Quantity(kind, *known, "predicted")
        return Quantity(kind, known, known, known, "measured")

    def why(self, kind: BudgetKind) -> str:
        return f"{kind} was not measured on any device"

    def anchors(self, workloads: Sequence[Workload], num: int = 1, kind: BudgetKind = "ms") -> list[Workload]:
        return list(workloads[:num])
