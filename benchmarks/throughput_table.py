"""Makes `profiles/reference/timm_throughput.csv` of a transcription of timm's result files.

Usage: python benchmarks/throughput_table.py RAW.csv profiles/reference/timm_throughput.csv
The transcription has one row per checkpoint and setting (https://github.com/huggingface/pytorch-image-models,
`results/`), the table one row per architecture and size and one column per setting.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from luma_cli import files
from luma_cli.errors import BadCard
from luma_cli.speed.reference import FACTS, HardwareSetting

USAGE = "usage: python benchmarks/throughput_table.py RAW.csv OUT.csv"


def compact(raw: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Header and rows of the shipped file: checkpoints of one architecture at one size share one measurement.

    Raises BadCard where they do not, or where a number is not positive.
    """
    rates: dict[tuple[str, int], dict[HardwareSetting, float]] = {}
    facts: dict[tuple[str, int], tuple[str, str, str]] = {}
    for number, row in enumerate(raw, 2):
        key = row["model"].split(".")[0], int(row["img_size"])
        mode, torch = row["mode"].split(" pt")
        setting = HardwareSetting(row["hardware"], row["precision"], row["layout"], mode, torch)
        rate = float(row["infer_samples_per_sec"])
        if rate <= 0 or rates.setdefault(key, {}).setdefault(setting, rate) != rate:
            raise BadCard(f"line {number}: {rate} images/s for {row['model']}, expected one positive rate per size")
        facts.setdefault(key, (row["family"], row["infer_gmacs"], row["infer_macts"]))
    settings = sorted({setting for found in rates.values() for setting in found})
    table = [[*FACTS, *(setting.label for setting in settings)]]
    for (name, side), found in sorted(rates.items(), key=lambda each: each[0]):
        shown = [f"{found[each]:g}" if each in found else "" for each in settings]
        table.append([name, str(side), *facts[name, side], *shown])
    return table


def main(arguments: Sequence[str]) -> int:
    """Makes the shipped file of the transcription; says to stderr what was read."""
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    raw = files.read_csv(Path(arguments[0]))
    table = compact(raw)
    with Path(arguments[1]).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    settings = len(table[0]) - len(FACTS)
    print(f"{len(raw)} rows read, {len(table) - 1} architectures and sizes on {settings} settings", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
