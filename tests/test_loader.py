"""Batches: the same for any number of workers and any first step; workers that die, and processes that are left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from array_samples import ArraySamples

from luma_cli.catalogue.recipes import Augmentation
from luma_cli.data.loader import Batch, StepOrder, TrainingSet, batches
from luma_cli.errors import BadSample, DataError

TESTS = Path(__file__).parent


def read(
    first: int = 0,
    last: int = 5,
    workers: int = 0,
    samples: ArraySamples = ArraySamples(),  # noqa: B008  (frozen)
    skip_bad: int = 0,
    start_method: str | None = None,
) -> Iterator[Batch]:
    training_set = TrainingSet(samples, 32, Augmentation(), 0, skip_bad)
    order = StepOrder(len(samples), 5, 0, rank=1, num_ranks=2)
    return batches(training_set, order, first, last, workers, start_method=start_method)


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert [(b.step, b.epoch, b.samples, b.skipped) for b in one] == [
        (b.step, b.epoch, b.samples, b.skipped) for b in other
    ]
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


@pytest.mark.parametrize("workers", [1, 2])
def test_same_batches_for_any_number_of_workers_and_first_step(workers: int) -> None:
    alone = list(read())
    assert [batch.step for batch in alone] == [0, 1, 2, 3, 4]
    assert alone[0].images.shape == (2, 3, 32, 32)
    assert alone[0].labels.shape == (2, 32, 32)
    assert alone[0].images.dtype == alone[0].labels.dtype == torch.uint8
    assert_same(alone, list(read(workers=workers)))
    assert_same(alone[3:], list(read(first=3, workers=workers)))


def test_same_batches_from_spawned_workers() -> None:
    assert_same(list(read(last=2)), list(read(last=2, workers=1, start_method="spawn")))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(read(last=1, workers=1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_named_in_one_line(workers: int) -> None:
    with pytest.raises(BadSample, match=r"^picture_\d\.jpg: not a JPEG$"):
        list(read(workers=workers, samples=ArraySamples(bad=frozenset(range(12)))))


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_samples_are_reported_with_their_batch(workers: int) -> None:
    batch = next(read(workers=workers))
    bad = frozenset({batch.samples[1]})
    again = next(read(workers=workers, samples=ArraySamples(bad=bad), skip_bad=1))
    assert again.skipped == (f"picture_{batch.samples[1]}",)
    assert again.samples == batch.samples


def test_a_worker_that_dies_is_told_in_one_line() -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(DataError, match=r"^a process that loads data died.*fewer --workers[^\n]*$"):
        list(read(workers=1, samples=ArraySamples(deadly=frozenset(range(12)))))
    assert signal.getsignal(signal.SIGCHLD) == handler


SCRIPT = """
import signal
import test_loader
stops = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, _: stops.append(number))
told = 0
for batch in test_loader.read(last=10**6, workers=2):
    if batch.step == 2:
        print("ready", flush=True)
    if len(stops) > told:
        told, wanted = len(stops), batch.step + 20
    if told and batch.step == wanted:
        print("went on", flush=True)
    if told == 3:
        signal.signal(signal.SIGINT, signal.default_int_handler)
"""


def members(group: int) -> list[int]:
    """Processes of a group that are not zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def started() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TESTS,
        start_new_session=True,
    )
    assert line(process) == "ready\n"
    assert len(members(process.pid)) == 3
    return process


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def ended(group: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while members(group) and time.monotonic() < until:
        time.sleep(0.05)
    return not members(group)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_signals_to_the_whole_job_leave_training_its_workers() -> None:
    process = started()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.killpg(process.pid, number)
        assert line(process) == "went on\n"
    os.killpg(process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert ended(process.pid, 10)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_no_process_outlives_training() -> None:
    process = started()
    process.kill()
    process.communicate(timeout=60)
    assert ended(process.pid, 15)
