"""Warm-up and stopping rules under a made-up clock, and the order of work of the event stopwatch."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from luma_cli.errors import MeasureError
from luma_cli.measure.timing import EventStopwatch, Rule, Stopwatch, measure, median, quantile, warm_up


class Machine:
    """A device with a clock of its own: call i takes `seconds(i)`."""

    def __init__(self, seconds: Callable[[int], float]):
        self.time = 0.0
        self.calls: list[int] = []
        self._seconds = seconds

    def clock(self) -> float:
        return self.time

    def call(self, number: int) -> None:
        self.calls.append(number)
        self.time += self._seconds(number)

    def stopwatch(self) -> Stopwatch:
        return Stopwatch(self.clock)


def test_warm_up_is_excluded_and_median_and_p90_are_exact() -> None:
    machine, alike = (Machine(lambda i: 2.0 if i == 0 else 0.010 + 0.0001 * (i % 2)) for _ in range(2))
    samples = measure(machine.call, machine.stopwatch())
    assert max(samples.seconds) < 0.011
    assert median(samples.seconds) == pytest.approx(0.01005, abs=6e-5)
    assert quantile(samples.seconds, 0.9) == pytest.approx(0.0101)
    assert machine.calls == list(range(len(machine.calls)))
    num_warm, _ = warm_up(alike.call, alike.stopwatch(), Rule())
    assert len(samples.seconds) + num_warm == len(machine.calls)


def test_warm_up_lasts_until_times_settle() -> None:
    machine = Machine(lambda i: 0.05 * (1 + 2.0 ** -(i / 4)))
    _, typical = warm_up(machine.call, machine.stopwatch(), Rule())
    steady = Machine(lambda i: 0.05)
    warm_up(steady.call, steady.stopwatch(), Rule())
    assert machine.time > steady.time
    assert typical == pytest.approx(0.05, rel=0.02)


def test_warm_up_is_at_least_half_a_second_and_three_calls() -> None:
    machine = Machine(lambda i: 0.001)
    num_calls, _ = warm_up(machine.call, machine.stopwatch(), Rule())
    assert machine.time >= 0.5
    assert len(machine.calls) == num_calls >= 3


def test_warm_up_that_never_settles_ends_at_its_cap() -> None:
    machine = Machine(lambda i: 0.2 * (1 + i % 3))
    warm_up(machine.call, machine.stopwatch(), Rule())
    assert 5.0 <= machine.time <= 5.6


def test_one_call_longer_than_the_cap_ends_the_warm_up() -> None:
    machine = Machine(lambda i: 7.0)
    assert warm_up(machine.call, machine.stopwatch(), Rule()) == (1, 7.0)


def test_sampling_needs_thirty_samples_and_one_second() -> None:
    fast = measure((machine := Machine(lambda i: 0.001)).call, machine.stopwatch())
    assert sum(fast.seconds) >= 1.0 - 1e-9
    slow = measure((machine := Machine(lambda i: 0.1)).call, machine.stopwatch())
    assert len(slow.seconds) == 30
    assert not slow.noisy


def test_the_cap_makes_a_noisy_row() -> None:
    machine = Machine(lambda i: 0.01 * (1 + 99 * (i % 2)))
    samples = measure(machine.call, machine.stopwatch(), Rule(max_seconds=4.0))
    assert samples.noisy
    assert 4.0 <= sum(samples.seconds) <= 5.1


def test_three_samples_at_least_even_past_the_cap() -> None:
    machine = Machine(lambda i: 20.0)
    samples = measure(machine.call, machine.stopwatch(), Rule(max_seconds=1.0))
    assert len(samples.seconds) == 3
    assert samples.noisy


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_cap_that_is_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(MeasureError, match="--max-seconds"):
        Rule(max_seconds=seconds)


class Stream:
    """A device that runs behind the host: work queued, time advanced only by synchronize."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.milliseconds = 0.0

    def event(self) -> Event:
        return Event(self)

    def synchronize(self) -> None:
        self.log.append("sync")

    def call(self, number: int) -> None:
        self.log.append(f"call {number}")
        self.milliseconds += 4.0


class Event:
    def __init__(self, stream: Stream):
        self._stream = stream
        self.at = -1.0

    def record(self) -> None:
        self.at = self._stream.milliseconds
        self._stream.log.append("event")

    def elapsed_time(self, end: Event) -> float:
        return end.at - self.at


def test_events_pair_around_each_call_and_one_wait_ends_the_round() -> None:
    stream = Stream()
    seconds = EventStopwatch(stream.event, stream.synchronize).round(stream.call, 5, 3)
    assert seconds == [0.004] * 3
    timed = [step for n in (5, 6, 7) for step in ("event", f"call {n}", "event")]
    assert stream.log == ["call 4", *timed, "sync"]


def test_the_very_first_call_has_no_lead() -> None:
    stream = Stream()
    EventStopwatch(stream.event, stream.synchronize).round(stream.call, 0, 1)
    assert stream.log == ["event", "call 0", "event", "sync"]
