"""SIGKILL at any moment, also while a checkpoint is written: a sound one is there, and the run goes on exactly."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import checkpoint_writer
import pytest
from run_samples import CONFIG, RUN_ID

from luma_cli.train.checkpoints import best, latest_sound, names
from luma_cli.train.run_folder import holder, open_run, started

TRIALS = 20


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(checkpoint_writer.PRELOAD)
    return context


def launch(processes, path: Path, num_steps: int):
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=checkpoint_writer.train, args=(path, num_steps, theirs))
    process.start()
    theirs.close()
    return process, ours


def received(pipe) -> list:
    messages = []
    while True:
        try:
            messages.append(pipe.recv())
        except EOFError:
            pipe.close()
            return messages


def new_run(path: Path) -> Path:
    with started(path, RUN_ID, CONFIG):
        return path


def losses(processes, path: Path, num_steps: int) -> dict[int, float]:
    process, pipe = launch(processes, path, num_steps)
    told = received(pipe)
    process.join()
    assert (process.exitcode, told[-1]) == (0, "end")
    return dict(told[:-1])


def test_killed_at_any_moment_a_run_has_a_sound_checkpoint_and_goes_on_bit_for_bit(processes, tmp_path):
    """Twenty kills of one run, each after a random number of steps and a random time into the next checkpoint."""
    path, dice, found, deaths = new_run(tmp_path / "killed"), random.Random(0), {}, []
    for trial in range(TRIALS):
        process, pipe = launch(processes, path, 10_000)
        told = [pipe.recv() for _ in range(dice.randrange(1, 3))]
        time.sleep(dice.uniform(0, 0.02))
        process.kill()
        process.join()
        told += received(pipe)
        folder = open_run(path)
        assert holder(path) is None
        sound = latest_sound(folder)
        assert sound.skipped == ()
        # what was acknowledged is there; one more may have been finished and not told
        assert 0 <= sound.manifest.step - told[-1][0] <= 1, trial
        if sound.manifest.step >= 6:
            assert int(best(folder).name[5:11]) % 5 == 0
        found |= dict(told)
        deaths.append([child.name for child in folder.checkpoints.iterdir() if child.name.startswith(".")])
    last = max(found)
    found |= losses(processes, path, last + 3)
    expected = losses(processes, new_run(tmp_path / "whole"), last + 3)
    assert {step: expected[step] for step in found} == found
    assert any(deaths), "no kill fell into the writing of a checkpoint: the test has lost its point"
    assert [name for name in names(open_run(path)) if name.startswith(".")] == []
