"""Which rows of the table of results are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from luma_cli.evidence.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters that must all hold; empty ones do not count. Texts are compared without regard to case.

    dataset, head, pretraining, provenance, regime: the whole word. backbone: part of the name, or of the timm name.
    source: part of it. doubtful: only rows that are (True) or are not (False). imported: only such rows.
    """

    dataset: str = ""
    head: str = ""
    backbone: str = ""
    pretraining: str = ""
    provenance: str = ""
    regime: str = ""
    source: str = ""
    doubtful: bool | None = None
    imported: bool = False

    def of(self, rows: Iterable[Evidence]) -> list[Evidence]:
        """The rows for which every filter holds, in their order."""
        return [row for row in rows if self._holds(row)]

    def _holds(self, row: Evidence) -> bool:
        whole = ("dataset", "head", "pretraining", "provenance", "regime")
        if any(_differs(getattr(self, name), getattr(row, name)) for name in whole):
            return False
        if self.backbone and self.backbone.lower() not in f"{row.backbone}\n{row.timm}".lower():
            return False
        if self.source and self.source.lower() not in row.source.lower():
            return False
        if self.imported and not row.id.startswith("imp-"):
            return False
        return self.doubtful is None or self.doubtful == bool(row.doubtful)


def _differs(asked: str, value: str) -> bool:
    return bool(asked) and asked.lower() != value.lower()
