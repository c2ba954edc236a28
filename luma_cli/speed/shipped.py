"""The shipped throughput of timm's classifiers on eight hardware settings, `profiles/reference/timm_throughput.csv`.

    python -m luma_cli.speed.shipped RAW.csv profiles/reference/timm_throughput.csv

RAW is the transcription of timm's own result files, one row per checkpoint and setting; what ships is one row per
architecture and size, one column per setting. Source: https://github.com/huggingface/pytorch-image-models, `results/`.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from luma_cli import files
from luma_cli.errors import BadCard

_FACTS = ("architecture", "resolution", "family", "gmacs", "mega_activations")
_USAGE = "usage: python -m luma_cli.speed.shipped RAW.csv OUT.csv"


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """What a column was measured on: device model, precision, memory layout, mode (`eager` or `dynamo`), torch."""

    device_name: str
    precision: str
    layout: str
    mode: str
    torch: str

    @property
    def label(self) -> str:
        """The column's name, e.g. `RTX 4090/amp/nchw/eager/2.4`."""
        return "/".join((self.device_name, self.precision, self.layout, self.mode, self.torch))

    @property
    def speed_class(self) -> tuple[str, str]:
        """Device kind with precision, and compile mode: numbers of different classes are never compared."""
        kind = "cpu" if self.device_name.startswith("CPU") else "cuda"
        precision = "fp32" if self.precision == "fp32" else "half"
        return f"{kind} {precision}", "none" if self.mode == "eager" else "default"


@dataclass(frozen=True, slots=True)
class Classifier:
    """One classifier at one size: backbone and pooled linear head, as timm counts it.

    macs: multiply-adds; activations: outputs of convolutions and linear layers. milliseconds: per image at the largest
    batch that timm tried (up to 2048; 1 on the CPU), in the order of `Table.settings`, None where not measured.
    """

    architecture: str
    resolution: int
    family: str
    macs: float
    activations: float
    milliseconds: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """All settings with all classifiers."""

    settings: tuple[Setting, ...]
    rows: tuple[Classifier, ...]


def path() -> Path:
    """The table that ships with luma."""
    return files.root() / "profiles" / "reference" / "timm_throughput.csv"


@cache
def load() -> Table:
    """The shipped table; without rows where none ships. Raises BadCard for a file that is no such table."""
    return read(path()) if path().is_file() else Table((), ())


def read(file: Path) -> Table:
    """The table in `file`. Raises BadCard, naming the line, when it is not one."""
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        header = next(reader, [])
        if tuple(header[: len(_FACTS)]) != _FACTS:
            raise BadCard(f"{file}: no throughput table, the header should begin with {','.join(_FACTS)}")
        try:
            settings = tuple(Setting(*name.split("/")) for name in header[len(_FACTS) :])
            return Table(settings, tuple(map(_classifier, reader)))
        except (TypeError, ValueError) as error:
            raise BadCard(f"{file}: line {reader.line_num} is no row of a throughput table ({error})") from error


def _classifier(row: Sequence[str]) -> Classifier:
    name, side, family, gmacs, activations, *rates = row
    times = tuple(1e3 / float(rate) if rate else None for rate in rates)
    return Classifier(name, int(side), family, float(gmacs) * 1e9, float(activations) * 1e6, times)


def compact(raw: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Header and rows of the shipped file: checkpoints of one architecture at one size share one measurement.

    Raises BadCard where they do not, or where a number is not positive.
    """
    rates: dict[tuple[str, int], dict[Setting, float]] = {}
    facts: dict[tuple[str, int], tuple[str, str, str]] = {}
    for number, row in enumerate(raw, 2):
        key, setting = (row["model"].split(".")[0], int(row["img_size"])), _setting(row)
        rate = float(row["infer_samples_per_sec"])
        if rate <= 0 or rates.setdefault(key, {}).setdefault(setting, rate) != rate:
            raise BadCard(f"line {number}: {rate} images/s for {row['model']}, expected one positive rate per size")
        facts.setdefault(key, (row["family"], row["infer_gmacs"], row["infer_macts"]))
    settings = sorted({setting for found in rates.values() for setting in found})
    header = [*_FACTS, *(setting.label for setting in settings)]
    return [
        header,
        *([name, str(side), *facts[name, side], *_rates(rates[name, side], settings)] for name, side in sorted(rates)),
    ]


def _rates(found: Mapping[Setting, float], settings: Sequence[Setting]) -> list[str]:
    return [f"{found[each]:g}" if each in found else "" for each in settings]


def _setting(row: Mapping[str, str]) -> Setting:
    mode, torch = row["mode"].split(" pt")
    return Setting(row["hardware"], row["precision"], row["layout"], mode, torch)


def main(arguments: Sequence[str]) -> int:
    """Makes the shipped file of the transcription; says to stderr what was read."""
    if len(arguments) != 2:
        print(_USAGE, file=sys.stderr)
        return 2
    raw = files.read_csv(Path(arguments[0]))
    table = compact(raw)
    with Path(arguments[1]).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    settings = len(table[0]) - len(_FACTS)
    print(f"{len(raw)} rows read, {len(table) - 1} architectures and sizes on {settings} settings", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
