"""One record of an imported file as a row of the table of results, or why it cannot be one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from luma_cli.catalogue.cards import candidates
from luma_cli.catalogue.index import TimmIndex
from luma_cli.catalogue.pretraining import objective_named
from luma_cli.catalogue.spec import BackboneSpec, Family
from luma_cli.errors import BadCard
from luma_cli.evidence import cleaning, miou_scale
from luma_cli.evidence.evidence import COLUMNS, Evidence, Provenance, Regime, Trust, of_row
from luma_cli.evidence.miou_scale import MiouScale
from luma_cli.evidence.reference import RAW_COLUMNS, cleaned_row
from luma_cli.evidence.table_file import Record

KNOWN = frozenset({*COLUMNS, *RAW_COLUMNS})
NEEDED = ("dataset", "backbone")
_EVALS = {
    **dict.fromkeys(("", "not stated", "unknown"), ""),
    **dict.fromkeys(("single-scale", "single scale", "single", "ss"), "single-scale"),
    **dict.fromkeys(("ms+flip", "multi-scale", "multi scale", "multi", "ms", "tta"), "ms+flip"),
}
_PROVENANCES: Mapping[str, Provenance] = {
    **dict.fromkeys(("own run", "own"), "own run"),
    **dict.fromkeys(("published luma", "luma"), "published LUMA"),
    **dict.fromkeys(("other head", "other"), "other head"),
}
_NUMBERS = ("params_m", "gflops", "gflops_published", "seeds", "height", "width")
_WHOLE = frozenset({"seeds", "height", "width"})


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is read: its name, for rows without a source; what figures of at most 1 are; timm's index; the cards.

    cards: by spelling of each candidate, e.g. `vit_b.dinov3`.
    """

    file: str
    index: TimmIndex
    cards: Mapping[str, BackboneSpec]
    scale: MiouScale | None = None
    decimal_comma: bool = False


def cards() -> dict[str, BackboneSpec]:
    """Every candidate of the cards by its spelling."""
    return {spec.name: spec for spec in candidates()}


def evidence_of(record: Record, reading: Reading) -> Evidence:
    """The row, without an id. Raises ValueError that says why it is not taken in."""
    if record.fault:
        raise ValueError(record.fault)
    cells = {name: _number(name, cell, reading) for name, cell in record.cells.items()}
    if missing := [name for name in NEEDED if not cells.get(name)]:
        raise ValueError(f"{missing[0]} is empty")
    miou = miou_scale.in_percent(miou_scale.cell(record), reading.scale, reading.decimal_comma)
    cells |= {"dataset": cells["dataset"].lower(), "split": cells.get("split") or "val"}
    cells |= {"eval": _eval(cells.get("eval", "")), "source": cells.get("source") or f"imported from {reading.file}"}
    whole = set(COLUMNS) <= cells.keys()
    return _ours(cells, miou) if whole else _theirs(cells, miou, reading)


def _number(name: str, cell: str, reading: Reading) -> str:
    """The cell, a number in our spelling. Raises ValueError for a number column that is none."""
    if name not in _NUMBERS or not cell:
        return cell
    text = cell.replace(",", ".") if reading.decimal_comma else cell
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{name} is {cell[:40]!r}, expected a number") from error
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} is {cell!r}, expected a number above 0")
    if name in _WHOLE and value != int(value):
        raise ValueError(f"{name} is {cell!r}, expected a whole number")
    return str(int(value)) if name in _WHOLE else text


def _eval(cell: str) -> str:
    try:
        return _EVALS[cell.lower()]
    except KeyError as error:
        raise ValueError(f"eval is {cell[:40]!r}, expected single-scale, ms+flip or nothing") from error


def _ours(cells: Mapping[str, str], miou: float) -> Evidence:
    """A row with all of our columns, as `luma evidence export` writes it: taken as it stands."""
    texts = {name: cells[name] for name in COLUMNS} | {"id": "", "miou_percent": repr(miou)}
    for name, allowed in (
        ("provenance", get_args(Provenance)),
        ("trust", get_args(Trust)),
        ("regime", get_args(Regime)),
    ):
        if texts[name] not in allowed:
            raise ValueError(f"{name} is {texts[name][:40]!r}, expected one of {', '.join(allowed)}")
    try:
        row = of_row("the row", texts)
    except BadCard as error:
        raise ValueError(str(error)) from error
    if objective_named(row.pretraining) is None and row.pretraining not in ("", cleaning.OTHER):
        return replace(row, pretraining=cleaning.OTHER, pretraining_raw=row.pretraining_raw or row.pretraining)
    return row


def _theirs(cells: Mapping[str, str], miou: float, reading: Reading) -> Evidence:
    """A row with some columns, cleaned as the published table is."""
    raw = {name: cells.get(name, "") for name in RAW_COLUMNS}
    raw |= {"miou": repr(miou), "resolution": raw["resolution"].removesuffix(".0") or _size(cells)}
    raw |= {"pretraining": raw["pretraining"] or cells.get("pretraining_raw", "")}
    raw |= {"gflops": raw["gflops"] or cells.get("gflops_published", "")}
    row = cleaned_row("", raw, reading.index)
    row = replace(row, **_objective(row), **_stated(cells))
    row = replace(row, **_of_card(row, reading))
    return replace(row, family=_family(row, reading))


def _size(cells: Mapping[str, str]) -> str:
    height, width = cells.get("height", ""), cells.get("width", "")
    return f"{height}x{width}" if height and width else height or width


def _objective(row: Evidence) -> dict[str, Any]:
    """An objective that is printed by our own name is that one; nothing stated is nothing known."""
    named = objective_named(row.pretraining_raw.lower())
    if row.pretraining == cleaning.OTHER and named is not None:
        return {"pretraining": named.name}
    if row.pretraining == cleaning.OTHER and row.pretraining_raw:
        return {"pretraining": cleaning.supervised(row.pretraining_raw, row.pretraining_data, row.backbone)}
    return {} if row.pretraining_raw or row.pretraining != cleaning.OTHER else {"pretraining": ""}


def _stated(cells: Mapping[str, str]) -> dict[str, Any]:
    """Columns of ours that the file states itself."""
    stated: dict[str, Any] = {
        name: cells[name] for name in ("recipe", "extra_data", "remarks", "doubtful") if cells.get(name)
    }
    for name, allowed in (("regime", get_args(Regime)), ("trust", get_args(Trust))):
        if cells.get(name):
            stated[name] = _one_of(name, cells[name], {each: each for each in allowed})
    if cells.get("provenance"):
        stated["provenance"] = _one_of("provenance", cells["provenance"], _PROVENANCES)
    if cells.get("seeds"):
        stated["seeds"] = int(cells["seeds"])
    return stated


def _one_of(name: str, cell: str, allowed: Mapping[str, str]) -> str:
    try:
        return allowed[cell.lower()]
    except KeyError as error:
        choices = ", ".join(dict.fromkeys(allowed.values()))
        raise ValueError(f"{name} is {cell[:40]!r}, expected one of {choices}") from error


def _of_card(row: Evidence, reading: Reading) -> dict[str, Any]:
    """What a spelling of the cards means: `vit_b.dinov3`, or `vit_b` with the objective dinov3."""
    if row.in_timm != "no":
        return {}
    spec = reading.cards.get(row.backbone) or reading.cards.get(f"{row.backbone}.{row.pretraining}")
    if spec is None:
        return {}
    named = {"timm": spec.timm_name, "architecture": spec.architecture, "in_timm": "tag" if spec.tag else "arch"}
    return named if row.pretraining else {**named, "pretraining": spec.pretraining}


def _family(row: Evidence, reading: Reading) -> str:
    for spec in reading.cards.values():
        if row.architecture and spec.architecture == row.architecture:
            return spec.family
    return row.family.lower() if row.family.lower() in get_args(Family) else ""
