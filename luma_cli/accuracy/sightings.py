"""What the evidence has seen: which rows speak about a subject, and whether it lies outside all of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from luma_cli.accuracy.design import LUMA_SCALE
from luma_cli.accuracy.hull import Point, hull, inside
from luma_cli.accuracy.prediction import Relation, Support
from luma_cli.accuracy.subject import Subject

_TOKEN_PIXELS = 256  # patches of 16 x 16
_PLAIN = ("luma", LUMA_SCALE)


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


class Sightings:
    """All rows of evidence, by what they show."""

    def __init__(self, rows: Sequence[Sighting]) -> None:
        """Indexes the rows."""
        self.rows = tuple(rows)
        self._by: dict[tuple[str, ...], list[Sighting]] = defaultdict(list)
        self._supports: dict[tuple[str | int | None, ...], Support] = {}
        for row in self.rows:
            for _, key in _relations(row):
                self._by[key].append(row)

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
        sighting = Sighting.of(subject)
        for relation, key in _relations(sighting):
            if rows := self._by.get(key):
                same = (*key, sighting.head, sighting.regime, sighting.eval, sighting.objective, sighting.pixels)
                if same not in self._supports:  # whole series share one
                    self._supports[same] = _support(rows, sighting, relation)
                return self._supports[same]
        return Support(0, 0, 0)

    def beyond(self, subject: Subject) -> Iterator[str]:
        """Why the subject's size and tokens are outside what the dataset's fine-tuned rows span."""
        if subject.params is None:
            yield "its size is not known"
            return
        corners = self._hulls.get(subject.dataset, [])
        sizes = [point[0] for point in corners]
        size = math.log(subject.params)
        if corners and not min(sizes) <= size <= max(sizes):
            yield f"no {'larger' if size > max(sizes) else 'smaller'} backbone was seen than {_millions(sizes, size)}"
        elif subject.height and subject.width and corners:
            tokens = math.log(subject.height * subject.width / _TOKEN_PIXELS)
            if not inside(corners, (size, tokens)):
                yield f"no such size was seen at {subject.height}x{subject.width} px or the like"

    @cached_property
    def _hulls(self) -> Mapping[str, list[Point]]:
        points: dict[str, list[Point]] = defaultdict(list)
        for row in self.rows:
            if row.params and row.pixels and row.regime == "fine-tuned":
                points[row.dataset].append((math.log(row.params), math.log(row.pixels / _TOKEN_PIXELS)))
        return {dataset: hull(found) for dataset, found in points.items()}


def _relations(row: Sighting) -> Iterator[tuple[Relation, tuple[str, ...]]]:
    """Who a row is about, closest first."""
    yield "these weights", ("weights", row.dataset, row.weights)
    yield "same architecture and objective", ("both", row.dataset, row.architecture, row.objective)
    yield "same architecture", ("architecture", row.dataset, row.architecture)
    yield "same series", ("series", row.dataset, row.series)


def _support(rows: Sequence[Sighting], wanted: Sighting, relation: Relation) -> Support:
    own, luma = (sum(row.provenance == name for row in rows) for name in ("own run", "published LUMA"))
    near = sorted(rows, key=lambda row: (_distance(row, wanted), row.id))
    return Support(own, luma, len(rows) - own - luma, tuple(row.id for row in near), relation)


def _distance(row: Sighting, wanted: Sighting) -> tuple[bool, ...]:
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


def _millions(sizes: Sequence[float], size: float) -> str:
    bound = max(sizes) if size > max(sizes) else min(sizes)
    return f"{math.exp(bound) / 1e6:.3g} M parameters"
