"""The front against its definition, with ties and NaN."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from luma_cli.advise.fronts import on_front

# Few distinct values, so that ties and duplicates are common.
VALUES = st.sampled_from([1.0, 2.0, 3.0, 4.0, math.nan])
POINTS = st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(st.tuples(*[VALUES] * n), VALUES), max_size=25))


def by_definition(costs: list[tuple[float, ...]], scores: list[float]) -> list[bool]:
    def known(i: int) -> bool:
        return not any(map(math.isnan, (*costs[i], scores[i])))

    def beats(j: int, i: int) -> bool:
        no_worse = all(a <= b for a, b in zip(costs[j], costs[i], strict=True)) and scores[j] >= scores[i]
        return no_worse and (costs[j] != costs[i] or scores[j] != scores[i])

    indices = range(len(scores))
    return [known(i) and not any(known(j) and beats(j, i) for j in indices) for i in indices]


@given(POINTS)
def test_front_is_its_definition(points: list[tuple[tuple[float, ...], float]]) -> None:
    costs, scores = [cost for cost, _ in points], [score for _, score in points]
    assert on_front(costs, scores) == by_definition(costs, scores)


def test_equal_points_are_both_kept() -> None:
    assert on_front([(1.0,), (1.0,), (2.0,)], [50.0, 50.0, 50.0]) == [True, True, False]


def test_one_point_and_none() -> None:
    assert on_front([(1.0,)], [50.0]) == [True]
    assert on_front([], []) == []


def test_nan_neither_stays_nor_removes() -> None:
    assert on_front([(0.0,), (1.0,), (math.nan,)], [math.nan, 50.0, 60.0]) == [False, True, False]
