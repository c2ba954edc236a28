"""Accuracy of candidates on one scale: the seam for a statistical model, and the lookup that this version ships.

A predictor names the scales it can speak on, most trusted first, and predicts candidates on one of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from luma_cli.advise.candidates import Candidate
from luma_cli.evidence.evidence import Evidence, Scale, Trust

# Preference between scales, nearest to LUMA first: arXiv 2607.00687 reports that LUMA matches EoMT.
OWN_RUNS, PUBLISHED_LUMA, EOMT, FINE_TUNED, FINE_TUNED_MULTI_SCALE, FROZEN = range(6)

# Surest first; what a reader is told about figures of that kind.
_TRUST_NOTES: Mapping[Trust, str] = {
    "primary": "",
    "inferred": "part of its protocol is inferred",
    "secondary": "from a copy of the published table",
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """Accuracy of one candidate on one scale.

    miou_percent: the mean, None without evidence. draws: joint posterior draws in percent, one per posterior sample,
    None for a predictor that has none. evidence: ids behind the mean. elsewhere: ids of the same checkpoint and scale
    at other sizes. low, high: least and greatest figure behind the mean. doubtful: why the figure should not decide,
    empty when nothing speaks against it. note: what a reader must know about it, the doubt included.
    """

    scale: Scale
    miou_percent: float | None = None
    draws: tuple[float, ...] | None = None
    evidence: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    doubtful: str = ""
    note: str = ""


class Predictor(Protocol):
    """Predicts mIoU for candidates on one scale."""

    def scales(self, dataset: str) -> Sequence[tuple[int, Scale]]:
        """Scales that it can predict on, with their preference; the smallest number is preferred."""
        ...

    def predict(self, candidates: Sequence[Candidate], scale: Scale) -> list[Prediction]:
        """One prediction per candidate, in order."""
        ...

    def rows(self, ids: Iterable[str]) -> list[Evidence]:
        """The evidence behind a prediction."""
        ...


class LookupPredictor:
    """Predicts only what was measured: the same checkpoint, on the scale, at the candidate's resolution.

    Where nothing was measured at exactly that size, crops of almost the same area stand for it, and the note says so.
    """

    def __init__(self, evidence: Sequence[Evidence]) -> None:
        """Indexes the evidence; rows whose training saw further labelled data support no candidate."""
        self._by_id = {row.id: row for row in evidence}
        self._by_scale: dict[Scale, dict[str, list[Evidence]]] = defaultdict(lambda: defaultdict(list))
        self._preference: dict[Scale, int] = {}
        for row in evidence:
            scale, rank = row.scale, _preference(row)
            if rank is None or row.extra_data:
                continue
            self._preference[scale] = min(rank, self._preference.get(scale, rank))
            if row.architecture:
                self._by_scale[scale][row.architecture].append(row)

    def scales(self, dataset: str) -> list[tuple[int, Scale]]:
        """Scales of the dataset with stated head and protocol, preferred first."""
        return sorted((rank, scale) for scale, rank in self._preference.items() if scale.dataset == dataset)

    def predict(self, candidates: Sequence[Candidate], scale: Scale) -> list[Prediction]:
        """Means of matching rows; None where nothing was measured at the candidate's resolution."""
        known, nothing = self._by_scale.get(scale, {}), Prediction(scale)
        return [
            self._predict(candidate, scale, known[candidate.architecture])
            if candidate.architecture in known
            else nothing
            for candidate in candidates
        ]

    def rows(self, ids: Iterable[str]) -> list[Evidence]:
        """The rows with these ids, in their order."""
        return [self._by_id[each] for each in ids]

    @staticmethod
    def _predict(candidate: Candidate, scale: Scale, rows: Sequence[Evidence]) -> Prediction:
        known, note = _of_checkpoint(candidate, rows)
        same = [row for row in known if row.at(candidate.resolution)]
        here = same or [row for row in known if row.near(candidate.resolution)]
        elsewhere = tuple(row.id for row in known if row not in here)
        if not here:
            return Prediction(scale, elsewhere=elsewhere)
        used = _most_trusted(here)
        figures = [row.miou_percent for row in used]
        doubtful = used[0].doubtful
        crops = "" if same else f"crops of {_crops(used)} stand for {candidate.resolution}x{candidate.resolution}"
        return Prediction(
            scale,
            miou_percent=round(sum(figures) / len(figures), 3),
            evidence=tuple(row.id for row in used),
            elsewhere=elsewhere,
            low=min(figures),
            high=max(figures),
            doubtful=doubtful,
            note="; ".join(
                filter(None, (crops, note, _TRUST_NOTES[used[0].trust], f"doubtful: {doubtful}" if doubtful else ""))
            ),
        )


def _most_trusted(rows: Sequence[Evidence]) -> list[Evidence]:
    """Rows that nothing speaks against, else all; of these the surest protocol, and of that the longest schedule."""
    sound = [row for row in rows if not row.doubtful] or list(rows)
    best = min(map(_trust_rank, sound))
    surest = [row for row in sound if _trust_rank(row) == best]
    longest = max(map(_num_iterations, surest))
    return [row for row in surest if _num_iterations(row) in (0, longest)]


def _num_iterations(row: Evidence) -> int:
    """Training iterations, 0 when the schedule is not stated in iterations."""
    number, _, unit = row.schedule.partition(" ")
    return int(number) if unit == "iters" and number.isdigit() else 0


def _trust_rank(row: Evidence) -> int:
    return tuple(_TRUST_NOTES).index(row.trust)


def _crops(rows: Sequence[Evidence]) -> str:
    return " and ".join(sorted({row.size for row in rows}))


def _of_checkpoint(candidate: Candidate, rows: Sequence[Evidence]) -> tuple[list[Evidence], str]:
    """Rows of the very weights; failing that, of the same architecture and objective under another tag, said so."""
    exact = [row for row in rows if row.timm == candidate.timm_name and row.in_timm in ("tag", "")]
    if exact:
        return exact, ""
    objective = candidate.pretraining
    if objective in ("", "other"):
        return [], ""
    similar = [row for row in rows if row.pretraining == objective]
    names = sorted({row.backbone for row in similar})
    return similar, f"measured with weights named {', '.join(names)}, not with these" if names else ""


def _preference(row: Evidence) -> int | None:
    """Where the row's scale stands, None when its head is not stated."""
    if row.provenance == "own run":
        return OWN_RUNS
    if row.regime == "frozen":
        return FROZEN if row.head else None
    if row.head in ("", "luma"):
        return PUBLISHED_LUMA if row.head else None
    if row.head == "eomt":
        return EOMT
    return FINE_TUNED if row.eval == "single-scale" else FINE_TUNED_MULTI_SCALE
