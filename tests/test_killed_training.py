"""A training that is killed goes on as if it had not been: the curve is the same to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from drawn_data import drawn
from killed_training import killed, losses, start
from run_samples import load_run

from luma_cli.store.database import open_read
from luma_cli.train.run_folder import open_run

NUM_STEPS = 16


def test_a_killed_run_has_the_curve_of_an_unbroken_one(tmp_path):
    assert killed(tmp_path / "whole", drawn(), NUM_STEPS, 0, 0, signal.SIGKILL, 0) == 0
    assert len(losses(tmp_path / "whole")) == NUM_STEPS
    for which, num_workers in ((signal.SIGKILL, 2), (signal.SIGTERM, 0)):
        out = tmp_path / which.name
        killed(out, drawn(), NUM_STEPS, num_workers, 1, which, seed=1)
        assert losses(out) == losses(tmp_path / "whole")


@pytest.mark.parametrize(("which", "code"), [(signal.SIGUSR1, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_says_how_to_go_on_and_ends(tmp_path, which, code):
    process = start(tmp_path / "run", drawn(), 5000, 0)
    while not list((tmp_path / "run" / "checkpoints").glob("step-*")):
        time.sleep(0.05)
        assert process.poll() is None, process.said()
    os.kill(process.pid, which)
    assert process.wait(60) == code
    run_id = open_run(tmp_path / "run").run_id
    assert f"luma train --resume {run_id}" in process.said()
    record = load_run(open_read(), run_id)
    assert record.status == "stopped"
    assert 0 < record.step < 5000
    assert subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, check=False).returncode == 1
