"""Published and own results as a table, JSON or CSV, and the outcome of an import."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from luma_cli.catalogue.pretraining import objective_named
from luma_cli.evidence.cleaning import OTHER
from luma_cli.evidence.evidence import COLUMNS, DATASET_TITLES, HEAD_TITLES, Evidence, to_row
from luma_cli.evidence.imported import Imported
from luma_cli.report.table import Column, Table, columns, number, print_csv, print_json, print_table
from luma_cli.units import counted

SCHEMA = 1
# Rejections that are printed; --json has all.
_SHOWN = 20
# Provenances in the order of the tables, with their name for one result and for several.
_COUNTED = {
    "own run": ("own run", "own runs"),
    "published LUMA": ("published LUMA figure", "published LUMA figures"),
    "other head": ("figure of another head", "figures of other heads"),
}
_NONE = "no result matches; `luma evidence list` without filters shows all"
_TESTS = {"single-scale": "", "ms+flip": " ms", "": " scales?"}
_COLUMNS = columns("id", "mIoU %>", "backbone~", "pretraining~", "at", "head~")


def print_evidence(rows: Sequence[Evidence], total: int, limit: int, as_json: bool = False) -> None:
    """Print results to stdout, `limit` of each dataset; JSON has all. total: results before filters."""
    if as_json:
        print_json(evidence_json(rows, total))
        return
    for table in evidence_tables(rows, limit):
        print_table(table)


def evidence_tables(rows: Sequence[Evidence], limit: int) -> list[Table]:
    """One table for each dataset: own runs, LUMA's, then others, best mIoU first; `limit` rows of each, all when 0."""
    if not rows:
        return [Table(_COLUMNS, (), caption=_NONE)]
    order = {name: place for place, name in enumerate(_COUNTED)}
    by_dataset: dict[str, list[Evidence]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.dataset, order[row.provenance], -row.miou_percent, row.id)):
        by_dataset[row.dataset].append(row)
    tables = [_table(dataset, found, limit) for dataset, found in by_dataset.items()]
    total = [f"all datasets: {_results(rows)}"] if len(tables) > 1 else []
    lines = [tables[-1].caption, *total, *_legend(rows)]
    return [*tables[:-1], replace(tables[-1], caption="\n".join(filter(None, lines)))]


def _table(dataset: str, rows: Sequence[Evidence], limit: int) -> Table:
    shown = rows[:limit] if limit else rows
    left_out = len(rows) - len(shown)
    return Table(
        _COLUMNS,
        tuple(_cells(row) for row in shown),
        title=f"{DATASET_TITLES.get(dataset, dataset)}: {_results(rows)}",
        caption=f"{left_out} more: --limit 0 shows all; --head, --backbone, ... filter" if left_out else "",
    )


def _results(rows: Sequence[Evidence]) -> str:
    return f"{counted(len(rows), 'result')}, {by_provenance(rows)}"


def by_provenance(rows: Sequence[Evidence]) -> str:
    """e.g. `12 own runs, 1 published LUMA figure, 984 figures of other heads (40 imported)`."""
    counts = Counter[str](row.provenance for row in rows)
    said = ", ".join(
        f"{counts[name]} {one if counts[name] == 1 else many}" for name, (one, many) in _COUNTED.items() if counts[name]
    )
    imported = sum(row.id.startswith("imp-") for row in rows)
    return said + (f" ({imported} imported)" if imported else "")


def _cells(row: Evidence) -> tuple[str, ...]:
    digits = 1 if row.miou_percent == round(row.miou_percent, 1) else 2
    miou = number(row.miou_percent, digits) + ("?" if row.doubtful else "") + ("+" if row.extra_data else "")
    size = str(row.height or "-") if row.height == row.width else row.size
    head = HEAD_TITLES.get(row.head, row.head).replace("+", " + ") or "not stated"
    said = ", ".join(filter(None, (row.recipe, "frozen" if row.regime == "frozen" else "")))
    head += f" ({said})" if said else ""
    return (row.id, miou, row.backbone, _objective(row), size + _TESTS[row.eval], head)


def _objective(row: Evidence) -> str:
    """The shortest spelling of the objective; as published where luma does not know it."""
    if row.pretraining in ("", OTHER):
        return row.pretraining_raw or "-"
    found = objective_named(row.pretraining)
    return min(found.aliases, key=len, default=row.pretraining) if found else row.pretraining


def _legend(rows: Sequence[Evidence]) -> list[str]:
    legend = "at: training crop in pixels; ms: tested at several scales and with flips. Do not compare figures of two "
    legend += "heads, or with and without ms. `luma evidence show ID`: source"
    lines = [legend, *(["+ trained with more labelled images"] if any(row.extra_data for row in rows) else [])]
    return lines + (["? doubtful: `luma evidence show ID` says why"] if any(row.doubtful for row in rows) else [])


def evidence_json(rows: Sequence[Evidence], total: int) -> dict[str, Any]:
    """Schema 1: every column of every row, null where it is not known."""
    return {
        "schema": SCHEMA,
        "rows": len(rows),
        "rows_before_filters": total,
        "by_provenance": dict(sorted(Counter(row.provenance for row in rows).items())),
        "evidence": [{name: getattr(row, name) for name in COLUMNS} for row in rows],
    }


def evidence_csv(rows: Sequence[Evidence]) -> str:
    """CSV that `luma evidence import` can read back."""
    text = io.StringIO(newline="")
    print_csv(COLUMNS, [[to_row(row)[name] for name in COLUMNS] for row in rows], text)
    return text.getvalue()


def row_table(row: Evidence) -> Table:
    """One row, a line for each column with a value."""
    said = [(name, text) for name, text in to_row(row).items() if text]
    return Table((Column("column"), Column("value", fold=True)), tuple(said), title=f"{row.id}: {row.scale.label}")


def print_import(imported: Imported, dry_run: bool, as_json: bool = False) -> None:
    """Print the outcome of an import to stdout, or as JSON, schema 1."""
    if not as_json:
        print("\n".join(_import_lines(imported, dry_run)))
        return
    names = ("file", "known", "merged", "rejected", "notes")
    contradictions = [{"ids": [row.id for row in each.rows], "text": each.text} for each in imported.contradictions]
    found = {name: getattr(imported, name) for name in names} | {"rows_read": imported.records}
    found |= {"new": [row.id for row in imported.new], "contradictions": contradictions}
    print_json({"schema": SCHEMA, "dry_run": dry_run, **found})


def _import_lines(imported: Imported, dry_run: bool) -> list[str]:
    verb = "would be taken in" if dry_run else "taken in"
    parts = [f"{len(imported.new)} {verb}"]
    parts += [f"{imported.known} known already"] if imported.known else []
    parts += [f"{counted(imported.merged, 'exact duplicate')} merged"] if imported.merged else []
    parts += [f"{len(imported.rejected)} rejected"] if imported.rejected else []
    lines = [f"{imported.file}: {imported.records} rows read: {', '.join(parts)}"]
    lines += [f"  rejected row {each.row} (line {each.line}): {each.reason}" for each in imported.rejected[:_SHOWN]]
    if len(imported.rejected) > _SHOWN:
        lines.append(f"  {len(imported.rejected) - _SHOWN} more rejected; --json lists them")
    lines += [f"  contradiction, doubtful: {each.text}" for each in imported.contradictions]
    return lines + [f"  note: {note}" for note in imported.notes]
