"""Rows of the table of results made up for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luma_cli.evidence.evidence import Evidence

HEADING = "dataset,backbone,pretraining,resolution,head,eval,miou,source"
GOOD = "ade20k,vit_b,dinov3,512,luma,ss,51.2,mine"


def row(**fields: Any) -> Evidence:
    values: dict[str, Any] = {
        "id": "imp-00000000", "provenance": "other head", "trust": "primary", "dataset": "ade20k", "split": "val",
        "head": "eomt", "regime": "fine-tuned", "eval": "single-scale", "backbone": "vit_b", "miou_percent": 50.0,
        "height": 512, "width": 512, "pretraining": "dinov2", "source": "a table",
    }  # fmt: skip
    return Evidence(**{**values, **fields})


def table(folder: Path, *lines: str, heading: str = HEADING, name: str = "results.csv") -> Path:
    """A CSV file of a heading and lines."""
    path = folder / name
    path.write_text("\n".join((heading, *lines)) + "\n", encoding="utf-8")
    return path
