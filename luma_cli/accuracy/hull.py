"""Whether a point lies among the points that were seen: the convex hull in (log size, log tokens)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Point = tuple[float, float]
_SLACK = 1e-9


def hull(points: Iterable[Point]) -> list[Point]:
    """Corners of the convex hull, counter-clockwise (Andrew's monotone chain); fewer than three for a line."""
    ordered = sorted(set(points))
    if len(ordered) < 3:
        return ordered
    return _chain(ordered)[:-1] + _chain(ordered[::-1])[:-1]


def inside(corners: Sequence[Point], point: Point) -> bool:
    """Whether `point` is in or on the hull; on a degenerate one, whether it is within its bounds and on its line.

    >>> inside(hull([(0, 0), (2, 0), (2, 2), (0, 2)]), (1, 2)), inside(hull([(0, 0), (1, 0)]), (0.5, 1))
    (True, False)
    """
    if not corners:
        return False
    across = zip(corners, [*corners[1:], corners[0]], strict=True)
    if any(_turn(first, second, point) < -_SLACK for first, second in across):
        return False
    return all(
        min(values) - _SLACK <= value <= max(values) + _SLACK
        for values, value in zip(zip(*corners, strict=True), point, strict=True)
    )


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
