"""Pieces of evidence as rows behind a claim."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from luma_cli.evidence.evidence import Evidence
from luma_cli.findings.finding import Row


def rows_of(evidence: Iterable[Evidence], ids: Collection[str]) -> tuple[Row, ...]:
    """The evidence with these ids, in order of id."""
    return tuple(sorted(_row(each) for each in evidence if each.id in ids))


def _row(row: Evidence) -> Row:
    objective = row.pretraining if row.pretraining not in ("", "other") else row.pretraining_raw
    says = f"{row.miou_percent:.1f} mIoU, {row.backbone}, {objective}, {row.size}, {row.scale.label}"
    return Row(row.id, says, row.source)
