"""mIoU figures made ready for matched comparisons: one per checkpoint in one table, with what must be equal beside it.

Published figures of one checkpoint in one table (seeds, variants of a recipe) are averaged, so they count once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from luma_cli.accuracy.backbones import recognise
from luma_cli.evidence.evidence import Evidence, Scale

OWN_SOURCE = "your runs"
_SUPERVISED = re.compile(r"supervised|deit3?\b")
# Wrappers of plain ViTs in published names: `franca_vitb14`, `radio_v2.5_vitl16`, `deit3_base_patch16_224`.
_PLAIN = re.compile(
    r"(?:vit(?:_pe_core|_pe_spatial)?|deit3?|beit(?:v2)?)_(tiny|small|base|large|huge|giant|gigantic|7b)"
)
_SHORT = re.compile(r"(?:franca|capi|dune|lingbot_vision|vjepa[\d.]+|c?[-_]?radio[\w.-]*?)_(?:vit)?([sblhg])(?:1[46])?")
_LETTERS = {"s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
_INPUT = re.compile(r"(_patch(?!8)\d+.*|_window\d+.*|_\d{3})$")


@dataclass(frozen=True, slots=True)
class TableScore:
    """The mean figure of one checkpoint in one table.

    cell: what two scores must share to be compared: scale, crop as tokens of 16 pixels, source and schedule. shape:
    architecture whatever its weights, patch and input size; series: what it is a size or a variant of. objective,
    data: of its pretraining. params_m: of the backbone in millions, None when not known. publisher: who made the
    figure; the unit that is resampled. weights: exact timm name, empty when not known. ids: of the evidence.
    """

    cell: tuple[Scale, tuple[int, int] | None, str, str]
    shape: str
    series: str
    objective: str
    data: str
    miou_percent: float
    params_m: float | None
    publisher: str
    weights: str
    ids: tuple[str, ...]


def scores(evidence: Iterable[Evidence]) -> list[TableScore]:
    """One score per checkpoint and table, without doubtful rows and those with further labelled data."""
    groups: dict[tuple[object, ...], list[Evidence]] = defaultdict(list)
    for row in evidence:
        if not row.doubtful and not row.extra_data and objective(row):
            shape = shape_of(row.architecture or row.backbone)
            groups[_cell(row), shape, objective(row), row.pretraining_data, _weights(row)].append(row)
    return [_score(rows) for rows in groups.values()]


def _score(rows: list[Evidence]) -> TableScore:
    first = rows[0]
    architecture = first.architecture or first.backbone
    lineage = recognise(architecture).lineage
    return TableScore(
        cell=_cell(first),
        shape=shape_of(architecture),
        series=lineage.name if lineage is not None else shape_of(architecture),
        objective=objective(first),
        data=first.pretraining_data,
        miou_percent=fmean(row.miou_percent for row in rows),
        params_m=next((size for row in rows if (size := params_m(row))), None),
        publisher=publisher(first),
        weights=_weights(first),
        ids=tuple(sorted(row.id for row in rows)),
    )


def _weights(row: Evidence) -> str:
    return row.timm if row.in_timm == "tag" else ""


def _cell(row: Evidence) -> tuple[Scale, tuple[int, int] | None, str, str]:
    """Patch 14 at 448 px sees as many tokens as patch 16 at 512 px."""
    patch = 14 if re.search(r"patch14|vit[sblhg]14", row.backbone) else 16
    tokens = None if row.height is None or row.width is None else (round(row.height / patch), round(row.width / patch))
    return row.scale, tokens, OWN_SOURCE if row.provenance == "own run" else row.source, row.schedule


@cache
def shape_of(architecture: str) -> str:
    """A timm architecture or published name whatever its weights, patch and input size; plain ViTs by their size alone.

    >>> shape_of("vit_base_patch14_dinov2"), shape_of("franca_vitb14"), shape_of("swin_tiny_patch4_window7_224")
    ('vit_base', 'vit_base', 'swin_tiny')
    """
    bare = _INPUT.sub("", re.sub(r"\s*\(.*$", "", architecture).strip())
    if plain := _PLAIN.fullmatch(bare):
        return f"vit_{plain[1]}"
    if short := _SHORT.fullmatch(bare):
        return f"vit_{_LETTERS[short[1]]}"
    return bare


def objective(row: Evidence) -> str:
    """What the weights were trained for, whatever the data: ImageNet-1k and -21k labels are one objective.

    Empty when the row does not say.
    """
    name = row.pretraining if row.pretraining not in ("", "other") else row.pretraining_raw.strip().lower()
    return "supervised" if _SUPERVISED.match(name) else name


def params_m(row: Evidence) -> float | None:
    """Parameters of the backbone in millions, counted or published; None where only a size word tells."""
    found = recognise(row.architecture or row.backbone)
    if found.params is None or found.size_origin == "by its size word":
        return row.params_m if "backbone" in row.params_scope else None
    return found.params / 1e6


def publisher(row: Evidence) -> str:
    """Who made the figure: all tables of one paper or repository are one, and so are a user's runs of one backbone.

    >>> from types import SimpleNamespace as Stub
    >>> publisher(Stub(provenance="other head", source="mmsegmentation 0.28 model zoo, configs/vit/vit.yml"))
    'mmsegmentation 0.28 model zoo'
    """
    if row.provenance == "own run":
        return f"{OWN_SOURCE}, {row.architecture}"
    return re.split(r"[,(]| Table ", row.source)[0].strip()
