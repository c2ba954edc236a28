"""Kill -9 a sweep that profiles into a real database, again and again: nothing is lost, half kept or measured twice."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

NUM_TRIALS = 20
RESOLUTIONS = tuple(range(32, 32 + 16 * 8, 8))

WORKER = """
import json, os, sys, time
fd = int(sys.argv[sys.argv.index("--events") + 1])
options = json.loads(sys.stdin.readline())["Options"]
for c in (json.loads(line)["Configuration"] for line in sys.stdin):
    with open({log!r}, "a") as log:
        print(c["resolution"], file=log)
    time.sleep(0.02)
    metric = dict(name="throughput", unit="images/s", median=1.0, ci_low=1.0, ci_high=1.0, n=3, p90=None, noisy=False,
                  samples=[1.0, 1.0, 1.0])
    result = dict(status="ok", reason="", batch=4, facts={{}}, metrics={{"throughput": metric}}, notes={{}},
                  provenance={{}}, seconds=0.1)
    os.write(fd, json.dumps(dict(Result=result)).encode() + b"\\n")
"""

SWEEP = """
from pathlib import Path
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.measure import sweep
from luma_cli.store.database import open_write
from luma_cli.store.profiles import ProfileStore
from luma_cli.store.records import Environment

configurations = sweep.plan([BackboneSpec("test_vit", "test_vit", "test_vit")], {resolutions}, sweep.template())
store = ProfileStore(open_write(Path({database!r})))
here = Environment({{"device": "cpu", "device_name": "made up"}})
print("ready", flush=True)
sweep.measure_all(configurations, sweep.SweepSettings(isolation="backbone"), store=store, here=here,
    facts=lambda c, i: [{{}}] * len(c), command={command!r})
"""


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER.format(log=str(tmp_path / "log")))
    command = [sys.executable, str(worker)]
    source = SWEEP.format(resolutions=RESOLUTIONS, database=str(tmp_path / "luma.db"), command=command)
    return [sys.executable, "-c", textwrap.dedent(source)]


def kept(database: Path) -> list[int]:
    connection = sqlite3.connect(database)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        counts = connection.execute(
            "SELECT c.resolution, (SELECT count(*) FROM metric m WHERE m.attempt_id = a.attempt_id)"
            " FROM attempt a JOIN configuration c USING (configuration_id)"
        ).fetchall()
    finally:
        connection.close()
    assert all(num_metrics == 1 for _, num_metrics in counts)
    return [resolution for resolution, _ in counts]


def test_killed_at_any_time_only_the_gap_is_measured(script: list[str], tmp_path: Path) -> None:
    draw = random.Random(0)
    database, log = tmp_path / "luma.db", tmp_path / "log"
    before: list[int] = []
    for _ in range(NUM_TRIALS):
        parent = subprocess.Popen(script, stdout=subprocess.PIPE)
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        time.sleep(draw.uniform(0.0, 0.15))
        parent.kill()
        parent.wait()
        parent.stdout.close()
        now = kept(database)
        assert set(before) <= set(now)
        assert len(now) == len(set(now))
        before = now
        if len(now) == len(RESOLUTIONS):
            break
    subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    assert sorted(kept(database)) == sorted(RESOLUTIONS)
    measured = len(log.read_text().split())
    subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
    assert len(log.read_text().split()) == measured
