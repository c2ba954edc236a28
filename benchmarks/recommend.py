"""Seconds that `luma recommend` takes with a large store: 100,000 profiles over eight devices and 10,000 runs.

    python benchmarks/recommend.py [--profiles 100000] [--runs 10000] [--rounds 5]

Limits: 0.6 s with an empty store and a kept fit, 1.5 s with the large one. The runs are smoke runs on drawn images, as
most of a user's are: they are shown and judged, and teach nothing about the official data. Cold processes, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from store import fill

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import load_recipe
from luma_cli.store import database
from luma_cli.store.database import transaction
from luma_cli.store.records import Environment, EvaluationRecord, RunRecord
from luma_cli.store.runs import save_evaluation, start_run
from luma_cli.train.config import RunConfig

DATA = "ade20k#1a2b3c4d"
NUMBERS = "WITH RECURSIVE number(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM number WHERE i < ?)"
COPIES = (
    f"""INSERT INTO run {NUMBERS} SELECT i, run_id || i, printf('%064x', i), environment_id, provenance_id, revision,
    updated_unix_seconds, status, reason, backbone, timm_name, pretraining, weights, resolution, head, dataset, recipe,
    seed + i, num_steps, batch, num_processes, step, seconds, started_unix_seconds + i, started_at, folder, config,
    facts FROM number, run WHERE run_key = 1""",
    f"""INSERT INTO evaluation {NUMBERS} SELECT i, printf('%064x', i), run_id || i, checkpoint_sha256, step, data,
    split, resolution, protocol, num_images, num_skipped, num_windows, num_classes, num_present, miou_percent,
    macc_percent,
    aacc_percent, boundary_miou_percent, windows_per_image, macs_per_image, seconds, evaluated_unix_seconds,
    evaluated_at FROM number, evaluation WHERE evaluation_id = 1""",
)


def run_record() -> RunRecord:
    config = RunConfig("test_vit", 128, HeadConfig(), "ade20k", load_recipe("smoke"), weights="random")
    return RunRecord(
        run_id="run", folder="", config=config.to_json(), environment=Environment({"device_name": "GPU 1"}),
        backbone="test_vit", timm_name="test_vit.r160_in1k", pretraining="", weights="random", resolution=128,
        head="luma", dataset=DATA, recipe="smoke", seed=0, num_steps=400, batch=16, status="finished", step=400,
        started_at="2026-11-21T15:00:00+00:00", facts={"params": 600_000},
    )  # fmt: skip


def evaluation_record() -> EvaluationRecord:
    protocol = {"window": 128, "scales": [1.0], "flip": False, "absent": "skip", "dtype": "float32"}
    return EvaluationRecord(
        run_id="run", checkpoint_sha256="", step=400, data=DATA, split="val", resolution=128, protocol=protocol,
        num_images=10, num_skipped=0, num_windows=20, num_classes=150, num_present=9, miou_percent=70.0,
        macc_percent=None, aacc_percent=None, boundary_miou_percent=None, windows_per_image=2.0, macs_per_image=1.5e9,
        seconds=1.0, evaluated_at="2026-11-21T15:00:00+00:00",
    )  # fmt: skip


def add_runs(file: Path, runs: int) -> None:
    with closing(database.open_write(file)) as db:
        start_run(db, run_record())
        save_evaluation(db, evaluation_record())
        with transaction(db.conn):
            for statement in COPIES:
                db.conn.execute(statement, [runs])


def seconds(arguments: list[str], file: Path, rounds: int) -> tuple[float, float]:
    """Wall and processor seconds of cold processes, medians; the first fits the model, fills caches and is left out."""
    command = [sys.executable, "-P", "-m", "luma_cli", "recommend", *arguments, "--json", "--db", str(file)]
    taken, worked = [], []
    for _ in range(rounds + 1):
        start, before = time.perf_counter(), os.times()
        done = subprocess.run(command, capture_output=True, text=True)
        taken.append(time.perf_counter() - start)
        after = os.times()
        worked.append(after[2] + after[3] - before[2] - before[3])
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["recommendations"]
    return statistics.median(taken[1:]), statistics.median(worked[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("profiles", 100_000), ("runs", 10_000), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Compiled modules are kept, as they are for whoever has installed luma.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ |= {"XDG_CACHE_HOME": folder, "PYTHONPYCACHEPREFIX": folder}
        empty, large = Path(folder) / "empty.db", Path(folder) / "large.db"
        fill(large, given.profiles)
        add_runs(large, given.runs)
        counted, timed = ["--budget", "200gflops"], ["--budget", "20GiB", "--device", "GPU 1"]
        print(f"large: {given.profiles} profiles, {given.runs} runs; median of {given.rounds} cold processes")
        for name, arguments, file, limit in (
            ("empty, GFLOPs", counted, empty, 0.6),
            ("large, GFLOPs", counted, large, 1.5),
            ("large, memory", timed, large, 1.5),
        ):
            wall, processor = seconds(arguments, file, given.rounds)
            print(f"{name:16} {wall:7.3f} s (limit {limit} s), {processor:.3f} s of processor")


if __name__ == "__main__":
    main()
