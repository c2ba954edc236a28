"""Processes killed at any moment, many writers at once, full disks: what was acknowledged is there, and whole."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import store_writer

from luma_cli.store import database
from luma_cli.store.inspection import check
from luma_cli.store.profiles import select_rows

TRIALS = 20


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(store_writer.PRELOAD)
    return context


def run_sweep(processes, file, profiles):
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=store_writer.sweep, args=(file, profiles, theirs))
    process.start()
    theirs.close()
    return process, ours


def received(pipe) -> list[object]:
    """All that the process sent before it ended or was killed."""
    messages = []
    while True:
        try:
            messages.append(pipe.recv())
        except EOFError:
            pipe.close()
            return messages


@pytest.mark.parametrize("trial", range(TRIALS))
def test_killed_at_any_moment_keeps_what_was_acknowledged_and_nothing_half(processes, tmp_path, trial):
    dice, file, profiles = random.Random(trial), tmp_path / "luma.db", store_writer.plan(20)
    process, pipe = run_sweep(processes, file, profiles)
    acknowledged = [pipe.recv() for _ in range(dice.randrange(12) if trial % 3 else 0)]
    time.sleep(dice.uniform(0, 0.005 if acknowledged else 0.08))
    process.kill()
    process.join()
    acknowledged += received(pipe)

    kept: set[str] = set()
    if file.exists():
        found = check(file)
        assert found.problems == ()
        with closing(database.open_read(file)) as connection:
            kept = {fingerprint for (fingerprint,) in select_rows(connection, ["fingerprint"], view="attempts")}
    assert kept >= set(acknowledged) - {"end"}

    process, pipe = run_sweep(processes, file, profiles)
    filled = set(received(pipe)) - {"end"}
    process.join()
    assert (process.exitcode, filled) == (0, {one.fingerprint for one in profiles} - kept)
    assert (check(file).problems, check(file).attempts) == ((), len(profiles))


def test_four_writers_lose_nothing_and_meet_no_lock(processes, tmp_path):
    file = tmp_path / "luma.db"
    running = [run_sweep(processes, file, store_writer.plan(100, writer)) for writer in range(4)]
    messages = [received(pipe) for _, pipe in running]
    for process, _ in running:
        process.join()
    assert [process.exitcode for process, _ in running] == [0] * 4
    assert [len(sent) for sent in messages] == [101] * 4
    assert (check(file).problems, check(file).attempts) == ((), 400)


def fill(processes, file: Path, limit_bytes: int) -> tuple[int, str]:
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=store_writer.sweep_until_full, args=(file, theirs, limit_bytes))
    process.start()
    theirs.close()
    ((kept, message),) = received(ours)
    process.join()
    assert process.exitcode == 0
    return kept, message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]).returncode == 0
    )
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk_is_one_line_and_the_database_is_whole(processes, small_disk):
    file = small_disk / "luma.db"
    kept, message = fill(processes, file, 0)
    assert kept > 10
    assert message.startswith(f"{file} could not be written (database or disk is full; ")
    assert "bytes free" in message
    assert "--db FILE or LUMA_DB" in message
    assert "\n" not in message
    assert (check(file).problems, check(file).attempts) == ((), kept)


def test_a_limit_on_file_size_is_one_line_and_the_database_is_whole(processes, tmp_path):
    file = tmp_path / "luma.db"
    kept, message = fill(processes, file, 800_000)
    assert kept > 10
    assert message.startswith(f"{file} could not be read or written (disk I/O error; ")
    assert "\n" not in message
    assert (check(file).problems, check(file).attempts) == ((), kept)


def test_a_disk_too_full_to_begin_leaves_nothing_behind(processes, tmp_path):
    file = tmp_path / "luma.db"
    kept, message = fill(processes, file, 5_000)
    assert kept == 0
    assert str(file) in message
    assert list(tmp_path.iterdir()) == []
