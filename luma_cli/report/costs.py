"""Exact costs as a table, as JSON and as CSV: the rows of `profile`, with everything that was not measured null."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.measure.cost import Cost
from luma_cli.report.head_text import head_text
from luma_cli.report.profile_row import SCHEMA, flat_row, profile_row
from luma_cli.report.profiles import cost_cell
from luma_cli.report.table import Table, columns, number, print_table
from luma_cli.store.records import Configuration, Environment, Profile
from luma_cli.units import FlopConvention, convention_caption, gflops

_SPLIT = ("backbone GFLOPs>", "head GFLOPs>", "params M>", "backbone M>", "head M>")


@dataclass(frozen=True, slots=True)
class Misfit:
    """A size, in pixels, at which a backbone cannot be built, and why."""

    resolution: int
    head: HeadConfig
    reason: str


Counted = Sequence[tuple[BackboneSpec, Cost | Misfit]]
_NOT_RUN = ("weights", "device", "device_name", "dtype", "attention", "compile", "batch", "fingerprint")


def cost_row(spec: BackboneSpec, cost: Cost | Misfit, convention: FlopConvention = "mac") -> dict[str, Any]:
    """The JSON row of a cost: `profile_row` with nothing run."""
    configuration = Configuration(spec.name, spec.timm_name, cost.resolution, cost.head, spec.family, spec.pretraining)
    counted = (
        Profile(configuration, Environment({}), "ok", facts=cost.as_facts())
        if isinstance(cost, Cost)
        else Profile(configuration, Environment({}), "not_applicable", cost.reason)
    )
    return profile_row(counted, convention) | dict.fromkeys(_NOT_RUN)


def write_cost_json(counted: Counted, file: TextIO, convention: FlopConvention = "mac") -> None:
    """Write `{"schema": 1, "profiles": [...]}`."""
    rows = [cost_row(spec, cost, convention) for spec, cost in counted]
    json.dump({"schema": SCHEMA, "profiles": rows}, file, indent=1, allow_nan=False)
    file.write("\n")


def write_cost_csv(counted: Counted, file: TextIO, convention: FlopConvention = "mac") -> None:
    """Write one CSV row per cost, columns as in `profile --csv`."""
    rows = [flat_row(cost_row(spec, cost, convention)) for spec, cost in counted]
    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def print_cost_table(counted: Counted, convention: FlopConvention = "mac") -> None:
    """Print backbone, head and sum, one row per size."""
    rows = [_cells(spec, cost, convention) for spec, cost in counted]
    known = [cost for _, cost in counted if isinstance(cost, Cost)]
    unknown = sorted({name for cost in known for name in cost.unknown_ops})
    said = [*dict.fromkeys(head_text(cost.head, cost.l2) for cost in known if cost.head.name != "none")]
    said += [f">=: no formula for {', '.join(unknown)}"] if unknown else []
    misfits = [cost.reason for _, cost in counted if isinstance(cost, Misfit)]
    headings = ["backbone", "px>", "GFLOPs>", *_SPLIT, "FFN"]
    if any(cost.active_params < cost.params for cost in known):
        headings.append("active M>")
        rows = [(*row, _active_cell(cost)) for row, (_, cost) in zip(rows, counted, strict=True)]
        said += ["active: parameters that one token meets"]
    caption = "\n".join(["; ".join([convention_caption(convention), *said]), *misfits])
    print_table(Table(columns(*headings), tuple(rows), caption=caption, merge=1))


def _active_cell(cost: Cost | Misfit) -> str:
    return "-" if isinstance(cost, Misfit) else number(cost.active_params / 1e6)


def _cells(spec: BackboneSpec, cost: Cost | Misfit, convention: FlopConvention) -> tuple[str, ...]:
    if isinstance(cost, Misfit):
        return (spec.name, str(cost.resolution), *["-"] * (1 + len(_SPLIT)), "cannot be built")
    return (
        spec.name,
        str(cost.resolution),
        cost_cell(cost.macs, cost.complete, convention),
        cost_cell(cost.backbone_macs, cost.complete, convention),
        number(gflops(cost.head_macs, convention)),
        number(cost.params / 1e6),
        number(cost.backbone_params / 1e6),
        number(cost.head_params / 1e6),
        cost.ffn,
    )
