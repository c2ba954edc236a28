"""Clocks, power and temperature every 50 ms, sampled by a process of its own so that the measured one is not disturbed.

Run as `python -P -m luma_cli.measure.sampler UUID`; it writes one JSON line per sample and ends when stdin does.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from luma_cli.measure.nvml import DISCARDING, Gpu, load_nvml, reason_names
from luma_cli.measure.statistics import median

PERIOD_SECONDS = 0.05
COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "luma_cli.measure.sampler")
Samples = list[dict[str, Any]]


@contextlib.contextmanager
def sampling(uuid: str, command: Sequence[str] = COMMAND) -> Iterator[Samples]:
    """Samples of the GPU taken inside; the list is filled on leaving, and empty where NVML does not answer."""
    samples: Samples = []
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*command, uuid], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.DEVNULL, start_new_session=False
        )
        try:
            yield samples
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            output.seek(0)
            samples.extend(json.loads(line) for line in output if line.endswith(b"\n"))


def summary(samples: Samples) -> dict[str, Any]:
    """What is kept of the samples: how many, medians and extremes, and the share of them under each reason."""
    kept: dict[str, Any] = {"num_samples": len(samples)}
    for name in ("sm_mhz", "memory_mhz", "watts", "celsius", "utilisation_percent"):
        values = [float(sample[name]) for sample in samples if sample.get(name) is not None]
        if values:
            kept[name] = {"min": min(values), "median": median(values), "max": max(values)}
    masks = [int(sample["reasons"]) for sample in samples if sample.get("reasons") is not None]
    names = sorted({name for mask in masks for name in reason_names(mask)})
    kept["reasons"] = {name: sum(name in reason_names(mask) for mask in masks) / len(masks) for name in names}
    return kept


def throttled(samples: Samples) -> bool:
    """Whether heat or a hardware limit slowed the GPU in any sample; a power cap in software does not count."""
    return any(int(sample.get("reasons") or 0) & DISCARDING for sample in samples)


def run(gpu: Gpu, stop: Callable[[float], bool], write: Callable[[str], object]) -> None:
    """Write samples until `stop(period)`, which sleeps, says so."""
    while True:
        write(json.dumps({"at": time.time(), **gpu.clocks()}) + "\n")
        if stop(PERIOD_SECONDS):
            return


def _stdin_ended(period_seconds: float) -> bool:
    """Sleep for the period, or until stdin ends."""
    return bool(select.select([0], [], [], period_seconds)[0])


def _write(line: str) -> None:
    """Write a whole line at once."""
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    run(load_nvml().open(sys.argv[1]), _stdin_ended, _write)
