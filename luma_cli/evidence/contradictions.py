"""Imported results that contradict each other: the same model under the same protocol, printed with another mIoU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from luma_cli.evidence.evidence import Evidence

# Two trainings of one model differ by less: seeds by about 0.3 points, a source's two tables by rounding.
TOLERANCE_POINTS = 1.0


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Rows of one model, protocol and source whose mIoU is more than one point apart."""

    rows: tuple[Evidence, ...]

    @property
    def text(self) -> str:
        """e.g. `vit_b, EoMT, ..., 512x512 (my table): 48.1 and 51.3 mIoU`."""
        first = self.rows[0]
        figures = " and ".join(f"{value:.4g}" for value in sorted({row.miou_percent for row in self.rows}))
        return f"{first.backbone}, {first.scale.label}, {first.size} ({first.source}): {figures} mIoU"


def contradictions(rows: Sequence[Evidence]) -> list[Contradiction]:
    """Every group of `rows` that cannot all be right, in the order of its first row."""
    groups: dict[object, list[Evidence]] = defaultdict(list)
    for row in rows:
        groups[_subject(row)].append(row)
    return [Contradiction(tuple(group)) for group in groups.values() if _spread_points(group) > TOLERANCE_POINTS]


def marked(rows: Sequence[Evidence], beside: Sequence[Evidence] = ()) -> list[Evidence]:
    """`rows`, those doubtful that contradict another of them or one of `beside`, which stay as they are."""
    doubts: dict[str, str] = {}
    for contradiction in contradictions([*rows, *beside]):
        for row in contradiction.rows:
            others = sorted({f"{other.miou_percent:.4g}" for other in contradiction.rows if other is not row})
            doubts[row.id] = f"the same source also has {', '.join(others)} mIoU for it"
    return [
        replace(row, doubtful="; ".join(filter(None, (row.doubtful, doubts[row.id])))) if row.id in doubts else row
        for row in rows
    ]


def _subject(row: Evidence) -> tuple[object, ...]:
    model = (row.backbone, row.pretraining, row.pretraining_raw, row.pretraining_data, row.extra_data)
    return (*model, row.height, row.width, row.scale, row.schedule, row.source)


def _spread_points(group: Sequence[Evidence]) -> float:
    figures = [row.miou_percent for row in group]
    return max(figures) - min(figures)
