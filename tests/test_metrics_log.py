"""Numbers reach the store every few seconds, thinned by their step, and never stop a training."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import pytest
from run_samples import RUN_ID, curve, record

from luma_cli.errors import RunError, StoreError, UsageError
from luma_cli.store import database
from luma_cli.store.database import StoreWarning
from luma_cli.store.runs import MIOU, curves, delete_run, forget_after, start_run
from luma_cli.train.book import MOST_STEPS, MetricLog, TensorBoard, every


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Recorded:
    def __init__(self) -> None:
        self.taken: list[tuple[int, str, float]] = []
        self.calls: list[str] = []

    def add(self, step: int, name: str, value: float) -> None:
        self.taken.append((step, name, value))

    def flush(self) -> None:
        self.calls.append("flush")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with closing(database.open_write(tmp_path / "luma.db")) as db:
        start_run(db, record())
    return tmp_path / "luma.db"


def kept(file: Path, name: str) -> list[tuple[int, float]]:
    with closing(database.open_read(file)) as connection:
        return curve(connection, RUN_ID, name)


def test_numbers_are_written_every_few_seconds_and_at_the_end(file):
    clock = Clock()
    log = MetricLog(file, RUN_ID, 100, seconds=5, clock=clock)
    log.add(1, {"loss": 3.0})
    clock.now = 4.9
    log.add(2, {"loss": 2.0})
    assert kept(file, "loss") == []
    clock.now = 5.0
    log.add(3, {"loss": 1.0, "lr": 0.1})
    assert kept(file, "loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    log.add(4, {"loss": 0.5})
    log.flush()
    assert kept(file, "loss")[-1] == (4, 0.5)
    log.add(5, {"loss": 0.25})
    log.close()
    assert kept(file, "loss")[-1] == (5, 0.25)


@pytest.mark.parametrize(("num_steps", "step"), [(1, 1), (5_000, 1), (5_001, 2), (39_000, 8), (1_000_000, 200)])
def test_a_long_run_keeps_every_kth_step(num_steps, step):
    assert every(num_steps) == step
    assert num_steps // every(num_steps) <= MOST_STEPS


def test_a_resumed_run_keeps_the_same_steps_and_validations_always(file):
    whole, part = MetricLog(file, RUN_ID, 15_000), MetricLog(file, RUN_ID, 15_000)
    for step in range(1, 11):
        whole.add(step, {"loss": float(step)})
    whole.add(10, {MIOU: 50.0}, always=True)
    whole.close()
    before = kept(file, "loss")
    assert before == [(3, 3.0), (6, 6.0), (9, 9.0)]
    with closing(database.open_write(file)) as db:
        forget_after(db, RUN_ID, 4)
    for step in range(5, 11):
        part.add(step, {"loss": float(step)})
    part.add(10, {MIOU: 50.0}, always=True)
    part.close()
    assert (kept(file, "loss"), kept(file, MIOU)) == (before, [(10, 50.0)])


def test_a_store_that_cannot_be_written_is_warned_of_once_and_nothing_is_lost(file, monkeypatch):
    clock = Clock()
    log = MetricLog(file, RUN_ID, 100, seconds=1, clock=clock)

    def fail(*arguments: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("luma_cli.train.book.save_metrics", fail)
        clock.now = 1
        with pytest.warns(StoreWarning, match="the disk is full"):
            log.add(1, {"loss": 1.0})
        clock.now = 2
        log.add(2, {"loss": 2.0})
        with pytest.raises(StoreError):
            log.flush()
    clock.now = 3
    log.add(3, {"loss": 3.0})
    assert kept(file, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_run_that_was_removed_meanwhile_is_said(file):
    log = MetricLog(file, RUN_ID, 100)
    with closing(database.open_write(file)) as db:
        delete_run(db, RUN_ID)
    log.add(1, {"loss": 1.0})
    with pytest.raises(RunError, match="no run"):
        log.close()


def test_a_sink_gets_what_the_store_gets(file):
    sink = Recorded()
    log = MetricLog(file, RUN_ID, 10_000, sink=sink)
    for step in range(1, 5):
        log.add(step, {"loss": step})
    log.close()
    assert sink.taken == [(2, "loss", 2.0), (4, "loss", 4.0)]
    assert sink.calls == ["flush", "close"]


def events(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars("loss")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_a_resumed_run_as_one_course(tmp_path):
    pytest.importorskip("tensorboard")
    first = TensorBoard(tmp_path)
    for step in range(1, 7):
        first.add(step, "loss", float(step))
    first.close()
    again = TensorBoard(tmp_path, resumed_step=3)
    for step in range(4, 9):
        again.add(step, "loss", step * 10.0)
    again.close()
    assert events(tmp_path) == [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50), (6, 60), (7, 70), (8, 80)]


def test_a_missing_tensorboard_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r'pip install "luma-seg\[log\]"'):
        TensorBoard(tmp_path)


def test_a_log_without_numbers_writes_nothing(file):
    MetricLog(file, RUN_ID, 10).close()
    with closing(database.open_read(file)) as connection:
        assert curves(connection, RUN_ID) == {}
