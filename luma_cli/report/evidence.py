"""The table of results as a table, JSON or CSV, and what an import did."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

from luma_cli.evidence.evidence import COLUMNS, HEAD_TITLES, Evidence, to_row
from luma_cli.evidence.imported import Imported
from luma_cli.report.table import Column, Table, columns, number

SCHEMA = 1
# Rejections that are printed; --json has all.
_SHOWN = 20
_COUNTED = {"own run": ("own run", "own runs"), "published LUMA": ("published LUMA figure", "published LUMA figures"),
            "other head": ("figure of another head", "figures of other heads")}  # fmt: skip
_ORDER = {"own run": 0, "published LUMA": 1, "other head": 2}
_NONE = "no result matches; `luma evidence list` without filters shows what there is"
_EVALS = {"single-scale": "1 scale", "ms+flip": "ms+flip", "": "-"}


def evidence_table(rows: Sequence[Evidence], limit: int, total: int) -> Table:
    """The first `limit` rows, best mIoU of each dataset first; all when it is 0. total: rows before any filter."""
    ordered = sorted(rows, key=lambda row: (row.dataset, _ORDER[row.provenance], -row.miou_percent, row.id))
    shown = ordered[:limit] if limit else ordered
    return Table(
        columns("id", "dataset", "backbone~", "pretraining~", "px", "head~", "test", "mIoU %>"),
        tuple(_cells(row) for row in shown),
        title=f"{len(rows)} of {total} results: {by_provenance(rows)}" if rows else "",
        caption="\n".join(_caption(shown, len(ordered) - len(shown))) if rows else _NONE,
    )


def by_provenance(rows: Sequence[Evidence]) -> str:
    """e.g. `12 own runs, 1 published LUMA figure, 984 figures of other heads (40 imported)`."""
    counts = Counter[str](row.provenance for row in rows)
    said = ", ".join(
        f"{counts[name]} {one if counts[name] == 1 else many}" for name, (one, many) in _COUNTED.items() if counts[name]
    )
    imported = sum(row.id.startswith("imp-") for row in rows)
    return said + (f" ({imported} imported)" if imported else "")


def _cells(row: Evidence) -> tuple[str, ...]:
    recipe = f" ({row.recipe})" if row.recipe else ""
    return (
        row.id,
        row.dataset,
        row.backbone,
        row.pretraining_raw if row.pretraining in ("", "other") else row.pretraining,
        str(row.height) if row.height and row.height == row.width else row.size if row.height else "-",
        f"{HEAD_TITLES.get(row.head, row.head) or '-'}{recipe}{', frozen' if row.regime == 'frozen' else ''}",
        _EVALS[row.eval],
        number(row.miou_percent, 2 if row.miou_percent != round(row.miou_percent, 1) else 1) + _mark(row),
    )


def _mark(row: Evidence) -> str:
    return ("?" if row.doubtful else "") + ("+" if row.extra_data else "")


def _caption(shown: Sequence[Evidence], left_out: int) -> list[str]:
    lines = [f"{left_out} more: --limit 0 shows all, --dataset, --head, --backbone narrow them"] if left_out else []
    lines.append("test: at one scale, or several and flips (ms+flip); figures of two heads or tests do not compare")
    if any(row.extra_data for row in shown):
        lines.append("+ trained with further labelled images")
    if any(row.doubtful for row in shown):
        lines.append("? doubtful; `--json` says why")
    return lines


def evidence_json(rows: Sequence[Evidence], total: int) -> dict[str, Any]:
    """Schema 1: every column of every row, null where a number is not known."""
    return {
        "schema": SCHEMA,
        "rows": len(rows),
        "rows_before_filters": total,
        "by_provenance": dict(sorted(Counter(row.provenance for row in rows).items())),
        "evidence": [{name: getattr(row, name) for name in COLUMNS} for row in rows],
    }


def evidence_csv(rows: Sequence[Evidence]) -> str:
    """CSV that `luma evidence import` reads back as it is."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(to_row(row) for row in rows)
    return text.getvalue()


def row_table(row: Evidence) -> Table:
    """All that is known of one row, a line for each column that says something."""
    said = [(name, text) for name, text in to_row(row).items() if text]
    return Table((Column("column"), Column("value", fold=True)), tuple(said), title=f"{row.id}: {row.scale.label}")


def import_lines(imported: Imported, dry_run: bool) -> list[str]:
    """What an import did, one line each."""
    verb = "would be taken in" if dry_run else "taken in"
    parts = [f"{len(imported.new)} {verb}"]
    parts += [f"{imported.known} known already"] if imported.known else []
    parts += [f"{imported.merged} exact duplicate{'s' * (imported.merged > 1)} merged"] if imported.merged else []
    parts += [f"{len(imported.rejected)} rejected"] if imported.rejected else []
    lines = [f"{imported.file}: {imported.records} rows read: {', '.join(parts)}"]
    lines += [f"  rejected row {each.row} (line {each.line}): {each.reason}" for each in imported.rejected[:_SHOWN]]
    if len(imported.rejected) > _SHOWN:
        lines.append(f"  {len(imported.rejected) - _SHOWN} more rejected; --json lists them")
    lines += [f"  contradiction, doubtful: {each.text}" for each in imported.contradictions]
    return lines + [f"  note: {note}" for note in imported.notes]


def import_json(imported: Imported, dry_run: bool) -> dict[str, Any]:
    """Schema 1."""
    return {
        "schema": SCHEMA,
        "file": str(imported.file),
        "dry_run": dry_run,
        "rows_read": imported.records,
        "new": [row.id for row in imported.new],
        "known": imported.known,
        "merged": imported.merged,
        "rejected": [{"row": each.row, "line": each.line, "reason": each.reason} for each in imported.rejected],
        "contradictions": [
            {"ids": [row.id for row in each.rows], "text": each.text} for each in imported.contradictions
        ],
        "notes": list(imported.notes),
    }
