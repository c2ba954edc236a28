"""Run folders: one run each, one training at a time, found by id, prefix, `latest` or path."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from run_samples import CONFIG, RUN_ID, record, saved

from luma_cli.errors import CheckpointError, RunError
from luma_cli.store import database
from luma_cli.store.runs import start_run
from luma_cli.train.run_folder import (
    Holder,
    RunFolder,
    RunWarning,
    holder,
    locked,
    new_run_id,
    open_run,
    resumed,
    started,
)
from luma_cli.train.runs import find_run


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    with started(tmp_path / "runs" / RUN_ID, RUN_ID, CONFIG) as made:
        return made


def test_ids_say_when_what_and_on_what():
    now = datetime(2026, 11, 21, 15, 30, 12)
    assert new_run_id("vit_b.dinov3", "ade20k", now, "3fa2") == "20261121-153012-vit_b.dinov3-ade20k-3fa2"
    assert new_run_id("hf-hub:timm/My Net", "/data/own set.toml", now, "0") == "20261121-153012-my-net-own-set-0"
    assert new_run_id("local-dir:/x/../", "..", now, "0") == "20261121-153012-unnamed-unnamed-0"
    assert len({new_run_id("a", "b", now) for _ in range(50)}) > 45


def test_a_folder_knows_its_run_and_its_configuration(folder):
    again = open_run(folder.path)
    assert (again, again.config()) == (folder, CONFIG)
    assert [again.pointed("latest"), again.pointed("best")] == ["", ""]
    assert json.loads((folder.path / "config.json").read_text()) == json.loads(json.dumps(CONFIG.to_json()))


def test_a_second_run_in_a_folder_is_refused_once_there_is_a_checkpoint(folder):
    (folder.checkpoints / "step-000001").mkdir()
    with pytest.raises(RunError, match=f"holds run {RUN_ID}; go on with --resume"), started(folder.path, "x", CONFIG):
        pass
    assert open_run(folder.path) == folder


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match=r"holds thesis\.tex, expected a new or empty folder"):
        started(tmp_path, "x", CONFIG).__enter__()
    assert not (tmp_path / "run.json").exists()


def test_what_a_killed_start_left_is_no_run_and_no_hindrance(folder):
    (folder.path / "run.json").unlink()
    with pytest.raises(RunError, match="is not a run folder"):
        open_run(folder.path)
    with started(folder.path, "second", CONFIG) as again:
        assert again.run_id == "second"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "holds a list"),
        ('{"schema": 2}', "has schema 2, this luma knows 1"),
        ('{"schema": 1, "backbone": "x"}', "is not the configuration of a run"),
        ('{"schema": 1, "head": {"colour": 1}, "recipe": {}}', "is not the configuration of a run"),
    ],
)
def test_a_damaged_configuration_is_named(folder, content, message):
    (folder.path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        folder.config()
    assert str(folder.path / "config.json") in str(caught.value)


def test_a_read_only_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be used: .*--out"), started(tmp_path / "file" / "run", "x", CONFIG):
        pass


def test_two_trainings_in_one_folder_are_refused_and_the_holder_is_named(folder):
    with resumed(folder.path):
        assert holder(folder.path) == Holder(os.getpid(), socket.gethostname(), holder(folder.path).since)
        with pytest.raises(RunError, match=f"in use by process {os.getpid()} on {socket.gethostname()}"):
            resumed(folder.path).__enter__()
    assert holder(folder.path) is None
    with resumed(folder.path):
        pass


def test_looking_at_a_lock_does_not_turn_a_training_away(folder):
    handle = os.open(folder.path / "lock", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    with locked(folder.path, sleep=lambda seconds: os.close(handle)):
        assert holder(folder.path) is not None


def test_patience_has_an_end(folder):
    now = iter(range(10))
    with (
        locked(folder.path),
        pytest.raises(RunError, match="in use by"),
        locked(folder.path, sleep=lambda seconds: None, clock=lambda: next(now)),
    ):
        pass


HOLD = """
import os, sys, time
from pathlib import Path
from luma_cli.train.run_folder import locked
with locked(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        time.sleep(60)
    print(child, flush=True)
    time.sleep(60)
"""


def test_kill_9_frees_the_folder_though_loader_workers_live_on(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        assert holder(tmp_path) == Holder(process.pid, socket.gethostname(), holder(tmp_path).since)
        process.kill()
        process.wait()
        os.kill(worker, 0)
        deadline = time.monotonic() + 20  # the worker lets go as it starts, which a busy machine may put off
        while holder(tmp_path) is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert holder(tmp_path) is None
        with locked(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def refused(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.warns(RunWarning, match="knows no locks"), locked(tmp_path):
        pass


def kept(*records) -> None:
    with closing(database.open_write()) as db:
        for one in records:
            start_run(db, one)


def test_runs_are_found_by_id_prefix_latest_and_path(folder, monkeypatch, tmp_path):
    (checkpoint,) = saved(folder, 3)
    earlier = record("20250101-000000-x-y-0", started_at="2025-01-01", folder=str(folder.path))
    kept(record(folder=str(folder.path)), earlier)
    monkeypatch.chdir(tmp_path)
    for text in (RUN_ID, "2026", "latest", str(folder.path), f"runs/{RUN_ID}"):
        found = find_run(text)
        assert (found.run_id, found.record.run_id, found.checkpoint) == (RUN_ID, RUN_ID, None)
        assert found.folder.path.samefile(folder.path)
    assert find_run(str(checkpoint)).checkpoint == checkpoint
    assert find_run(str(checkpoint)).run_id == RUN_ID
    # the folder has another run in it by now
    assert find_run("2025").folder is None


def test_runs_of_another_database_are_found_in_the_folder_of_runs(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for text in (RUN_ID, "latest", RUN_ID[:20]):
        assert (find_run(text).folder.path.name, find_run(text).record) == (RUN_ID, None)
    newer = record(RUN_ID.replace("2026", "2027"), started_at="2027-11-21")
    kept(newer)
    assert find_run("latest").run_id == newer.run_id


def test_an_unknown_or_ambiguous_run_is_told_what_there_is(tmp_path):
    with pytest.raises(RunError, match="there is none yet; `luma train"):
        find_run("nix")
    with pytest.raises(RunError, match="there is no run yet"):
        find_run("latest")
    kept(record("aa-1"), record("aa-2"), record("b"))
    with pytest.raises(RunError, match="start of 2 runs, expected of one: aa-1, aa-2"):
        find_run("aa")
    with pytest.raises(RunError, match="no run or checkpoint 'aa-3'; there is aa-2, aa-1|aa-1, aa-2"):
        find_run("aa-3")
    with pytest.raises(RunError, match="there is aa-1, aa-2, b; `luma runs list`"):
        find_run("")


def test_a_folder_that_is_no_run_is_no_answer(tmp_path):
    with pytest.raises(RunError, match="no run"):
        find_run(str(tmp_path))


def test_looking_for_runs_needs_no_torch(folder):
    code = (
        "import sys; from luma_cli.train.runs import find_run; from luma_cli.train.checkpoints import names\n"
        "import luma_cli.train.config, luma_cli.train.processes, luma_cli.cli.runs, luma_cli.report.runs\n"
        "print(find_run(sys.argv[1]).run_id, [name for name in ('torch', 'timm', 'scipy') if name in sys.modules])"
    )
    started_at = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, folder.path], capture_output=True, text=True, check=True)
    assert done.stdout == f"{RUN_ID} []\n"
    assert time.monotonic() - started_at < 30


@pytest.mark.parametrize("content", ["", "[]", '{"run_id": 3}'])
def test_one_damaged_folder_hides_no_other_run(folder, monkeypatch, tmp_path, content):
    kept(record(folder=str(folder.path)), record("other"))
    (folder.path / "run.json").write_text(content)
    monkeypatch.chdir(tmp_path)
    assert find_run("other").run_id == "other"
    assert find_run(RUN_ID).folder is None
    with pytest.raises(RunError, match=r"run\.json"):
        find_run(str(folder.path))


def test_a_run_folder_may_move(folder, tmp_path):
    moved = folder.path.rename(tmp_path / "elsewhere")
    assert open_run(moved) == replace(folder, path=moved)
