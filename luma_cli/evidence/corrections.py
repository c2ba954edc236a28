"""Known errors of the published table, as data: `profiles/reference/corrections.csv`.

One line corrects one column of one row: `id,column,old,new,reason`. `old` is what cleaning gives before the correction,
so that a correction which no longer applies is noticed. Column `id` with an empty `new` drops the row.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luma_cli import files
from luma_cli.errors import BadCard
from luma_cli.evidence.evidence import COLUMNS, Evidence, of_row, to_row

FIELDS = ("id", "column", "old", "new", "reason")


@dataclass(frozen=True, slots=True)
class Correction:
    """One column of one row, as it was transcribed and as it should be, and how we know."""

    id: str
    column: str
    old: str
    new: str
    reason: str

    @property
    def drops(self) -> bool:
        """Whether the row is taken out altogether."""
        return self.column == "id" and not self.new


def corrections_path() -> Path:
    """The shipped corrections."""
    return files.root() / "profiles" / "reference" / "corrections.csv"


def read_corrections(path: Path) -> list[Correction]:
    """Every correction. Raises BadCard, naming file and line, for an unknown column or a missing reason."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise BadCard(f"{path}: columns are {reader.fieldnames}, expected {list(FIELDS)}")
        return [_correction(f"{path}, line {reader.line_num}", row) for row in reader]


def _correction(where: str, row: Mapping[str, str]) -> Correction:
    found = Correction(**{name: row[name] or "" for name in FIELDS})
    if found.column not in COLUMNS:
        raise BadCard(f"{where}: column {found.column!r} is none of {list(COLUMNS)}")
    if not found.reason:
        raise BadCard(f"{where}: {found.id} has no reason; say how it is known")
    return found


def correct(evidence: Sequence[Evidence], corrections: Iterable[Correction]) -> list[Evidence]:
    """The rows with every correction applied, in the same order.

    Raises BadCard for a correction of a row that is not there or whose column does not hold `old`.
    """
    wanted: dict[str, list[Correction]] = defaultdict(list)
    for correction in corrections:
        wanted[correction.id].append(correction)
    if unknown := sorted(wanted.keys() - {row.id for row in evidence}):
        raise BadCard(f"corrections name rows that are not there: {', '.join(unknown)}")
    kept = (_corrected(row, wanted[row.id]) if row.id in wanted else row for row in evidence)
    return [row for row in kept if row is not None]


def _corrected(row: Evidence, corrections: Sequence[Correction]) -> Evidence | None:
    texts = to_row(row)
    for correction in corrections:
        if correction.drops:
            return None
        if texts[correction.column] != correction.old:
            raise BadCard(
                f"{row.id}: {correction.column} is {texts[correction.column]!r}, the correction expects "
                f"{correction.old!r}; look at it again"
            )
        texts[correction.column] = correction.new
    return of_row(f"correction of {row.id}", texts)
