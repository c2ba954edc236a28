"""Runs as a table, JSON or CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from luma_cli.report.table import Table, columns, number, print_table, sparkline
from luma_cli.store.records import EvaluationRecord
from luma_cli.train.resume import config_differences
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


Curves = Mapping[str, Sequence[tuple[int, float]]]
COSTS = (
    *("device_name", "dtype", "batch", "gmacs", "params", "throughput_images_per_second", "latency_eager_p50_ms"),
    *("memory_device_bytes", "energy_j_per_image"),
)


def facts_table(one: Standing, config: Mapping[str, Any], checkpoints: Sequence[str]) -> Table:
    """What is known of the run, by name; what is not is left out. `config` is as in config.json."""
    record = one.record
    head, recipe = config.get("head", {}), config.get("recipe", {})
    found = {
        "run": one.run_id,
        "status": f"{one.status}{f': {record.reason}' if record and record.reason else ''}",
        "held by": str(one.holder) if one.holder else "",
        "resume": one.resume,
        "folder": str(one.folder.path) if one.folder else f"{record.folder} (not here)" if record else "",
        "checkpoints": ", ".join(checkpoints),
        "backbone": config.get("backbone", ""),
        "weights": config.get("weights", ""),
        "head": _head_text(head),
        "resolution": f"{config['resolution']} px" if "resolution" in config else "",
        "data": record.dataset if record else config.get("data", ""),
        "recipe": record.recipe if record else recipe.get("name", ""),
        "changed": ", ".join(f"{name}={recipe.get(name)}" for name in config.get("recipe_changed", ())),
        "seed": str(config.get("seed", "")),
        **(_progress(one) if record else {}),
    }
    return Table(columns("fact", "value~"), tuple((name, text) for name, text in found.items() if text))


def curves_table(curves: Curves, *, plain: bool = False) -> Table:
    """One row for each metric: first and last value, lowest and highest, and its course."""
    rows = tuple(_curve_cells(name, points, plain) for name, points in curves.items() if points)
    return Table(columns("metric", "first>", "last>", "lowest>", "highest>", "steps>", "course"), rows)


def evaluations_table(evaluations: Sequence[EvaluationRecord]) -> Table:
    """One row for each evaluation, oldest first. What all protocols share is said once, below."""
    shared = _shared([one.protocol for one in evaluations])
    return Table(
        columns("data", "split", "step>", "mIoU>", "mAcc>", "aAcc>", "boundary>", "images>", "GMACs/img>", "protocol~"),
        tuple(_evaluation_cells(one, shared) for one in evaluations),
        caption=f"percent; GMACs of the average image, its windows included\n{protocol_text(shared)}".strip(),
    )


def classes_table(evaluation: EvaluationRecord) -> Table:
    """One row for each class of an evaluation."""
    return Table(
        columns("class", "IoU>", "accuracy>", "boundary IoU>"),
        tuple(
            (one.name, *map(_percent, (one.iou_percent, one.accuracy_percent, one.boundary_iou_percent)))
            for one in evaluation.classes
        ),
        title=f"{evaluation.data} {evaluation.split}, step {evaluation.step:,}",
        caption=f"percent; {evaluation.num_present} of {evaluation.num_classes} classes are present",
    )


def costs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What the same model costs where it was profiled: rows of the view `score_costs` by the columns COSTS."""
    return Table(
        columns("device", "dtype", "GMACs>", "params M>", "batch>", "img/s>", "ms p50>", "J/img>"),
        tuple(_cost_cells(row) for row in rows),
        caption="the same model as profiled on its own, one crop of the run's resolution",
    )


def sheet_json(
    one: Standing,
    config: Mapping[str, Any],
    checkpoints: Sequence[str],
    curves: Curves,
    evaluations: Sequence[EvaluationRecord],
    costs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Schema 1. A value of a curve that is not finite is null, and `not_finite` names the metric."""
    return {
        "schema": 1,
        "run": run_json(one),
        "config": dict(config),
        "facts": dict(one.record.facts) if one.record else {},
        "checkpoints": list(checkpoints),
        "curves": {name: [[step, _finite(value)] for step, value in points] for name, points in curves.items()},
        "not_finite": [name for name, points in curves.items() if any(_finite(value) is None for _, value in points)],
        "evaluations": [evaluation_json(evaluation) for evaluation in evaluations],
        "costs": [dict(row) for row in costs],
    }


def evaluation_json(evaluation: EvaluationRecord) -> dict[str, Any]:
    """An evaluation without its images."""
    names = (
        *("checkpoint_sha256", "step", "data", "split", "resolution", "protocol", "num_images", "num_skipped"),
        *("num_classes", "num_present", "miou_percent", "macc_percent", "aacc_percent", "boundary_miou_percent"),
        *("windows_per_image", "macs_per_image", "seconds", "evaluated_at"),
    )
    parts = ("name", "iou_percent", "accuracy_percent", "boundary_iou_percent")
    classes = [{name: getattr(one, name) for name in parts} for one in evaluation.classes]
    return {**{name: getattr(evaluation, name) for name in names}, "classes": classes}


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """E.g. `flip=False, window=512`."""
    return ", ".join(f"{name}={value}" for name, value in sorted(protocol.items()))


def _progress(one: Standing) -> dict[str, str]:
    record = one.record
    if record is None:
        return {}
    processes = f" over {record.num_processes} processes" if record.num_processes > 1 else ""
    return {
        "batch": f"{record.batch}{processes}",
        "steps": steps_text(record.step, record.num_steps),
        "trained for": f"{record.seconds / 3600:.2f} h",
        "started": record.started_at,
        "device": str(record.environment.identity.get("device_name", "")),
        "best mIoU": _percent(one.best_miou_percent),
    }


def _head_text(head: Mapping[str, Any]) -> str:
    name = head.get("name", "")
    options = [f"{key}={value}" for key, value in head.items() if key != "name"] if name != "none" else []
    return f"{name}: {', '.join(options)}" if options else str(name)


def _curve_cells(name: str, points: Sequence[tuple[int, float]], plain: bool) -> tuple[str, ...]:
    values = [value for _, value in points]
    finite = [value for value in values if math.isfinite(value)]
    ends = (values[0], values[-1], min(finite, default=math.nan), max(finite, default=math.nan))
    return (name, *map(_digits, ends), f"{len(points):,}", sparkline(values, plain=plain))


def _digits(value: float) -> str:
    """Four significant digits."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def _shared(protocols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is the same in all of them."""
    first = protocols[0] if protocols else {}
    return {
        name: value
        for name, value in first.items()
        if all(name in other and other[name] == value for other in protocols)
    }


def _evaluation_cells(one: EvaluationRecord, shared: Mapping[str, Any]) -> tuple[str, ...]:
    scores = (one.miou_percent, one.macc_percent, one.aacc_percent, one.boundary_miou_percent)
    skipped = f" (-{one.num_skipped})" if one.num_skipped else ""
    gmacs = None if one.macs_per_image is None else one.macs_per_image / 1e9
    cells = (one.data, one.split, f"{one.step:,}", *map(_percent, scores), f"{one.num_images:,}{skipped}")
    own = {name: value for name, value in one.protocol.items() if name not in shared}
    return (*cells, number(gmacs), protocol_text(own))


def _cost_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    params = None if row["params"] is None else row["params"] / 1e6
    numbers = (row["throughput_images_per_second"], row["latency_eager_p50_ms"], row["energy_j_per_image"])
    batch = "-" if row["batch"] is None else str(row["batch"])
    named = (row["device_name"] or "-", row["dtype"] or "-", number(row["gmacs"]), number(params), batch)
    return (*named, *map(number, numbers))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Compared:
    """A run with its configuration (as in config.json) and its latest evaluation, if it has one."""

    standing: Standing
    config: Mapping[str, Any]
    evaluation: EvaluationRecord | None


def comparison_table(runs: Sequence[Compared]) -> Table:
    """One column for each run; rows of what they reached, then of all settings in which they are not alike."""
    headings = [f"{place}>" for place in range(1, len(runs) + 1)]
    results = {name: [values[one.standing.run_id] for one in runs] for name, values in results_of(runs).items()}
    rows = [*results.items(), *settings_of(runs)]
    return Table(
        columns("", *headings),
        tuple((name, *map(_cell, values)) for name, values in rows),
        caption="\n".join(f"{place}: {one.standing.run_id}" for place, one in enumerate(runs, start=1)),
    )


def settings_of(runs: Sequence[Compared]) -> list[tuple[str, list[Any]]]:
    """Dotted name and the values, in the order of `runs`, of every setting in which they are not all alike."""
    ids = [one.standing.run_id for one in runs]
    found = config_differences({one.standing.run_id: one.config for one in runs})
    return [(name, [values[run_id] for run_id in ids]) for name, values in found.items()]


def results_of(runs: Sequence[Compared]) -> dict[str, dict[str, Any]]:
    """Name -> value by run id of what the runs reached; None where there is no such number."""
    return {
        "status": {one.standing.run_id: one.standing.status for one in runs},
        "steps": {one.standing.run_id: _steps(one) for one in runs},
        "best_miou_percent": {one.standing.run_id: one.standing.best_miou_percent for one in runs},
        **{name: _scores(runs, name) for name in ("miou_percent", "macc_percent", "aacc_percent")},
        "boundary_miou_percent": _scores(runs, "boundary_miou_percent"),
        "macs_per_image": _scores(runs, "macs_per_image"),
        "hours": {one.standing.run_id: _hours(one) for one in runs},
    }


def cautions(runs: Sequence[Compared]) -> list[str]:
    """Why the numbers may not be compared, one line each; empty when nothing speaks against it."""
    found = []
    trained = {one.standing.run_id: one.standing.record.dataset for one in runs if one.standing.record}
    if len(set(trained.values())) > 1:
        found.append(f"trained on different data ({_listed(trained.values())})")
    scored = [one.evaluation for one in runs if one.evaluation is not None]
    if len({(one.data, one.split) for one in scored}) > 1:
        found.append(f"evaluated on different data ({_listed(f'{one.data} {one.split}' for one in scored)})")
    protocols = {protocol_text(_without_size(one)) for one in scored}
    if len(protocols) > 1:
        found.append(f"evaluated under different protocols ({'; '.join(sorted(protocols))})")
    if scored and len(scored) < len(runs):
        found.append("not all of them were evaluated; `luma eval RUN` does it")
    return found


def comparison_json(runs: Sequence[Compared]) -> dict[str, Any]:
    """Schema 1."""
    ids = [one.standing.run_id for one in runs]
    return {
        "schema": 1,
        "runs": ids,
        "results": results_of(runs),
        "settings": {name: dict(zip(ids, values, strict=True)) for name, values in settings_of(runs)},
        "cautions": cautions(runs),
    }


def _scores(runs: Sequence[Compared], name: str) -> dict[str, Any]:
    return {one.standing.run_id: getattr(one.evaluation, name) if one.evaluation else None for one in runs}


def _steps(one: Compared) -> str | None:
    record = one.standing.record
    return steps_text(record.step, record.num_steps) if record else None


def _hours(one: Compared) -> float | None:
    record = one.standing.record
    return record.seconds / 3600 if record else None


def _without_size(evaluation: EvaluationRecord) -> dict[str, Any]:
    """The protocol but for a window of the run's own resolution, which is what runs are compared by."""
    return {name: value for name, value in evaluation.protocol.items() if value != evaluation.resolution}


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


def _listed(texts: Any) -> str:
    return ", ".join(dict.fromkeys(map(str, texts)))
