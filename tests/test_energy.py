"""Energy per image from a made-up counter and clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from luma_cli.measure.nvml import Energy, measure_energy


class Card:
    """A GPU of 100 W idle and 600 W at work; a call of 4 images takes 20 ms."""

    def __init__(self, *, update_seconds: float = 0.0, stands_still: bool = False):
        self.time = 0.0
        self.joules = 0.0
        self.num_calls = 0
        self._update = update_seconds
        self._still = stands_still
        self._shown = (0.0, 0.0)

    def clock(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self._spend(seconds, 100.0)

    def call(self, number: int) -> None:
        self.num_calls += 1
        self._spend(0.02, 600.0)

    def _spend(self, seconds: float, watts: float) -> None:
        self.time += seconds
        self.joules += seconds * watts
        if self.time - self._shown[0] >= self._update:
            self._shown = (self.time, self.joules)

    def read(self) -> int:
        return 0 if self._still else int(self._shown[1] * 1e3)

    def measure(self, read: Callable[[], int | None]) -> Energy | None:
        clocks = {"clock": self.clock, "sleep": self.sleep}
        return measure_energy(self.call, lambda: None, read, batch=4, call_seconds=0.02, **clocks)


def test_gross_and_net_energy_per_image() -> None:
    card = Card()
    found = card.measure(card.read)
    assert found is not None
    assert found.idle_watts == pytest.approx(100, rel=1e-6)
    assert found.gross == pytest.approx((3.0, 3.0), rel=1e-6)  # 600 W x 20 ms / 4
    assert found.net == pytest.approx((2.5, 2.5), rel=1e-6)


def test_windows_last_ten_seconds_and_start_at_different_phases() -> None:
    card = Card(update_seconds=0.1)
    found = card.measure(card.read)
    assert found is not None
    assert card.num_calls * 0.02 >= 20
    assert found.gross == pytest.approx((3.0, 3.0), rel=0.02)


def test_a_counter_that_stands_still_gives_nothing() -> None:
    card = Card(stands_still=True)
    assert card.measure(card.read) is None


def test_no_counter_gives_nothing_and_starts_nothing() -> None:
    card = Card()
    assert card.measure(lambda: None) is None
    assert card.num_calls == 0
