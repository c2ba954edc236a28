"""Ties go to the cheaper one, and always to the same one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.advise.fronts import ties

CANDIDATES = st.lists(
    st.tuples(st.sampled_from([49.5, 49.8, 50.0]), st.integers(1, 3), st.floats(0, 0.5)), min_size=1, max_size=8
)


@given(CANDIDATES, st.data())
def test_the_winner_does_not_depend_on_the_order(rows: list[tuple[float, int, float]], data: st.DataObject) -> None:
    def winner(order: list[tuple[float, int, float]]) -> tuple[float, int]:
        return order[ties([row[0] for row in order], [(row[1],) for row in order], [0.1] * len(order))[0]][:2]

    assert winner(rows) == winner(data.draw(st.permutations(rows)))


@given(CANDIDATES)
def test_members_are_within_the_tie_and_the_winner_is_the_cheapest(rows: list[tuple[float, int, float]]) -> None:
    mious, costs = [row[0] for row in rows], [(row[1],) for row in rows]
    found = ties(mious, costs, [row[2] for row in rows])
    assert all(max(mious) - mious[index] <= 0.3 + 1e-9 for index in found)
    assert costs[found[0]] == min(costs[index] for index in found)
    assert any(mious[index] == max(mious) for index in found)


def test_a_clear_leader_wins_though_another_is_near_and_cheaper() -> None:
    assert ties([50.0, 50.2], [(1,), (2,)], [0.4, 0.6]) == (1,)
    assert ties([50.0, 50.2], [(1,), (2,)], [0.41, 0.59]) == (0, 1)


def test_three_tenths_is_a_tie_and_more_is_not() -> None:
    assert ties([50.0, 50.3], [(1,), (2,)], [0.5, 0.5]) == (0, 1)
    assert ties([50.0, 50.31], [(1,), (2,)], [0.5, 0.5]) == (1,)


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ValueError, match="none with a known mIoU"):
        ties([math.nan], [(1,)], [0.0])
