"""Small made-up worlds for the advisor's tests: candidates, results and measured rows."""

from __future__ import annotations

import json
from typing import Any

from luma_cli.advise.candidates import Candidate
from luma_cli.evidence.evidence import Evidence
from luma_cli.speed.measured import Conditions, Measured


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
