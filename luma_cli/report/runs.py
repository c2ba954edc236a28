"""Runs in a terminal, as JSON or CSV: the list, the sheet of one, several side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

from luma_cli.report.evaluation import class_table, unknown_table
from luma_cli.report.table import Table, columns, number, print_csv, print_json, print_table, sparkline
from luma_cli.store.records import EvaluationRecord
from luma_cli.train.config import config_differences
from luma_cli.train.runs import Standing

SCHEMA = 1
_COLUMNS = (
    *("run_id", "backbone", "timm_name", "pretraining", "weights", "resolution_pixels", "head", "dataset", "recipe"),
    *("seed", "status", "reason", "step", "num_steps", "batch", "num_processes", "best_miou_percent", "started_at"),
    *("seconds", "device_name", "folder", "resume"),
)
# Of the view `score_costs`.
COSTS = (
    *("device_name", "dtype", "batch", "gmacs", "params", "throughput_images_per_second", "latency_eager_p50_ms"),
    *("memory_device_bytes", "energy_j_per_image"),
)
_EVALUATION = (
    *("checkpoint_sha256", "step", "data", "split", "resolution", "protocol", "num_images", "num_skipped"),
    *("num_classes", "num_present", "miou_percent", "macc_percent", "aacc_percent", "boundary_miou_percent"),
    *("windows_per_image", "macs_per_image", "seconds", "evaluated_at"),
)
_SCORES = ("miou_percent", "macc_percent", "aacc_percent", "boundary_miou_percent", "macs_per_image")

Curves = Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class Kept:
    """All that folder and database know of a run; JSON is schema 1.

    config: as in config.json. evaluations: oldest first; unknown: those on unknown objects. costs: profiles of the same
    model, by the columns COSTS.
    """

    standing: Standing
    config: Mapping[str, Any]
    checkpoints: Sequence[str] = ()
    curves: Curves = field(default_factory=dict)
    evaluations: Sequence[EvaluationRecord] = ()
    unknown: Sequence[EvaluationRecord] = ()
    costs: Sequence[Mapping[str, Any]] = ()

    @property
    def latest(self) -> EvaluationRecord | None:
        """The newest evaluation, None without any."""
        return self.evaluations[-1] if self.evaluations else None

    def __json__(self) -> dict[str, Any]:
        one = self.standing
        unbounded = [name for name, points in self.curves.items() if not all(math.isfinite(each) for _, each in points)]
        return {
            "schema": SCHEMA,
            "run": run_json(one),
            "config": self.config,
            "facts": one.record.facts if one.record else {},
            "checkpoints": self.checkpoints,
            "curves": self.curves,
            "not_finite": unbounded,  # a value that is not finite is null in `curves`
            "evaluations": [evaluation_json(evaluation) for evaluation in self.evaluations],
            "unknown": [evaluation_json(evaluation) | {"scores": evaluation.scores} for evaluation in self.unknown],
            "costs": self.costs,
        }


def print_runs(standings: Sequence[Standing], file: TextIO, *, as_json: bool = False, as_csv: bool = False) -> None:
    """Print the list of runs to `file`; JSON is schema 1."""
    rows = [run_json(one) for one in standings]
    if as_json:
        print_json({"schema": SCHEMA, "runs": rows}, file)
    elif as_csv:
        print_csv(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows], file)
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


def _cells(one: Standing) -> tuple[str, ...]:
    record = one.record
    if record is None:
        return (one.run_id, *("",) * 5, one.status, *("",) * 3)
    return (
        *(one.run_id, record.backbone, str(record.resolution), record.head, record.dataset, record.recipe, one.status),
        *(_steps(one) or "", number(one.best_miou_percent, 2), record.started_at[:16].replace("T", " ")),
    )


def run_json(one: Standing) -> dict[str, Any]:
    """What `luma runs list --json` says of a run; null is not known."""
    record = one.record
    known = {name: getattr(record, name, None) for name in _COLUMNS}
    return known | {
        "run_id": one.run_id,
        "status": one.status,
        "resolution_pixels": record.resolution if record else None,
        "device_name": record.environment.identity.get("device_name") if record else None,
        "best_miou_percent": one.best_miou_percent,
        "folder": str(one.folder.path) if one.folder else known["folder"],
        "resume": one.resume or None,
    }


def _steps(one: Standing) -> str | None:
    return f"{one.record.step:,}/{one.record.num_steps:,}" if one.record else None


def print_sheet(kept: Kept, classes: bool, plain: bool) -> None:
    """Print one run: facts, curves, evaluations, costs, and with `classes` every class of the latest evaluation."""
    print_table(facts_table(kept))
    if kept.curves:
        print_table(curves_table(kept.curves, plain=plain))
    if kept.evaluations:
        print_table(evaluations_table(kept.evaluations))
    if kept.unknown:
        print_table(unknown_table(kept.unknown))
    if any(row["device_name"] for row in kept.costs):
        print_table(costs_table(kept.costs))
    if classes and (latest := kept.latest) is not None:
        present = f"percent; {latest.num_present} of {latest.num_classes} classes are present"
        title = f"{latest.data} {latest.split}, step {latest.step:,}"
        print_table(replace(class_table(latest), title=title, caption=present))


def facts_table(kept: Kept) -> Table:
    """The known facts of the run, by name."""
    one, config, record = kept.standing, kept.config, kept.standing.record
    recipe = config.get("recipe", {})
    found = {
        "run": one.run_id,
        "status": f"{one.status}{f': {record.reason}' if record and record.reason else ''}",
        "held by": str(one.holder) if one.holder else "",
        "resume": one.resume,
        "folder": str(one.folder.path) if one.folder else f"{record.folder} (not here)" if record else "",
        "checkpoints": ", ".join(kept.checkpoints),
        "backbone": config.get("backbone", ""),
        "weights": config.get("weights", ""),
        "head": _head_text(config.get("head", {})),
        "resolution": f"{config['resolution']} px" if "resolution" in config else "",
        "data": record.dataset if record else config.get("data", ""),
        "recipe": record.recipe if record else recipe.get("name", ""),
        "changed": ", ".join(f"{name}={recipe.get(name)}" for name in config.get("recipe_changed", ())),
        "seed": str(config.get("seed", "")),
    }
    if record:
        processes = f" over {record.num_processes} processes" if record.num_processes > 1 else ""
        found |= {
            "batch": f"{record.batch}{processes}",
            "steps": _steps(one) or "",
            "trained for": f"{record.seconds / 3600:.2f} h",
            "started": record.started_at,
            "device": str(record.environment.identity.get("device_name", "")),
            "best mIoU": _percent(one.best_miou_percent),
        }
    return Table(columns("fact", "value~"), tuple((name, text) for name, text in found.items() if text))


def _head_text(head: Mapping[str, Any]) -> str:
    name = head.get("name", "")
    options = [f"{key}={value}" for key, value in head.items() if key != "name"] if name != "none" else []
    return f"{name}: {', '.join(options)}" if options else str(name)


def curves_table(curves: Curves, *, plain: bool = False) -> Table:
    """One row for each metric: first, last, lowest and highest value, and a sparkline, in ASCII where `plain`."""
    rows = []
    for name, points in curves.items():
        if points:
            values = [value for _, value in points]
            finite = [value for value in values if math.isfinite(value)]
            ends = (values[0], values[-1], min(finite, default=math.nan), max(finite, default=math.nan))
            rows.append((name, *map(_digits, ends), f"{len(points):,}", sparkline(values, plain=plain)))
    return Table(columns("metric", "first>", "last>", "lowest>", "highest>", "steps>", "course"), tuple(rows))


def _digits(value: float) -> str:
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"


def evaluations_table(evaluations: Sequence[EvaluationRecord]) -> Table:
    """One row for each evaluation, oldest first. What all protocols share is in the caption."""
    shared = {
        name: value
        for name, value in (evaluations[0].protocol if evaluations else {}).items()
        if all(name in one.protocol and one.protocol[name] == value for one in evaluations)
    }
    rows = []
    for one in evaluations:
        scores = (one.miou_percent, one.macc_percent, one.aacc_percent, one.boundary_miou_percent)
        images = f"{one.num_images:,}" + (f" (-{one.num_skipped})" if one.num_skipped else "")
        gmacs = number(None if one.macs_per_image is None else one.macs_per_image / 1e9)
        own = protocol_text({name: value for name, value in one.protocol.items() if name not in shared})
        rows.append((one.data, one.split, f"{one.step:,}", *map(_percent, scores), images, gmacs, own))
    return Table(
        columns("data", "split", "step>", "mIoU>", "mAcc>", "aAcc>", "boundary>", "images>", "GMACs/img>", "protocol~"),
        tuple(rows),
        caption=f"percent; GMACs per average image, over all its windows\n{protocol_text(shared)}".strip(),
    )


def costs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The cost of the same model in each profile of it."""
    cells = []
    for row in rows:
        params = None if row["params"] is None else row["params"] / 1e6
        batch = "-" if row["batch"] is None else str(row["batch"])
        measured = (row["throughput_images_per_second"], row["latency_eager_p50_ms"], row["energy_j_per_image"])
        named = (row["device_name"] or "-", row["dtype"] or "-", number(row["gmacs"]), number(params), batch)
        cells.append((*named, *map(number, measured)))
    return Table(
        columns("device", "dtype", "GMACs>", "params M>", "batch>", "img/s>", "ms p50>", "J/img>"),
        tuple(cells),
        caption="profiles of the same model, one crop at the run's resolution",
    )


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """E.g. `flip=False, window=512`."""
    return ", ".join(f"{name}={value}" for name, value in sorted(protocol.items()))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def evaluation_json(evaluation: EvaluationRecord) -> dict[str, Any]:
    """An evaluation without its images."""
    parts = ("name", "iou_percent", "accuracy_percent", "boundary_iou_percent")
    classes = [{name: getattr(one, name) for name in parts} for one in evaluation.classes]
    return {name: getattr(evaluation, name) for name in _EVALUATION} | {"classes": classes}


def comparison_table(runs: Sequence[Kept]) -> Table:
    """One column for each run: its results, then every setting that differs."""
    rows = [*_results(runs).items(), *_settings(runs).items()]
    return Table(
        columns("", *(f"{place}>" for place in range(1, len(runs) + 1))),
        tuple((name, *map(_cell, values.values())) for name, values in rows),
        caption="\n".join(f"{place}: {one.standing.run_id}" for place, one in enumerate(runs, start=1)),
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


def _results(runs: Sequence[Kept]) -> dict[str, dict[str, Any]]:
    """Name -> value by run id of the runs' results; None where there is no such number."""

    def values(kept: Kept) -> dict[str, Any]:
        one, record = kept.standing, kept.standing.record
        found = {"status": one.status, "steps": _steps(one), "best_miou_percent": one.best_miou_percent}
        found |= {name: getattr(kept.latest, name, None) for name in _SCORES}
        return found | {"hours": record.seconds / 3600 if record else None}

    by_run = {kept.standing.run_id: values(kept) for kept in runs}
    names = next(iter(by_run.values()), {})
    return {name: {run: found[name] for run, found in by_run.items()} for name in names}


def _settings(runs: Sequence[Kept]) -> dict[str, dict[str, Any]]:
    """Dotted name -> value by run id of every setting that is not the same for all."""
    return config_differences({kept.standing.run_id: kept.config for kept in runs})


def cautions(runs: Sequence[Kept]) -> list[str]:
    """Reasons not to compare the numbers, one line each."""
    found = []
    trained = [kept.standing.record.dataset for kept in runs if kept.standing.record]
    if len(set(trained)) > 1:
        found.append(f"trained on different data ({_listed(trained)})")
    scored = [kept.latest for kept in runs if kept.latest is not None]
    if len({(one.data, one.split) for one in scored}) > 1:
        found.append(f"evaluated on different data ({_listed(f'{one.data} {one.split}' for one in scored)})")
    protocols = {protocol_text(_without_size(one)) for one in scored}
    if len(protocols) > 1:
        found.append(f"evaluated under different protocols ({'; '.join(sorted(protocols))})")
    if scored and len(scored) < len(runs):
        found.append("some were not evaluated; run `luma eval RUN`")
    return found


def _without_size(evaluation: EvaluationRecord) -> dict[str, Any]:
    """The protocol without a window of the run's own resolution: runs are compared by resolution."""
    return {name: value for name, value in evaluation.protocol.items() if value != evaluation.resolution}


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def comparison_json(runs: Sequence[Kept]) -> dict[str, Any]:
    """Schema 1."""
    return {
        "schema": SCHEMA,
        "runs": [kept.standing.run_id for kept in runs],
        "results": _results(runs),
        "settings": _settings(runs),
        "cautions": cautions(runs),
    }
