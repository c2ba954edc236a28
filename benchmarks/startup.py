"""How fast the commands that never need torch answer, against `import timm`, cold processes interleaved in one run.

Usage: python benchmarks/startup.py [--rounds 7]
Targets, against `import timm`: `luma --help` 0.25 s and 12x, `luma list` 0.35 s and 8x, `luma recommend` 0.6 s and 5x.
Runs with whatever is installed; install pandas first to see that it costs nothing (sqlite-utils imports it).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time

LUMA = [sys.executable, "-P", "-m", "luma_cli"]
COMMANDS: dict[str, tuple[list[str], float, float]] = {
    "import timm": ([sys.executable, "-P", "-c", "import timm"], 0.0, 0.0),
    "luma --help": ([*LUMA, "--help"], 0.25, 12.0),
    "luma list": ([*LUMA, "list"], 0.35, 8.0),
    "luma recommend": ([*LUMA, "recommend", "--budget", "200gflops"], 0.6, 5.0),
}


def seconds(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "LUMA_DB": f"{home}/luma.db", "HF_HUB_OFFLINE": "1"}
        for command, _, _ in COMMANDS.values():
            seconds(command, environment)  # fills the disk cache and the .pyc files
        for _ in range(rounds):
            for name, (command, _, _) in COMMANDS.items():
                times[name].append(seconds(command, environment))
    timm = statistics.median(times["import timm"])
    print(f"pandas installed: {importlib.util.find_spec('pandas') is not None}; median of {rounds} cold processes")
    print(f"{'command':16} {'seconds':>8} {'target':>7} {'ratio':>7} {'target':>7}")
    for name, (_, limit, ratio) in COMMANDS.items():
        median = statistics.median(times[name])
        print(f"{name:16} {median:8.3f} {limit or '':>7} {timm / median:6.1f}x {f'{ratio}x' if ratio else '':>7}")


if __name__ == "__main__":
    main()
