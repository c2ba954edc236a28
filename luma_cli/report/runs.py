"""Runs as a table, JSON or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from typing import Any, TextIO

from luma_cli.report.table import Table, columns, number, print_table
from luma_cli.train.standing import Standing

SCHEMA = 1
_COLUMNS = (
    *("run_id", "backbone", "timm_name", "pretraining", "weights", "resolution_pixels", "head", "dataset", "recipe"),
    *("seed", "status", "reason", "step", "num_steps", "batch", "num_processes", "best_miou_percent", "started_at"),
    *("seconds", "device_name", "folder", "resume"),
)


def print_runs(standings: Sequence[Standing], file: TextIO, *, as_json: bool = False, as_csv: bool = False) -> None:
    """Print to `file`."""
    rows = [run_json(one) for one in standings]
    if as_json:
        file.write(json.dumps({"schema": SCHEMA, "runs": rows}, indent=1, allow_nan=False) + "\n")
    elif as_csv:
        cells = [["" if row[name] is None else row[name] for name in _COLUMNS] for row in rows]
        csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *cells])
    else:
        print_table(runs_table(standings), file)


def runs_table(standings: Sequence[Standing]) -> Table:
    """One row for each run, the newest last."""
    lines = [f"{one.run_id} is interrupted: {one.resume}" for one in standings if one.status == "interrupted"]
    return Table(
        columns("run", "backbone", "px>", "head", "data", "recipe", "status", "steps>", "mIoU>", "started"),
        tuple(_cells(one) for one in standings),
        caption="\n".join(lines) if standings else "no run yet; `luma train BACKBONE --data ...` starts one",
    )


def run_json(one: Standing) -> dict[str, Any]:
    """What `luma runs list --json` says of a run; null is not known."""
    record = one.record
    known = {name: getattr(record, name, None) for name in _COLUMNS} if record else dict.fromkeys(_COLUMNS)
    return known | {
        "run_id": one.run_id,
        "status": one.status,
        "resolution_pixels": record.resolution if record else None,
        "device_name": record.environment.identity.get("device_name") if record else None,
        "best_miou_percent": one.best_miou_percent,
        "folder": str(one.folder.path) if one.folder else known["folder"],
        "resume": one.resume or None,
    }


def steps_text(step: int, num_steps: int) -> str:
    """E.g. `1,200/39,000`."""
    return f"{step:,}/{num_steps:,}"


def _cells(one: Standing) -> tuple[str, ...]:
    record = one.record
    if record is None:
        return (one.run_id, *("",) * 5, one.status, *("",) * 3)
    return (
        one.run_id,
        record.backbone,
        str(record.resolution),
        record.head,
        record.dataset,
        record.recipe,
        one.status,
        steps_text(record.step, record.num_steps),
        number(one.best_miou_percent, 2),
        record.started_at[:16].replace("T", " "),
    )
