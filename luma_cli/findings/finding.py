"""A claim of the benchmark (arXiv 2607.00687), its verdict, and the evidence that the verdict rests on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from luma_cli.evidence.evidence import Evidence

Verdict = Literal["supported", "contradicted", "not enough evidence"]
SUPPORTED: Verdict = "supported"
CONTRADICTED: Verdict = "contradicted"
UNDECIDED: Verdict = "not enough evidence"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its central 90% interval; both ends are None where there is too little to resample."""

    value: float
    low: float | None = None
    high: float | None = None


def below(interval: Interval | None, limit: float) -> bool:
    """Whether the whole interval lies below `limit`; false without one."""
    return interval is not None and interval.high is not None and interval.high < limit


def above(interval: Interval | None, limit: float) -> bool:
    """Whether the whole interval lies above `limit`; false without one."""
    return interval is not None and interval.low is not None and interval.low > limit


def position(interval: Interval | None, limit: float) -> str:
    """Where the interval lies, in words: `lies below 1`, `lies above 1`, `includes 1`, `is not known`."""
    if interval is None or interval.low is None:
        return "is not known"
    said = "lies below" if below(interval, limit) else "lies above" if above(interval, limit) else "includes"
    return f"{said} {limit:g}"


def judge(supported: bool, contradicted: bool) -> Verdict:
    """The verdict; a contradiction weighs more."""
    return CONTRADICTED if contradicted else SUPPORTED if supported else UNDECIDED


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that decides a claim.

    value: None where nothing could be computed, and `why_not` says why. unit: `points`, `r`, `x` or empty. counts: what
    it was computed from, e.g. `30 pairs, 9 sources`. digits: decimals worth printing.
    """

    what: str
    value: Interval | None
    unit: str = ""
    counts: str = ""
    why_not: str = ""
    digits: int = 2

    def __json__(self) -> dict[str, Any]:
        """Fields as `luma findings --json` prints them; the interval covers 90%."""
        value = self.value
        return {
            "what": self.what,
            "value": value and value.value,
            "interval_90": None if value is None or value.low is None else [value.low, value.high],
            "unit": self.unit or None,
            "counts": self.counts or None,
            "why_not": self.why_not or None,
        }


@dataclass(frozen=True, slots=True, order=True)
class EvidenceRow:
    """One piece of evidence behind a claim: its id (`ref-0123`, a run, a profile), what it says, its source."""

    id: str
    says: str
    source: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim and what the evidence says about it.

    name: what `--claim` takes. rule: how the verdict is reached, one sentence. because: why this verdict. settle:
    commands that bring the missing evidence, none once the claim is decided. rows: all that entered a figure, by id.
    """

    name: str
    claim: str
    rule: str
    verdict: Verdict = UNDECIDED
    because: str = ""
    figures: tuple[Figure, ...] = ()
    settle: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rows: tuple[EvidenceRow, ...] = field(default=(), metadata={"json": None})

    JSON_ALSO: ClassVar = ("num_rows",)

    @property
    def num_rows(self) -> int:
        """How many pieces of evidence it rests on."""
        return len(self.rows)

    def concluded(
        self, verdict: Verdict, because: str, figures: list[Figure], rows: list[EvidenceRow], settle: list[str]
    ) -> Finding:
        """The same claim with what was found."""
        commands, ordered = tuple(settle) if verdict == UNDECIDED else (), tuple(sorted(set(rows)))
        return replace(self, verdict=verdict, because=because, figures=tuple(figures), settle=commands, rows=ordered)


def rows_of(evidence: Iterable[Evidence], ids: Collection[str]) -> list[EvidenceRow]:
    """The evidence with these ids as rows behind a claim."""
    found = []
    for row in evidence:
        if row.id in ids:
            objective = row.pretraining if row.pretraining not in ("", "other") else row.pretraining_raw
            says = f"{row.miou_percent:.1f} mIoU, {row.backbone}, {objective}, {row.size}, {row.scale.label}"
            found.append(EvidenceRow(row.id, says, row.source))
    return found
