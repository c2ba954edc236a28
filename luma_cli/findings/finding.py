"""A claim of the benchmark (arXiv 2607.00687) with its verdict and everything that the verdict rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["supported", "contradicted", "not enough evidence"]
SUPPORTED: Verdict = "supported"
CONTRADICTED: Verdict = "contradicted"
UNDECIDED: Verdict = "not enough evidence"


def one_line(text: str) -> str:
    """Text of several source lines as one line."""
    return " ".join(text.split())


def counted(number: int, one: str) -> str:
    """A number of things: `1 source`, `3 sources`."""
    return f"{number} {one}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its central 90% interval, both ends None where there is too little to resample."""

    value: float
    low: float | None = None
    high: float | None = None

    def below(self, limit: float) -> bool:
        """Whether the whole interval lies below `limit`."""
        return self.high is not None and self.high < limit

    def above(self, limit: float) -> bool:
        """Whether the whole interval lies above `limit`."""
        return self.low is not None and self.low > limit


@dataclass(frozen=True, slots=True)
class Figure:
    """One number behind a verdict.

    what: e.g. `gap between two objectives, fine-tuned, ADE20K`. value: None where nothing could be computed, and
    `why_not` says why. unit: `points`, `r`, `x`, `%`. counts: what it was computed from, e.g. `30 pairs, 9 sources`.
    decides: whether the rule looks at it. digits: decimals worth printing.
    """

    what: str
    value: Interval | None
    unit: str = ""
    counts: str = ""
    why_not: str = ""
    decides: bool = True
    digits: int = 2

    def to_json(self) -> dict[str, Any]:
        """Fields as `luma findings --json` prints them; the interval covers 90%."""
        value = self.value
        has_interval = value is not None and value.low is not None
        return {
            "what": self.what,
            "value": None if value is None else value.value,
            "interval_90": [value.low, value.high] if value is not None and has_interval else None,
            "unit": self.unit or None,
            "counts": self.counts or None,
            "why_not": self.why_not or None,
            "decides": self.decides,
        }


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """One piece of evidence behind a claim: its id (`ref-0123`, a run, a profile), what it says, its source."""

    id: str
    says: str
    source: str

    def to_json(self) -> dict[str, str]:
        """The fields by name."""
        return {"id": self.id, "says": self.says, "source": self.source}


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim and what the evidence says about it.

    name: what `--claim` takes. claim: in one sentence. rule: how the verdict is reached, fixed beforehand. because: why
    this verdict, one sentence. settle: exact commands that would bring the missing evidence; empty when nothing is
    missing. notes: what a reader must know. rows: everything that entered a figure, in order of id.
    """

    name: str
    claim: str
    rule: str
    verdict: Verdict
    because: str
    figures: tuple[Figure, ...] = ()
    settle: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()

    def to_json(self, with_rows: bool = False) -> dict[str, Any]:
        """The finding; its rows only when asked for, their number always."""
        said = {
            "name": self.name,
            "claim": self.claim,
            "verdict": self.verdict,
            "because": self.because,
            "rule": self.rule,
            "figures": [figure.to_json() for figure in self.figures],
            "settle": list(self.settle),
            "notes": list(self.notes),
            "num_rows": len(self.rows),
        }
        return {**said, "rows": [row.to_json() for row in self.rows]} if with_rows else said
