"""The plateau search against devices of known speed and memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.errors import MeasureError
from luma_cli.measure.timing import LARGEST_NUMEL, Bounds, Trial, memory_fit, search, smallest_near_best


def device(
    rate: Callable[[int], float], fits: int = 10**9, fixed: int = 100, per_image: int = 10
) -> tuple[Callable[[int], Trial], list[int]]:
    """A device that runs `rate(batch)` images per second and holds at most `fits` of them."""
    tried: list[int] = []

    def try_batch(batch: int) -> Trial:
        tried.append(batch)
        if batch > fits:
            return Trial(batch, "oom")
        return Trial(batch, "ok", rate(batch), fixed + per_image * batch)

    return try_batch, tried


def saturating(batch: int) -> float:
    return 1000 * batch / (batch + 4)


def test_the_smallest_batch_within_two_percent_of_the_best() -> None:
    try_batch, _ = device(lambda b: min(b, 32) * 10.0 + (1 if b > 32 else 0))
    plateau = search(try_batch, Bounds())
    assert plateau.batch == 32
    assert plateau.stopped_by == "no gain from two doublings"


def test_one_unlucky_size_does_not_end_the_search() -> None:
    rates = {1: 10.0, 2: 20.0, 4: 19.0, 8: 60.0, 16: 100.0, 32: 100.0, 64: 100.0}
    try_batch, _ = device(lambda b: rates[b])
    assert search(try_batch, Bounds(largest_batch=64)).batch == 16


def test_a_small_batch_is_enough_where_nothing_is_gained() -> None:
    try_batch, tried = device(lambda b: 50.0)
    assert search(try_batch, Bounds()).batch == 1
    assert tried == [1, 2, 4]


def test_out_of_memory_backs_off_once_to_a_multiple_of_eight() -> None:
    try_batch, tried = device(lambda b: float(b), fits=30)
    plateau = search(try_batch, Bounds())
    assert tried == [1, 2, 4, 8, 16, 32, 24]
    assert plateau.batch == 24
    assert plateau.stopped_by == "out of memory"
    assert [trial.outcome for trial in plateau.trials] == ["ok"] * 5 + ["oom", "ok"]


def test_out_of_memory_at_one_image_says_what_to_do() -> None:
    try_batch, _ = device(lambda b: 1.0, fits=0)
    with pytest.raises(MeasureError, match="out of memory at batch 1; try a lower --res"):
        search(try_batch, Bounds())


def test_memory_stops_the_search_before_it_runs_out() -> None:
    try_batch, tried = device(lambda b: float(b), fixed=1000, per_image=100)
    plateau = search(try_batch, Bounds(free_bytes=4000))
    assert tried == [1, 2, 4, 8, 16]
    assert plateau.stopped_by == "memory"
    assert (plateau.memory_intercept, plateau.memory_slope) == (pytest.approx(1000), pytest.approx(100))


def test_no_tensor_passes_32_bit_indices() -> None:
    try_batch, tried = device(lambda b: float(b))
    plateau = search(try_batch, Bounds(numel_per_image=LARGEST_NUMEL // 10))
    assert max(tried) == 8
    assert plateau.stopped_by == "a tensor would pass 2^31 elements"


def test_slow_devices_stop_at_long_calls() -> None:
    try_batch, tried = device(lambda b: 1.0 + b / 100)
    assert search(try_batch, Bounds(call_seconds=2.0)).stopped_by == "a call would take more than 2 s"
    assert tried == [1, 2]


@given(st.floats(1.0, 200.0), st.integers(1, 2000), st.integers(1, 1024))
def test_what_is_chosen_fitted_and_is_near_the_best(half: float, fits: int, largest: int) -> None:
    try_batch, _ = device(lambda b: 1000 * b / (b + half), fits=fits)
    plateau = search(try_batch, Bounds(largest_batch=largest))
    rates = {t.batch: t.images_per_second for t in plateau.trials if t.outcome == "ok"}
    assert plateau.batch <= max(fits, 1)
    assert rates[plateau.batch] >= 0.98 * max(rates.values())
    assert not any(b < plateau.batch and rate >= 0.98 * max(rates.values()) for b, rate in rates.items())


def test_memory_is_unknown_from_one_batch() -> None:
    assert memory_fit([Trial(1, "ok", 1.0, 100)]) == (None, None)
    assert smallest_near_best([Trial(1, "ok", 1.0)]) == 1
