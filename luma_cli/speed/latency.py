"""Latency of one image on a device of which only throughput or a specification is known.

    latency = (work^2 + launches^2)^(1/2)        work = alone x time per image at large batches
                                                 launches = kernels x cost of a launch in the runtime

A GPU runs while the host launches, so the longer of the two counts; near their crossing both do. Kernels per backbone
are counted (`profiles/kernels.csv`). What a launch costs, how a runtime (eager, compile, tensorrt) differs from timm's
eager throughput, and how a device differs from its specification are fitted to published latencies of segmenters
(`profiles/reference/latency.csv`) and the user's imported ones:

    log ms = log of the above + runtime + device + noise, each Normal

so rows of one runtime inform another only through the device's effect, never as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, log, sqrt
from typing import Literal, get_args

import numpy as np

from luma_cli import files
from luma_cli.errors import BadCard
from luma_cli.speed.devices import DeviceSpec, find_device
from luma_cli.speed.quantity import Workload
from luma_cli.speed.reference import Lineup, by_specification
from luma_cli.speed.transfer import Floats, prior_variance

Runtime = Literal["eager", "compile", "tensorrt"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
DTYPES = ("float32", "float16", "bfloat16", "int8")
# Without published rows of the device: a runtime that deploys without export, and has rows to learn from.
_USUAL: Runtime = "compile"
_SHARPNESS = 2
# Idle units at batch 1 against large batches: half of the largest shipped throughput batch is not full on one image.
_ALONE, _ALONE_SD = log(1.2), 0.18
# Log deviations: hosts differ in what a launch costs; published rows have other heads, image sizes and clocks.
_HOST_SD, _RUNTIME_SD, _DEVICE_SD, _ROW_SD = 0.35, 0.3, 0.35, 0.25
_EAGER_SD, _NO_ROW_SD = 0.6, 0.6
# Kernels of the heads, counted as those of the backbones; another head is like luma's.
_HEAD_KERNELS: Mapping[str, tuple[int, int]] = {"luma": (30, 22), "eomt": (17, 13), "linear": (3, 2), "none": (0, 0)}
_KERNELS_SD = 0.5
# Rows whose launches take less than this share of the time say nothing of launches.
_LEAST_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Published:
    """One measured latency of a segmenter.

    architecture: timm's name of the backbone, or of one with the same kernels; empty where there is none. ms: of the
    whole batch. macs: multiply-adds of the whole segmenter on one image, None where not known.
    """

    model: str
    architecture: str
    head: str
    device: str
    runtime: Runtime
    dtype: str
    height: int
    width: int
    batch: int
    ms: float
    macs: int | None = None
    remark: str = ""
    source: str = ""

    @property
    def workload(self) -> Workload:
        """The segmenter at the square of equal area."""
        side = round(sqrt(self.height * self.width))
        return Workload(self.architecture, side, macs=self.macs, head=self.head or "luma")


@cache
def load_published() -> tuple[Published, ...]:
    """The shipped rows. Raises BadCard, naming the row, for another file."""
    path = files.root() / "profiles" / "reference" / "latency.csv"
    return tuple(_published(f"{path}: row {number}", row) for number, row in enumerate(files.read_csv(path), 1))


def _published(where: str, row: Mapping[str, str]) -> Published:
    try:
        height, width = map(int, row["resolution"].split("x"))
        runtime = next(each for each in RUNTIMES if each == row["runtime"])
        macs = round(float(row["gmacs"]) * 1e9) if row["gmacs"] else None
        names = row["model"], row["architecture"], row["head"], row["device"]
        batch, ms, about = int(row["batch"]), float(row["ms"]), (row["remark"], row["source"])
        return Published(*names, runtime, row["dtype"], height, width, batch, ms, macs, *about)
    except (KeyError, ValueError, StopIteration) as error:
        raise BadCard(f"{where} is no row of a latency table ({error})") from error


@cache
def _kernel_table() -> dict[str, tuple[int, int]]:
    """Kernels of each backbone, eager and fused; empty where no table ships."""
    path = files.root() / "profiles" / "kernels.csv"
    rows = files.read_csv(path) if path.is_file() else []
    return {row["architecture"]: (int(row["kernels"]), int(row["fused"])) for row in rows}


def kernels_of(workload: Workload, runtime: Runtime) -> tuple[float, float]:
    """Kernels that one image launches, and their log deviation; the usual number for a backbone not counted."""
    table, at = _kernel_table(), 0 if runtime == "eager" else 1
    counted = table.get(workload.architecture)
    backbone = counted[at] if counted else float(np.median([each[at] for each in table.values()] or [200]))
    head = _HEAD_KERNELS.get(workload.head, _HEAD_KERNELS["luma"])[at]
    return backbone + head, 0.0 if counted else _KERNELS_SD


@dataclass(frozen=True, slots=True)
class Launches:
    """Log milliseconds of one launch by runtime, and their log deviation between hosts."""

    log_ms: Mapping[Runtime, float]
    sd: Mapping[Runtime, float]


@dataclass(frozen=True, slots=True)
class Latencies:
    """What turns the time at large batches into the latency of one image on a device in a runtime.

    offset, variance: log ratio of the work to what the specification says. num_rows: published rows of this device in
    this runtime.
    """

    runtime: Runtime
    launch: float
    launch_sd: float
    offset: float
    variance: float
    num_rows: int

    def predict(self, workloads: Sequence[Workload], log_ms: Floats, variance: Floats) -> tuple[Floats, Floats]:
        """Mean and variance of log milliseconds of one image, given those per image at large batches."""
        kernels = [kernels_of(each, self.runtime) for each in workloads]
        launches = np.array([log(number) + self.launch for number, _ in kernels])
        spread = np.array([self.launch_sd**2 + sd**2 for _, sd in kernels])
        work = log_ms + _ALONE + self.offset
        total, share = _longer(work, launches)
        noise = share**2 * (variance + _ALONE_SD**2 + self.variance) + (1 - share) ** 2 * spread
        return total, noise


def _longer(work: Floats, launches: Floats) -> tuple[Floats, Floats]:
    """Log of the smooth maximum, and the share of work in it."""
    total = np.logaddexp(_SHARPNESS * work, _SHARPNESS * launches) / _SHARPNESS
    return total, np.exp(_SHARPNESS * (work - total))


def usual_runtime(spec: DeviceSpec | None, rows: Sequence[Published]) -> Runtime:
    """The runtime of most rows of the device in half precision that can be compared; `compile` without any."""
    here = [row.runtime for row in _usable(rows) if spec is not None and _is_of(row, spec)]
    return max(RUNTIMES, key=lambda each: (here.count(each), each == _USUAL))


def _is_of(row: Published, spec: DeviceSpec) -> bool:
    found = find_device(row.device)
    return (found.name if found else row.device) == spec.name


def _usable(rows: Sequence[Published]) -> list[Published]:
    """Rows in half precision of a known device, network and cost."""
    known = _kernel_table()
    return [
        row
        for row in rows
        if row.macs and row.architecture in known and row.dtype in ("float16", "bfloat16") and _lineup_of(row)
    ]


def _lineup_of(row: Published) -> Lineup | None:
    spec = find_device(row.device)
    return by_specification(spec) if spec else None


def _work(rows: Sequence[Published]) -> tuple[Floats, Floats]:
    """Log milliseconds of each row's image at large batches by specification, and the variance without the level."""
    means, variances = [], []
    for row in rows:
        found = _lineup_of(row)
        assert found is not None  # as _usable has it
        points = found.reference.points([row.workload])
        means.append(float(points.base[0]))
        variances.append(float(prior_variance(points, found.spread)[0]) - found.spread.scale**2)
    return np.array(means, dtype=float), np.array(variances, dtype=float)


def fit_launches(rows: Sequence[Published]) -> Launches:
    """Launch costs from the rows that launches decide.

    Rows of one model suite in eager mode (mmsegmentation, 2021) include its post-processing and unfused attention: they
    bound the cost from above, and compiled rows from below; eager's is taken between. A runtime of which every row is
    decided by work is at most what its shortest row leaves.
    """
    compiled = [_left_over(row, *pair) for row, pair in zip(*_paired(rows, "compile"), strict=True)]
    decided = [value for value, share in compiled if share >= _LEAST_SHARE]
    usual = float(np.median(decided)) if decided else min([value for value, _ in compiled] or [log(0.05)]) - _HOST_SD
    slowest = [log(row.ms / row.batch / kernels_of(row.workload, row.runtime)[0]) for row in rows if _is_slow(row)]
    eager = (usual + float(np.median(slowest))) / 2 if slowest else usual + log(2)
    short = [
        value for value, _ in (_left_over(row, *pair) for row, pair in zip(*_paired(rows, "tensorrt"), strict=True))
    ]
    tensorrt = min([*short, usual - log(2)])
    return Launches(
        {"eager": eager, "compile": usual, "tensorrt": tensorrt},
        {"eager": _EAGER_SD, "compile": _HOST_SD if decided else _NO_ROW_SD, "tensorrt": _NO_ROW_SD},
    )


def _is_slow(row: Published) -> bool:
    return row.runtime == "eager" and row.batch == 1 and row.architecture in _kernel_table()


def _paired(rows: Sequence[Published], runtime: Runtime) -> tuple[list[Published], list[tuple[float, float]]]:
    chosen = [row for row in _usable(rows) if row.runtime == runtime and row.batch == 1]
    means, variances = _work(chosen)
    return chosen, list(zip(means.tolist(), variances.tolist(), strict=True))


def _left_over(row: Published, work: float, _variance: float) -> tuple[float, float]:
    """Log milliseconds per launch if launches explain what work does not, and the share of the time that they take."""
    rest = max(row.ms**_SHARPNESS - exp(_SHARPNESS * (work + _ALONE)), (row.ms / 2) ** _SHARPNESS) ** (1 / _SHARPNESS)
    return log(rest / kernels_of(row.workload, row.runtime)[0]), rest / row.ms


def latencies(
    spec: DeviceSpec | None, runtime: Runtime, rows: Sequence[Published] | None = None, known_level: bool = False
) -> Latencies:
    """What published rows say about a device in a runtime.

    spec: None for a device without figures. known_level: whether the device's throughput is measured.
    """
    every = load_published() if rows is None else tuple(rows)
    return _latencies(spec, runtime, every, known_level)


@cache
def _latencies(spec: DeviceSpec | None, runtime: Runtime, rows: tuple[Published, ...], known_level: bool) -> Latencies:
    launches = fit_launches(rows)
    usable = _usable(rows)
    here = [spec is not None and _is_of(row, spec) for row in usable]
    num_rows = sum(row.runtime == runtime for row, is_here in zip(usable, here, strict=True) if is_here)
    device_sd = 0.1 if known_level else _DEVICE_SD
    prior = _RUNTIME_SD**2
    if not usable:
        return Latencies(runtime, launches.log_ms[runtime], launches.sd[runtime], 0.0, prior, num_rows)
    work, variance = _work(usable)
    launch = np.log([kernels_of(row.workload, row.runtime)[0] / row.batch for row in usable])
    launch += [launches.log_ms[row.runtime] for row in usable]
    alone = np.array([_ALONE if row.batch == 1 else 0.0 for row in usable])
    total, share = _longer(work + alone, launch)
    residual = np.log([row.ms / row.batch for row in usable]) - total
    noise = (_ROW_SD**2 + variance + (1 - share) ** 2 * _HOST_SD**2) / np.maximum(share, 0.1) ** 2
    devices = [find_device(row.device) for row in usable]
    same_device = np.array([[one == other for other in devices] for one in devices], dtype=float)
    same_runtime = np.array([[one.runtime == other.runtime for other in usable] for one in usable], dtype=float)
    gram = _DEVICE_SD**2 * same_device + prior * same_runtime + np.diag(noise)
    cross = prior * np.array([row.runtime == runtime for row in usable], dtype=float)
    cross = cross + (0.0 if known_level else _DEVICE_SD**2) * np.array(here, dtype=float)
    gain = np.linalg.solve(gram, cross)
    total_prior = prior + (0.0 if known_level else device_sd**2)
    offset, left = float(gain @ residual), float(total_prior - gain @ cross)
    # The level's own variance is already in the prediction that this corrects.
    own = 0.0 if known_level else _DEVICE_SD**2
    return Latencies(runtime, launches.log_ms[runtime], launches.sd[runtime], offset, max(left, 0.02) - own, num_rows)
