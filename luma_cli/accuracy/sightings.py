"""Predictions and the evidence behind them: the rows about a subject, and whether it is outside all of them.

A subject is extrapolated outside the convex hull of the seen rows in (log size, log tokens). For a supervised backbone
without stated labels, those of most rows of its size are assumed.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from luma_cli.accuracy.effects import REFERENCE_HEAD
from luma_cli.accuracy.subjects import Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # mIoU in percent, one row per joint posterior draw, one column per subject.
    Draws = NDArray[np.float64]


Point = tuple[float, float]
SLACK = 1e-9


def hull(points: Iterable[Point]) -> list[Point]:
    """Corners of the convex hull, counter-clockwise (Andrew's monotone chain); fewer than three for a line."""
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered
    return _chain(ordered)[:-1] + _chain(ordered[::-1])[:-1]


def span(corners: Sequence[Point], height: float) -> tuple[float, float] | None:
    """Where the level line at `height` (second coordinate) enters and leaves the hull; None when it passes by.

    >>> span(hull([(0, 0), (4, 0), (2, 2)]), 1.0), span(hull([(0, 0), (1, 0)]), 1.0)
    ((1.0, 3.0), None)
    """
    found = [
        place
        for first, second in zip(corners, [*corners[1:], *corners[:1]], strict=True)
        for place in _crossings(first, second, height)
    ]
    return (min(found), max(found)) if found else None


def _crossings(first: Point, second: Point, height: float) -> Iterator[float]:
    """Where an edge meets the level line: nowhere, in a point, or along all of it."""
    (low, bottom), (high, top) = sorted((first, second), key=lambda corner: corner[1])
    if not bottom - SLACK <= height <= top + SLACK:
        return
    if top - bottom <= SLACK:
        yield from (low, high)
    else:
        yield low + (high - low) * min(max((height - bottom) / (top - bottom), 0.0), 1.0)


def _chain(ordered: Sequence[Point]) -> list[Point]:
    kept: list[Point] = []
    for point in ordered:
        while len(kept) > 1 and _turn(kept[-2], kept[-1], point) <= 0:
            kept.pop()
        kept.append(point)
    return kept


def _turn(first: Point, second: Point, third: Point) -> float:
    """Positive when going on to `third` turns left."""
    return (second[0] - first[0]) * (third[1] - first[1]) - (second[1] - first[1]) * (third[0] - first[0])


@dataclass(frozen=True, slots=True)
class Effect:
    """What one property of a subject contributes, in mIoU points against the average, for `--why`.

    name: e.g. `pretraining dinov3`, `size 86.6 M`. sd_points: one standard deviation of it.
    """

    name: str
    points: float
    sd_points: float


Relation = Literal[
    "these weights", "same architecture and objective", "same size, series and objective", "same architecture",
    "same series",
]  # fmt: skip
# What an answer says of the evidence for a candidate, the most direct first.
Standing = Literal["own run", "same weights", "same size", "same series", "none"]
_STANDING_OF: Mapping[Relation, Standing] = {
    "these weights": "same weights",
    "same architecture and objective": "same size",
    "same size, series and objective": "same size",
    "same architecture": "same series",
    "same series": "same series",
}


@dataclass(frozen=True, slots=True)
class Support:
    """How many rows of each provenance are about these weights or, failing any, their closest relatives.

    ids: of those rows, on this dataset, nearest protocol first. relation: whom they are about. same_regime: whether
    they were trained as asked: frozen probes say little about a fine-tuned model.
    """

    own_runs: int
    published_luma: int
    other_heads: int
    ids: tuple[str, ...] = ()
    relation: Relation = "these weights"
    same_regime: bool = True

    @property
    def standing(self) -> Standing:
        """How direct the evidence is; `none` where there is none trained as asked."""
        if not self.same_regime or not self.own_runs + self.published_luma + self.other_heads:
            return "none"
        found = _STANDING_OF[self.relation]
        return "own run" if self.own_runs and found == "same weights" else found

    @property
    def line(self) -> str:
        """e.g. `2 own runs, 5 results with LUMA, 11 with other heads`; of whom, where not of these weights."""
        parts = (
            (self.own_runs, "own run", "own runs"),
            (self.published_luma, "result with LUMA", "results with LUMA"),
            (self.other_heads, "result with another head", "results with other heads"),
        )
        said = [f"{count} {one if count == 1 else many}" for count, one, many in parts if count]
        if not said:
            return "no result of its series on this dataset"
        text = ", ".join(said) if self.same_regime else f"{', '.join(said)}, trained otherwise (frozen or fine-tuned)"
        if self.relation == "these weights":
            return text
        return f"none of these weights; {text} of the {self.relation}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """mIoU of one subject in percent: posterior median, central 50, 80 and 90 % intervals, standard deviation.

    The intervals are of one training run (seed noise included). extrapolated: outside the hull of the evidence in size
    and tokens, or of a family, objective or dataset without evidence; reason says which, and is empty otherwise.
    """

    miou_percent: float
    interval_50: tuple[float, float]
    interval_80: tuple[float, float]
    interval_90: tuple[float, float]
    sd: float
    support: Support
    extrapolated: bool = False
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Fields as `luma estimate --json` prints them."""
        return {
            "miou": self.miou_percent,
            "miou_50": list(self.interval_50),
            "miou_80": list(self.interval_80),
            "miou_90": list(self.interval_90),
            "evidence": self.support.line,
            "extrapolated": self.extrapolated,
            "reason": self.reason or None,
        }


class AccuracyModel(Protocol):
    """Predicts mIoU; `luma_cli.accuracy.model.load_model(evidence)` gives one."""

    @property
    def scale_note(self) -> str:
        """The source of LUMA's level, e.g. `on the EoMT scale, no LUMA run seen`."""
        ...

    def predict(self, subjects: Sequence[Subject]) -> list[Prediction]:
        """One prediction per subject, in order."""
        ...

    def draws(self, subjects: Sequence[Subject], num_draws: int = 2000, seed: int = 0) -> Draws:
        """Joint posterior draws [num_draws, subjects] of the expected mIoU, no seed noise; shared effects correlate."""
        ...

    def effects(self, subject: Subject) -> list[Effect]:
        """What each property contributes, largest first."""
        ...


_TOKEN_PIXELS = 256  # patches of 16 x 16
_PLAIN = ("luma", REFERENCE_HEAD)


@dataclass(frozen=True, slots=True)
class Sighting:
    """One row of evidence, reduced to what decides whom it speaks about."""

    id: str
    provenance: str
    dataset: str
    weights: str
    architecture: str
    objective: str
    series: str
    head: str
    regime: str
    eval: str
    params: float | None
    pixels: int | None
    recipe: str = ""

    @classmethod
    def of(cls, subject: Subject, row_id: str = "", provenance: str = "") -> Sighting:
        """The sighting of a subject."""
        return cls(
            row_id,
            provenance,
            subject.dataset,
            f"{subject.checkpoint or subject.backbone}, {subject.pretraining}",
            subject.architecture,
            subject.objective,
            subject.lineage or subject.architecture,
            subject.head,
            subject.regime,
            subject.eval,
            subject.params,
            subject.height * subject.width if subject.height and subject.width else None,
            subject.recipe,
        )


class _Protocol(NamedTuple):
    """What of a row decides how near it is."""

    provenance: str
    head: str
    eval: str
    objective: str
    pixels: int | None


_SAME_SIZE = 0.15  # in log parameters: ViT-B of patch 14 and 16, with and without registers


class Sightings:
    """All rows of evidence, by what they show."""

    def __init__(self, rows: Sequence[Sighting]) -> None:
        """Indexes the rows."""
        self.rows = tuple(rows)
        self._by: dict[tuple[str, ...], dict[_Protocol, list[str]]] = {}
        self._sizes: dict[tuple[str, ...], set[float]] = {}
        self._supports: dict[tuple[object, ...], Support] = {}
        for row in self.rows:
            protocol = _Protocol(row.provenance, row.head, row.eval, row.objective, row.pixels)
            for _, key in _relations(row):
                self._by.setdefault(key, {}).setdefault(protocol, []).append(row.id)
            if row.params:
                family = ("size", row.dataset, row.series, row.objective, row.regime)
                self._sizes.setdefault(family, set()).add(row.params)

    @cached_property
    def own_luma_runs(self) -> int:
        """How many rows are the user's own with LUMA and its usual recipe."""
        return sum(row.provenance == "own run" and row.head == "luma" and not row.recipe for row in self.rows)

    @cached_property
    def luma_figures(self) -> int:
        """How many published results with LUMA there are."""
        return sum(row.provenance == "published LUMA" for row in self.rows)

    @cached_property
    def datasets(self) -> frozenset[str]:
        """Datasets with rows."""
        return frozenset(row.dataset for row in self.rows)

    def support(self, subject: Subject) -> Support:
        """The rows about these weights; failing any, about the closest relatives, those trained as asked first."""
        wanted = Sighting.of(subject)
        other = "frozen" if wanted.regime != "frozen" else "fine-tuned"
        for regime in (wanted.regime, other):
            for relation, key in _relations(replace(wanted, regime=regime)):
                known = self._near_size(key, wanted) if relation == "same size, series and objective" else key
                if known in self._by:
                    place = (known, wanted.head, wanted.eval, wanted.objective, wanted.pixels)
                    if place not in self._supports:
                        found = _support(self._by[known], wanted, relation)
                        self._supports[place] = replace(found, same_regime=regime == wanted.regime)
                    return self._supports[place]
        return Support(0, 0, 0)

    def _near_size(self, key: tuple[str, ...], wanted: Sighting) -> tuple[str, ...]:
        """The key of the nearest size seen of the series and objective; one without rows where none is near."""
        seen = self._sizes.get(key[:-1], set()) if wanted.params else set()
        near = min(seen, key=lambda params: (abs(math.log(params / (wanted.params or 1))), params), default=None)
        is_near = near is not None and abs(math.log(near / (wanted.params or 1))) < _SAME_SIZE
        return (*key[:-1], f"{near:g}") if is_near else ()

    def beyond(self, subject: Subject) -> Iterator[str]:
        """Why the subject's size and tokens are outside what the dataset's rows of its regime span."""
        if subject.params is None:
            yield "its size is not known"
            return
        seen = self._spans.get((subject.dataset, subject.regime))
        if seen is None:
            return
        size = math.log(subject.params)
        if not seen.least <= size <= seen.most:
            larger = size > seen.most
            bound = f"{math.exp(seen.most if larger else seen.least) / 1e6:.3g} M parameters"
            yield f"no {'larger' if larger else 'smaller'} backbone was seen than {bound}"
        elif subject.height and subject.width and not seen.holds(size, subject.height * subject.width):
            yield f"no result for its size near {subject.height}x{subject.width} px"

    @cached_property
    def _spans(self) -> Mapping[tuple[str, str], _Span]:
        points: dict[tuple[str, str], list[Point]] = defaultdict(list)
        for row in self.rows:
            if row.params and row.pixels:
                points[row.dataset, row.regime].append((math.log(row.params), _log_tokens(row.pixels)))
        return {scale: _Span(hull(found)) for scale, found in points.items()}


class _Span:
    """Log sizes and log tokens that rows of one dataset and regime span."""

    def __init__(self, corners: Sequence[Point]) -> None:
        self.corners = tuple(corners)
        self.least, self.most = min(corners)[0], max(corners)[0]
        self._by_pixels: dict[int, tuple[float, float] | None] = {}

    def holds(self, size: float, pixels: int) -> bool:
        """Whether a backbone of this log size on a crop of so many pixels lies within."""
        if pixels not in self._by_pixels:
            self._by_pixels[pixels] = span(self.corners, _log_tokens(pixels))
        crossed = self._by_pixels[pixels]
        return crossed is not None and crossed[0] - SLACK <= size <= crossed[1] + SLACK


def _log_tokens(pixels: int) -> float:
    return math.log(pixels / _TOKEN_PIXELS)


def _support(rows: Mapping[_Protocol, Sequence[str]], wanted: Sighting, relation: Relation) -> Support:
    """Rows are ordered by protocol, because one may stand for thousands of runs."""
    near: dict[tuple[bool, ...], list[str]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for protocol, ids in rows.items():
        near[_distance(protocol, wanted)] += ids
        counts[protocol.provenance] += len(ids)
    own, luma = counts["own run"], counts["published LUMA"]
    nearest = tuple(row_id for distance in sorted(near) for row_id in sorted(near[distance]))
    return Support(own, luma, sum(counts.values()) - own - luma, nearest, relation)


def _relations(row: Sighting) -> Iterator[tuple[Relation, tuple[str, ...]]]:
    """Who a row is about, closest first."""
    regime = row.regime
    yield "these weights", ("weights", row.dataset, row.weights, regime)
    yield "same architecture and objective", ("both", row.dataset, row.architecture, row.objective, regime)
    size = f"{row.params or 0:g}"
    yield "same size, series and objective", ("size", row.dataset, row.series, row.objective, regime, size)
    yield "same architecture", ("architecture", row.dataset, row.architecture, regime)
    yield "same series", ("series", row.dataset, row.series, regime)


def _distance(row: _Protocol, wanted: Sighting) -> tuple[bool, ...]:
    """Sort key: own runs, then the protocol that is asked for."""
    heads = _PLAIN if wanted.head in _PLAIN else (wanted.head,)
    return (
        row.provenance != "own run",
        row.head not in heads,
        row.eval != wanted.eval,
        row.objective != wanted.objective,
        row.pixels != wanted.pixels,
    )


IN1K, IN21K = "supervised_in1k", "supervised_in21k"
# How near in log parameters: within the series, and in any.
_IN_SERIES, _IN_ANY = 0.25, 0.35


def usual_labels(subject: Subject, rows: Sequence[Sighting]) -> str:
    """What most rows of about that size in its series have; without any, what most series have at that size.

    On the shipped rows without a timm tag, each judged from other sources, this is right for 96 %; -1k for 82 %.
    """
    if not subject.params:
        return IN1K
    known = [row for row in rows if row.objective in (IN1K, IN21K) and row.params]
    own = [row for row in known if row.series == subject.lineage and _near(row, subject.params, _IN_SERIES)]
    if own:
        return _most(row.objective for row in own)
    votes: dict[str, list[str]] = defaultdict(list)
    for row in known:
        if _near(row, subject.params, _IN_ANY):
            votes[row.series].append(row.objective)
    return _most(_most(each) for each in votes.values())


def _most(labels: Iterable[str]) -> str:
    """What most of them are, ImageNet-1k in a tie."""
    counts = Counter(labels)
    return IN21K if counts[IN21K] > counts[IN1K] else IN1K


def _near(row: Sighting, params: float, tolerance: float) -> bool:
    return row.params is not None and abs(math.log(row.params / params)) < tolerance
