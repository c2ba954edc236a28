"""Kills a training at random moments, resumes it each time, and compares its curve with that of an unbroken run.

    python tests/killed_training.py --kills 20 --signal KILL

is the long form of what the test suite does a few times.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from forked_luma import Forked  # noqa: E402

from luma_cli.store.database import open_read  # noqa: E402
from luma_cli.store.runs import curves  # noqa: E402
from luma_cli.train.checkpoints import latest_sound  # noqa: E402
from luma_cli.train.run_folder import is_run, open_run  # noqa: E402

EARLY = 0.25  # share of kills that do not wait for a checkpoint


def start(out: Path, data: Path, num_steps: int, num_workers: int) -> Forked:
    """Start the run in `out`, or go on with it."""
    command = ["train"]
    if is_run(out):
        command += ["--resume", str(out)]
    else:
        command += ["test_vit", "--data", "ade20k", "--root", str(data), "--out", str(out), "--recipe", "smoke"]
        command += ["--res", "64", "--steps", str(num_steps), "--batch", "4", "--queries", "12"]
        command += ["--set", "warmup_head_steps=1", "--set", "warmup_backbone_steps=1", "--set", "num_points=64"]
    command += ["--device", "cpu", "--checkpoint-steps", "1", "--workers", str(num_workers)]
    return Forked(command, out.with_suffix(".log"))


def killed(
    out: Path, data: Path, num_steps: int, num_workers: int, kills: int, which: signal.Signals, seed: int
) -> int:
    """Run in `out` to the end through `kills` kills at random moments; how many met a run that had begun."""
    chance = random.Random(seed)
    met = 0
    for _ in range(kills):
        early = is_run(out) and chance.random() < EARLY  # while it starts, reads the checkpoint, takes up the run
        process = start(out, data, num_steps, num_workers)
        if not early and not _begun(process, out):
            break
        time.sleep(chance.uniform(0, 3 if early else 1.5))
        met += process.poll() is None
        if process.poll() is None:
            os.killpg(process.pid, which)
        process.wait()
        latest_sound(open_run(out))
    process = start(out, data, num_steps, num_workers)
    assert process.wait() == 0, process.said()
    return met


def _begun(process: Forked, out: Path) -> bool:
    """Wait for a new checkpoint; False when the run ended first."""
    before = set((out / "checkpoints").glob("step-*"))
    while process.poll() is None:
        if set((out / "checkpoints").glob("step-*")) - before:
            return True
        time.sleep(0.02)
    return False


def losses(out: Path) -> list[tuple[int, float]]:
    """The whole curve of the run in `out`."""
    connection = open_read()
    assert connection is not None
    with closing(connection):
        return curves(connection, open_run(out).run_id).get("train/loss", [])


def main() -> None:
    """Say how many kills were met, and whether the curves are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    from drawn_data import drawn

    with tempfile.TemporaryDirectory() as folder:
        os.environ["LUMA_DB"] = str(Path(folder) / "luma.db")
        whole, part = Path(folder) / "whole", Path(folder) / "part"
        killed(whole, drawn(), asked.steps, 0, 0, signal.SIGKILL, 0)
        which = signal.Signals[f"SIG{asked.signal}"]
        met = killed(part, drawn(), asked.steps, asked.workers, asked.kills, which, asked.seed)
        equal = losses(whole) == losses(part)
        print(f"{met} of {asked.kills} kills met the run, {len(losses(part))} losses, equal to the bit: {equal}")
        sys.exit(not equal)


if __name__ == "__main__":
    main()
