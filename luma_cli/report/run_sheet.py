"""The sheet of one run: what it is, its curves, its evaluations, what the same model costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from luma_cli.report.runs import run_json, steps_text
from luma_cli.report.sparkline import sparkline
from luma_cli.report.table import Table, columns, number
from luma_cli.store.records import EvaluationRecord
from luma_cli.train.standing import Standing

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
