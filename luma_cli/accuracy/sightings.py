"""What the evidence has seen: which rows speak about a subject, and whether it lies outside all of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from luma_cli.accuracy.design import REFERENCE_HEAD
from luma_cli.accuracy.hull import SLACK, Point, hull, span
from luma_cli.accuracy.prediction import Relation, Support
from luma_cli.accuracy.subject import Subject

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
    regime: str
    head: str
    eval: str
    objective: str
    pixels: int | None


class Sightings:
    """All rows of evidence, by what they show."""

    def __init__(self, rows: Sequence[Sighting]) -> None:
        """Indexes the rows."""
        self.rows = tuple(rows)
        self._by: dict[tuple[str, ...], dict[_Protocol, list[str]]] = {}
        self._supports: dict[tuple[object, ...], Support] = {}
        for row in self.rows:
            protocol = _Protocol(row.provenance, row.regime, row.head, row.eval, row.objective, row.pixels)
            for _, key in _relations(row):
                self._by.setdefault(key, {}).setdefault(protocol, []).append(row.id)

    @cached_property
    def own_luma_runs(self) -> int:
        """How many rows are the user's own with LUMA and its usual recipe."""
        return sum(row.provenance == "own run" and row.head == "luma" and not row.recipe for row in self.rows)

    @cached_property
    def datasets(self) -> frozenset[str]:
        """Datasets with rows."""
        return frozenset(row.dataset for row in self.rows)

    def support(self, subject: Subject) -> Support:
        """The rows about these weights; failing any, about the closest relatives."""
        wanted = Sighting.of(subject)
        for relation, key in _relations(wanted):
            if key in self._by:
                place = (key, wanted.regime, wanted.head, wanted.eval, wanted.objective, wanted.pixels)
                if place not in self._supports:
                    self._supports[place] = _support(self._by[key], wanted, relation)
                return self._supports[place]
        return Support(0, 0, 0)

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
            yield f"no backbone of its size was seen at {subject.height}x{subject.width} px or the like"

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
    yield "these weights", ("weights", row.dataset, row.weights)
    yield "same architecture and objective", ("both", row.dataset, row.architecture, row.objective)
    yield "same architecture", ("architecture", row.dataset, row.architecture)
    yield "same series", ("series", row.dataset, row.series)


def _distance(row: _Protocol, wanted: Sighting) -> tuple[bool, ...]:
    """Sort key: own runs, then the protocol that is asked for."""
    heads = _PLAIN if wanted.head in _PLAIN else (wanted.head,)
    return (
        row.provenance != "own run",
        row.regime != wanted.regime,
        row.head not in heads,
        row.eval != wanted.eval,
        row.objective != wanted.objective,
        row.pixels != wanted.pixels,
    )
