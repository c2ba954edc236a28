"""Speed of the store: seconds to save one profile, and to read what a recommendation needs out of 100,000.

    python benchmarks/store.py [--profiles 100000]

The database is filled by SQL from one saved profile: what is timed is reading, and saving is timed on its own.
"""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from luma_cli.store import database
from luma_cli.store.database import transaction
from luma_cli.store.profiles import load, measurements, save, select_rows
from luma_cli.store.records import Configuration, Environment, Metric, Profile

NAMES = ("latency_eager", "latency_cuda_graph", "throughput", "energy")
MEMORIES = tuple(f"memory_{kind}{batch}" for kind in ("allocated", "reserved", "device") for batch in ("", "_plateau"))
UNITS = {"throughput": "images/s", "energy": "J", **dict.fromkeys(MEMORIES, "bytes")}
DEVICES = 8

# Row i of `number` becomes configuration, environment and attempt i; hashes are made unique, not recomputed.
NUMBERS = "WITH RECURSIVE number(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM number WHERE i < ?)"
FILL = (
    f"""INSERT INTO environment SELECT 1 + i, printf('%064x', i), 'GPU ' || i, identity
    FROM environment, (SELECT value AS i FROM json_each('[{",".join(map(str, range(1, DEVICES)))}]'))""",
    f"""INSERT INTO configuration {NUMBERS} SELECT i, printf('%064x', i), backbone || i, timm_name || i, family,
    pretraining, weights, 32 * (i % 32 + 1), head, queries, classes, l2, batch, dtype, attention, compile,
    channels_last, device, part, seed, backbone_hash, tag, json
    FROM number, configuration WHERE configuration_id = 1""",
    f"""INSERT INTO attempt {NUMBERS} SELECT i, printf('%064x', i), printf('%064x', i * 7919), i,
    1 + i % {DEVICES}, 1, status, started_unix_seconds + i, started_at, seconds, batch, plan, device_index,
    device_uuid, macs, backbone_macs, head_macs, params, backbone_params, head_params, flops_complete, ffn, tap,
    throughput_images_per_second + i, throughput_noisy, latency_eager_p50_ms + i, latency_eager_noisy,
    memory_allocated_bytes, memory_device_bytes, energy_j_per_image, energy_noisy, throttled, shared, reason, l2
    FROM number, attempt WHERE attempt_id = 1""",
    f"INSERT INTO detail {NUMBERS} SELECT i, facts, notes FROM number, detail WHERE attempt_id = 1",
    f"""INSERT INTO metric {NUMBERS} SELECT i, name, unit, median + i, ci_low, ci_high, p90, n, noisy
    FROM number, metric WHERE attempt_id = 1""",
    f"""INSERT INTO sample {NUMBERS} SELECT i, name, samples FROM number, sample
    WHERE attempt_id = 1 AND name = 'energy'""",
)


def example(index: int = 0) -> Profile:
    """A profile as large as a real one: ten metrics, 1,000 samples of each latency."""
    sizes = {"latency_eager": 1000, "latency_cuda_graph": 1000, "throughput": 100, "energy": 3}
    metrics = {
        name: Metric(name, UNITS.get(name, "ms"), 7.5, 7.4, 7.6, size, 8.0, False, (7.5,) * size)
        for name, size in {**dict.fromkeys(MEMORIES, 1), **sizes}.items()
    }
    return Profile(
        Configuration("vit_b", "vit_base_patch16_224", 512 + index, device="cuda"),
        Environment({"device_name": "GPU 0", "torch": "2.15.0"}, {"host": "x" * 100, "flags": ["y" * 40] * 20}),
        "ok",
        facts={"macs": 10**11, "params": 10**8, "by_module": ["z" * 40] * 20},
        metrics=metrics,
        notes={"trace": ["t" * 40] * 20},
        started_at="2026-11-21T10:00:00+00:00",
    )


def fill(file: Path, profiles: int) -> None:
    """Makes a database of that many profiles over eight devices."""
    with closing(database.open_write(file)) as db:
        save(db, example())
        with transaction(db.conn):
            for statement in FILL:
                db.conn.execute(statement, [profiles] if "?" in statement else [])


def seconds(call: Callable[[], object], times: int = 5) -> float:
    """Median seconds of `call`."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[times // 2]


def one_profile(connection: sqlite3.Connection, backbone: str) -> list[Profile]:
    """The profiles of a backbone, found by its name."""
    keys = [key for (key,) in select_rows(connection, ["attempt_id"], backbone=backbone)]
    return list(load(connection, keys, samples=False).values())


def saving(file: Path, times: int = 50) -> float:
    """Median seconds to save one profile, synchronised to disk."""
    with closing(database.open_write(file)) as db:
        fresh = iter([replace(example(index + 1), seconds=float(index)) for index in range(times)])
        return seconds(lambda: save(db, next(fresh)), times)


def cold(file: Path) -> float:
    """Median seconds of a new Python process that opens the database and reads one column."""
    code = (
        "import time; start = time.perf_counter()\n"
        "from luma_cli.store.database import open_read\nfrom luma_cli.store.profiles import select_rows\n"
        f"select_rows(open_read({str(file)!r}), ['gmacs'], timm_name='vit_base_patch16_224')\n"
        "print(time.perf_counter() - start)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    return sorted(float(run.stdout) for run in runs)[2]


def main() -> None:
    """Prints each time and, where there is one, its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, default=100_000)
    wanted = parser.parse_args().profiles
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "luma.db"
        fill(file, wanted)
        size = file.stat().st_size / 2**20
        connection = database.open_read(file)
        assert connection is not None
        with closing(connection):
            one = seconds(lambda: measurements(connection, device_name="GPU 1"))
            every = seconds(lambda: measurements(connection))
            rows = len(measurements(connection, device_name="GPU 1"))
            whole = seconds(lambda: one_profile(connection, "vit_b77"))
        print(f"database        {wanted} profiles, {size:.0f} MiB")
        print(f"one device      {one:.3f} s for {rows} rows (limit 0.5 s)")
        print(f"every device    {every:.3f} s for {wanted} rows")
        print(f"one Profile     {whole * 1e3:.1f} ms")
        print(f"cold open+read  {cold(file):.3f} s beyond the start of Python")
        print(f"save            {saving(file) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
