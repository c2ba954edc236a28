"""Whether a point lies among the points that were seen: the convex hull in (log size, log tokens)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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
