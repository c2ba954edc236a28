"""Runs side by side: in what they differ, what they reached, and whether the numbers may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luma_cli.report.run_sheet import protocol_text
from luma_cli.report.runs import steps_text
from luma_cli.report.table import Table, columns
from luma_cli.store.records import EvaluationRecord
from luma_cli.train.resume import config_differences
from luma_cli.train.standing import Standing


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
