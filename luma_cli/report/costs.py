"""Exact costs as a table, as JSON and as CSV: the rows of `profile`, with everything that was not measured null."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from typing import Any, TextIO

from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.measure.cost import Cost
from luma_cli.report.profile_row import SCHEMA, flat_row, profile_row
from luma_cli.report.profiles import cost_cell
from luma_cli.report.table import Table, columns, number, print_table
from luma_cli.store.records import Configuration, Environment, Profile
from luma_cli.units import FlopConvention, convention_caption, gflops

_SPLIT = ("backbone GFLOPs>", "head GFLOPs>", "params M>", "backbone M>", "head M>")
Counted = Sequence[tuple[BackboneSpec, Cost]]
_NOT_RUN = ("weights", "device", "device_name", "dtype", "attention", "compile", "batch", "fingerprint")


def cost_row(spec: BackboneSpec, cost: Cost, convention: FlopConvention = "mac") -> dict[str, Any]:
    """The JSON row of a cost: `profile_row` with nothing run."""
    configuration = Configuration(spec.name, spec.timm_name, cost.resolution, cost.head, spec.family, spec.pretraining)
    counted = Profile(configuration, Environment({}), "ok", facts=cost.as_facts())
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
    unknown = sorted({name for _, cost in counted for name in cost.unknown_ops})
    heads = sorted({(cost.head.name, cost.head.num_queries, cost.head.num_classes) for _, cost in counted})
    said = [f"head {name}, {queries} queries, {classes} classes" for name, queries, classes in heads if name != "none"]
    said += [f">=: no formula for {', '.join(unknown)}"] if unknown else []
    headings = ["backbone", "px>", "GFLOPs>", *_SPLIT, "FFN"]
    if any(cost.active_params < cost.params for _, cost in counted):
        headings.append("active M>")
        rows = [(*row, number(cost.active_params / 1e6)) for row, (_, cost) in zip(rows, counted, strict=True)]
        said += ["active: parameters that one token meets"]
    caption = "; ".join([convention_caption(convention), *said])
    print_table(Table(columns(*headings), tuple(rows), caption=caption, merge=1))


def _cells(spec: BackboneSpec, cost: Cost, convention: FlopConvention) -> tuple[str, ...]:
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
