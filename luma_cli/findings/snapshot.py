"""What a table of LUMA's authors' development code shows inside itself: beside a claim, never for its verdict."""

from __future__ import annotations

import re
from statistics import median

from luma_cli.evidence.evidence import SNAPSHOT, SnapshotSeries, load_snapshot

_SIDES = (224, 384, 512)
# Token mixers that are bound to the number of tokens that they were pretrained with, beside the plain ViT.
_BOUND = re.compile(r"(vit_s16|hydra_s|linformer_s|polysa_s|tnt_s)")


def snapshot_notes(claim: str) -> tuple[str, ...]:
    """The notes on a claim about ADE20K, none where the table says nothing about it."""
    series = [each for each in load_snapshot() if len(each.miou_percent) > 1]
    bound = [each for each in series if _BOUND.fullmatch(each.backbone)]
    if claim == "mixers":
        shown = "; ".join(f"{each.backbone} {', '.join(_figures(each))}" for each in bound)
        return (f"{SNAPSHOT}: mIoU at {', '.join(map(str, _SIDES))} px: {shown}",)
    if claim == "split":
        free = [each for each in series if not re.match("hydra|linformer|polysa|tnt", each.backbone)]
        return (f"{SNAPSHOT}: {'; '.join(_step(free, *sides) for sides in zip(_SIDES, _SIDES[1:], strict=False))}",)
    return ()


def _figures(series: SnapshotSeries) -> list[str]:
    return [f"{series.miou_percent[side]:.1f}" if side in series.miou_percent else "-" for side in _SIDES]


def _step(series: list[SnapshotSeries], low: int, high: int) -> str:
    """The median gain of mIoU from one size to the next, e.g. `224 to 384 px +3.4 mIoU (median of 20 backbones)`."""
    figures = [each.miou_percent for each in series]
    gains = [each[high] - each[low] for each in figures if low in each and high in each]
    spread = f"{min(gains):+.1f} to {max(gains):+.1f}"
    return f"{low} to {high} px {median(gains):+.1f} mIoU (median of {len(gains)} backbones, {spread})"
