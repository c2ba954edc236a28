"""Small made-up worlds in which a claim of the benchmark is true, false or cannot be told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from advise_world import finished_run

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.evidence.evidence import Evidence
from luma_cli.store.runs import OwnRun

# Two series of each of three sizes, whose parameters are known to be within 1.3 of each other.
ARCHITECTURES = {
    "vit_base_patch16_224": "isotropic",
    "swin_base_patch4_window7_224": "hierarchical",
    "convnext_base": "convolutional",
}
OBJECTIVES = ("supervised_in1k", "mae", "dinov2", "clip")


def row(number: int, miou: float, **fields: Any) -> Evidence:
    """A fine-tuned single-scale UPerNet figure on ADE20K at 512 px."""
    values: dict[str, Any] = {
        "id": f"row-{number:04d}",
        "provenance": "other head",
        "trust": "primary",
        "dataset": "ade20k",
        "split": "val",
        "head": "upernet",
        "regime": "fine-tuned",
        "eval": "single-scale",
        "backbone": "vit_base_patch16_224",
        "architecture": "vit_base_patch16_224",
        "miou_percent": miou,
        "height": 512,
        "width": 512,
        "pretraining": "mae",
        "pretraining_data": "ImageNet-1k",
        "source": "paper 0",
    }
    return Evidence(**{**values, **fields})


def tables(sd_objective: float, sd_architecture: float, num_papers: int = 12, seed: int = 0) -> list[Evidence]:
    """One table a paper, with every architecture under every objective; effects are the paper's own draws."""
    random = np.random.default_rng(seed)
    rows: list[Evidence] = []
    for paper in range(num_papers):
        by_objective = dict(zip(OBJECTIVES, random.normal(0, sd_objective, len(OBJECTIVES)), strict=True))
        by_architecture = dict(zip(ARCHITECTURES, random.normal(0, sd_architecture, 3), strict=True))
        level = 48 + random.normal(0, 2)
        for architecture, a in by_architecture.items():
            for objective, o in by_objective.items():
                miou = level + a + o + random.normal(0, 0.2)
                about = {"architecture": architecture, "backbone": architecture, "pretraining": objective}
                rows.append(row(len(rows), float(miou), source=f"paper {paper}, Table 1", **about))
    return rows


def checkpoints(
    slope: float, noise: float, num_papers: int = 8, seed: int = 0
) -> tuple[list[Evidence], dict[str, float]]:
    """ViT-B under many objectives with exact weights; mIoU is `slope` times top-1 plus noise. And top-1 by name."""
    random = np.random.default_rng(seed)
    names = [f"vit_base_patch16_224.{objective}" for objective in OBJECTIVES]
    top1 = {name: float(81 + 2 * index) for index, name in enumerate(names)}
    rows: list[Evidence] = []
    for paper in range(num_papers):
        for name, objective in zip(names, OBJECTIVES, strict=True):
            miou = 48 + slope * (top1[name] - 84) + random.normal(0, noise)
            about = {"timm": name, "in_timm": "tag", "backbone": name, "pretraining": objective}
            rows.append(row(len(rows), float(miou), source=f"paper {paper}", **about))
    return rows, top1


def own(number: int, timm_name: str, miou: float, head: str = "luma", **fields: Any) -> OwnRun:
    """A finished run of public weights with the official recipe of the head."""
    mine: dict[str, Any] = {
        "run_id": f"run-{number:03d}",
        "pretraining": "dinov2",
        "head": HeadConfig(name=head),  # type: ignore[arg-type]
        "recipe": "eomt-ade20k" if head == "eomt" else "ade20k",
    }
    return finished_run(timm_name, miou, **{**mine, **fields})


def both_heads(gaps: Mapping[str, float]) -> Iterator[OwnRun]:
    """Runs of each backbone with LUMA and EoMT, LUMA better by the gap."""
    for number, (name, gap) in enumerate(gaps.items()):
        yield own(2 * number, name, 50 + number + gap)
        yield own(2 * number + 1, name, 50 + number, head="eomt")
