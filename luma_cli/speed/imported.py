"""Importing a table of latencies that others measured: which rows come in, which are refused and why."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from math import exp, isfinite, log
from pathlib import Path

import numpy as np

from luma_cli.errors import UsageError
from luma_cli.evidence.imported import Record, read_table
from luma_cli.speed.devices import find_device
from luma_cli.speed.latency import Published, Runtime, load_published
from luma_cli.speed.reference import by_specification
from luma_cli.store import database as files
from luma_cli.store.latency import latency_rows, save_latencies

NEEDED = ("model", "device", "runtime", "dtype", "resolution", "batch", "ms")
COLUMNS = frozenset({*NEEDED, "architecture", "head", "gmacs", "remark", "source"})
_RUNTIMES: Mapping[str, Runtime] = {
    **dict.fromkeys(("eager", "pytorch", "torch"), "eager"),
    **dict.fromkeys(("compile", "torch.compile", "inductor", "dynamo"), "compile"),
    **dict.fromkeys(("tensorrt", "trt"), "tensorrt"),
}
_DTYPES = {
    **dict.fromkeys(("float32", "fp32", "tf32"), "float32"),
    **dict.fromkeys(("float16", "fp16", "half", "amp"), "float16"),
    **dict.fromkeys(("bfloat16", "bf16"), "bfloat16"),
    "int8": "int8",
}
# A row this many times faster than its device could be, or than the file's other rows are against theirs, is in
# seconds: 1,000 apart, with room for both errors.
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ImportedLatencies:
    """What a file of latencies holds. refused: one line for each row that is not taken in."""

    rows: tuple[Published, ...]
    refused: tuple[str, ...]


def is_latency_table(path: Path) -> bool:
    """Whether the file's heading is one of latencies. Raises UsageError for one that is no table."""
    columns = set(read_table(path, COLUMNS | {"dataset", "backbone", "miou", "miou_percent"}).columns)
    return {"device", "ms"} <= columns and not {"miou", "miou_percent"} & columns


def examine_latencies(path: Path) -> ImportedLatencies:
    """The file's rows. Raises UsageError for a missing column, and for seconds among milliseconds."""
    table = read_table(path, COLUMNS)
    if missing := [name for name in NEEDED if name not in table.columns]:
        raise UsageError(f"{path}: no column {', '.join(missing)}; a latency table needs {', '.join(NEEDED)}")
    rows, places, refused = [], [], []
    for record in table.records:
        try:
            rows.append(_row(record, path))
            places.append(record)
        except ValueError as error:
            refused.append(f"row {record.row} (line {record.line}): {error}")
    _refuse_seconds(path, rows, places)
    return ImportedLatencies(tuple(rows), tuple(refused))


def _row(record: Record, path: Path) -> Published:
    """Raises ValueError that says why the row is not taken in."""
    if record.reason:
        raise ValueError(record.reason)
    cells = record.cells
    if empty := [name for name in ("model", "device") if not cells[name]]:
        raise ValueError(f"{empty[0]} is empty")
    runtime, dtype = (cells[name].lower() for name in ("runtime", "dtype"))
    if runtime not in _RUNTIMES:
        raise ValueError(f"runtime is {runtime[:40]!r}, expected eager, compile or tensorrt")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype[:40]!r}, expected float32, float16, bfloat16 or int8")
    sides = cells["resolution"].lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() and 16 <= int(side) <= 16384 for side in sides):
        raise ValueError(f"resolution is {cells['resolution'][:40]!r}, expected 512 or 512x1024 (height x width)")
    if not cells["batch"].isdecimal() or int(cells["batch"]) < 1:
        raise ValueError(f"batch is {cells['batch'][:40]!r}, expected a whole number from 1")
    ms, gmacs = _positive("ms", cells["ms"]), cells.get("gmacs", "")
    return Published(
        cells["model"],
        cells.get("architecture", ""),
        cells.get("head", ""),
        cells["device"],
        _RUNTIMES[runtime],
        _DTYPES[dtype],
        int(sides[0]),
        int(sides[-1]),
        int(cells["batch"]),
        ms,
        round(_positive("gmacs", gmacs) * 1e9) if gmacs else None,
        cells.get("remark", ""),
        cells.get("source") or f"imported from {path.name}",
    )


def _positive(name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not (isfinite(value) and value > 0):
        raise ValueError(f"{name} is {cell[:40]!r}, expected a number above 0")
    return value


def _refuse_seconds(path: Path, rows: list[Published], places: list[Record]) -> None:
    """Raises UsageError where a row is faster than possible, or than the file's others by a factor of about 1,000."""
    ratios = np.array([_ratio(row) for row in rows], dtype=float)
    if not np.isfinite(ratios).any():
        return
    middle = max(0.0, float(np.nanmax(ratios)) - log(_SECONDS))
    slow = [at for at, ratio in enumerate(ratios) if ratio < middle - log(_SECONDS)]
    if slow:
        row, place = rows[slow[0]], places[slow[0]]
        raise UsageError(
            f"{path}: row {place.row} (line {place.line}) has {row.ms:g} ms for {row.model}, "
            f"{exp(-ratios[slow[0]]):,.0f} times faster than {row.device} can be; is it in seconds? give milliseconds"
        )


def _ratio(row: Published) -> float:
    """Log of the time of one image over what the device's figures give; not a number where that is not known."""
    spec = find_device(row.device)
    found = by_specification(spec) if spec else None
    if found is None or (not row.macs and not found.reference.has(row.workload)):
        return float("nan")
    return log(row.ms / row.batch) - float(found.reference.points([row.workload]).base[0])


def keep_latencies(found: ImportedLatencies, database: Path | None = None) -> int:
    """Writes the rows that are not there to the store; returns how many. Raises StoreError."""
    with closing(files.open_write(database)) as db:
        return save_latencies(db, [asdict(row) for row in found.rows])


def every_latency(database: Path | None = None) -> tuple[Published, ...]:
    """The shipped rows, then the imported ones."""
    with files.reading(database) as connection:
        return (*load_published(), *(Published(**row) for row in latency_rows(connection)))
