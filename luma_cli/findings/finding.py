"""A claim of the benchmark (arXiv 2607.00687) with its verdict, and the evidence that a verdict may rest on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar, Literal

from luma_cli.evidence.evidence import Evidence
from luma_cli.evidence.own_runs import recipe_for
from luma_cli.store.runs import OwnRun

Verdict = Literal["supported", "contradicted", "not enough evidence"]
SUPPORTED: Verdict = "supported"
CONTRADICTED: Verdict = "contradicted"
UNDECIDED: Verdict = "not enough evidence"


def counted(number: int, one: str) -> str:
    """A number of things: `1 source`, `3 sources`."""
    return f"{number} {one}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its central 90% interval, both ends None where there is too little to resample."""

    value: float
    low: float | None = None
    high: float | None = None


def below(interval: Interval | None, limit: float) -> bool:
    """Whether the whole interval lies below `limit`; false without one."""
    return interval is not None and interval.high is not None and interval.high < limit


def above(interval: Interval | None, limit: float) -> bool:
    """Whether the whole interval lies above `limit`; false without one."""
    return interval is not None and interval.low is not None and interval.low > limit


def judge(supported: bool, contradicted: bool) -> Verdict:
    """The verdict; what contradicts weighs more."""
    return CONTRADICTED if contradicted else SUPPORTED if supported else UNDECIDED


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
            "decides": self.decides,
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

    name: what `--claim` takes. claim: in one sentence. rule: how the verdict is reached, fixed beforehand. because: why
    this verdict, one sentence. settle: exact commands that would bring the missing evidence; empty when nothing is
    missing. notes: what a reader must know. rows: everything that entered a figure, in order of id.
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
        self,
        verdict: Verdict,
        because: str,
        figures: Iterable[Figure],
        rows: Iterable[EvidenceRow],
        settle: Iterable[str],
        notes: Iterable[str],
    ) -> Finding:
        """The same claim with what was found. settle: what to run, left out once the claim is decided."""
        commands = tuple(settle) if verdict == UNDECIDED else ()
        ordered, rule = tuple(sorted(set(rows))), " ".join(self.rule.split())
        return Finding(self.name, self.claim, rule, verdict, because, tuple(figures), commands, tuple(notes), ordered)


def rows_of(evidence: Iterable[Evidence], ids: Collection[str]) -> list[EvidenceRow]:
    """The evidence with these ids as rows behind a claim."""
    found = []
    for row in evidence:
        if row.id in ids:
            objective = row.pretraining if row.pretraining not in ("", "other") else row.pretraining_raw
            says = f"{row.miou_percent:.1f} mIoU, {row.backbone}, {objective}, {row.size}, {row.scale.label}"
            found.append(EvidenceRow(row.id, says, row.source))
    return found


@dataclass(frozen=True, slots=True)
class OwnScore:
    """One model of the user's with one head: the mean mIoU over its seeds. ids: of the runs."""

    timm_name: str
    resolution: int
    head: str
    miou_percent: float
    ids: tuple[str, ...]


def usable(run: OwnRun, dataset: str, own_weights: bool = False) -> bool:
    """Whether the run's score may be compared with others of the dataset; heads and backbones may differ.

    Finished, official data and unchanged recipe. own_weights: whether weights from a file or folder of the user's will
    do; random ones never do.
    """
    return (
        (run.data, run.dataset, run.split, run.status) == (dataset, dataset, "val", "finished")
        and (run.recipe, run.usual_recipe) == (recipe_for(dataset, run.head.name), True)
        and (run.weights != "random" if own_weights else run.weights == "pretrained")
        and (run.single_scale, run.absent, run.num_skipped) == (True, "skip", 0)
        and run.has_default_head
    )


def own_scores(runs: Iterable[OwnRun], dataset: str, own_weights: bool = False) -> list[OwnScore]:
    """Mean score of every model and head over seeds, in a fixed order; own_weights as in `usable`."""
    groups: dict[tuple[str, int, str], list[OwnRun]] = defaultdict(list)
    for run in runs:
        if usable(run, dataset, own_weights):
            groups[run.timm_name, run.resolution, run.head.name].append(run)
    return [
        OwnScore(*key, fmean(run.miou_percent for run in group), tuple(sorted(run.run_id for run in group)))
        for key, group in sorted(groups.items())
    ]


def own_rows(runs: Iterable[OwnRun], ids: Collection[str]) -> list[EvidenceRow]:
    """The runs with these ids as rows behind a claim."""
    return [
        EvidenceRow(
            run.run_id,
            f"{run.miou_percent:.2f} mIoU, {run.timm_name}, head {run.head.name}, {run.resolution} px, seed {run.seed}",
            f"your run {run.run_id}",
        )
        for run in runs
        if run.run_id in ids
    ]
