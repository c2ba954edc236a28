"""One GPU through NVML (module `pynvml`, package nvidia-ml-py), addressed by UUID: clocks, memory, energy, throttling.

A query that a GPU, a MIG slice or a container does not support returns None. Run as a program with a UUID, this file
writes clocks, power and temperature every 50 ms, one JSON line per sample, until stdin ends: in a process of its own,
so that the measured one is not disturbed. Imports no torch.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")
ClockSamples = list[dict[str, Any]]

# Bits of the clocks-event reasons, nvml.h.
REASONS: dict[int, str] = {
    0x1: "gpu_idle",
    0x2: "application_clocks",
    0x4: "software_power_cap",
    0x8: "hardware_slowdown",
    0x10: "sync_boost",
    0x20: "software_thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
    0x100: "display_clocks",
}
# A power cap in software is normal at full load: recorded, never a reason to discard.
DISCARDING = 0x8 | 0x20 | 0x40 | 0x80

SAMPLER: tuple[str, ...] = (sys.executable, "-P", "-m", "luma_cli.measure.nvml")
PERIOD_SECONDS = 0.05
MOST_RETRIES = 3
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 10.0

IDLE_SECONDS = 1.0
PHASE_SHIFT_SECONDS = 0.037
NUM_WINDOWS = 2
_BURST_SECONDS = 0.25  # the host waits for the device this often, so that the window ends when it should

_UNKNOWN_MEMORY = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE


class NvmlMissing(Exception):
    """No NVIDIA driver, or no nvidia-ml-py."""


def load_nvml(module: Any = None) -> Nvml:
    """NVML, initialised. `module` stands in for pynvml in tests. Raises NvmlMissing."""
    if module is None:
        try:
            module = importlib.import_module("pynvml")
        except ImportError as error:
            raise NvmlMissing("nvidia-ml-py is not installed") from error
    try:
        module.nvmlInit()
    except (module.NVMLError, OSError) as error:
        raise NvmlMissing(str(error)) from error
    return Nvml(module)


def reason_names(mask: int) -> tuple[str, ...]:
    """Names of the bits set in a mask of clocks-event reasons."""
    return tuple(name for bit, name in REASONS.items() if mask & bit)


class Nvml:
    """An initialised NVML."""

    def __init__(self, module: Any):
        self._module = module

    def uuids(self) -> list[str]:
        """UUIDs of all GPUs in nvidia-smi's order. Raises NvmlMissing."""
        try:
            count = self._module.nvmlDeviceGetCount()
            handles = [self._module.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
            return [_text(self._module.nvmlDeviceGetUUID(handle)) for handle in handles]
        except self._module.NVMLError as error:
            raise NvmlMissing(str(error)) from error

    def driver(self) -> str:
        """Version of the driver, empty if unknown."""
        try:
            return _text(self._module.nvmlSystemGetDriverVersion())
        except self._module.NVMLError:
            return ""

    def open(self, uuid: str) -> Gpu:
        """The GPU or MIG slice with this UUID. Raises NvmlMissing."""
        try:
            return Gpu(self._module, self._module.nvmlDeviceGetHandleByUUID(uuid), uuid)
        except self._module.NVMLError as error:
            raise NvmlMissing(f"GPU {uuid}: {error}") from error


class Gpu:
    """One GPU. Every query answers None where it is not supported."""

    def __init__(self, module: Any, handle: Any, uuid: str):
        self._module = module
        self._handle = handle
        self.uuid = uuid
        # A driver older than nvidia-ml-py raises an error that is no NVMLError; an older nvidia-ml-py lacks queries.
        older = getattr(module, "NVMLLibraryMismatchError", module.NVMLError)
        self._refusals = (module.NVMLError, older, AttributeError)

    def _ask(self, query: str, *constants: str) -> Any:
        """The answer of `nvmlDeviceGet<query>`, given constants of pynvml by name; None where refused."""
        try:
            arguments = [getattr(self._module, name) for name in constants]
            return getattr(self._module, f"nvmlDeviceGet{query}")(self._handle, *arguments)
        except self._refusals:
            return None

    def name(self) -> str:
        """E.g. `NVIDIA H200`."""
        return _text(self._ask("Name") or "unknown GPU")

    def power_limit_watts(self) -> float | None:
        """The power limit in force, in W."""
        return _watts(self._ask("EnforcedPowerLimit"))

    def vbios(self) -> str:
        """Version of the VBIOS."""
        return _text(self._ask("VbiosVersion") or "")

    def settings(self) -> dict[str, Any]:
        """Settings that can move a number: clocks, persistence, ECC, MIG, PCIe, virtualisation."""
        ecc, mig = self._ask("EccMode"), self._ask("MigMode")  # each current and pending
        return {
            "max_sm_clock_mhz": self._ask("MaxClockInfo", "NVML_CLOCK_SM"),
            "max_memory_clock_mhz": self._ask("MaxClockInfo", "NVML_CLOCK_MEM"),
            "application_sm_clock_mhz": self._ask("ApplicationsClock", "NVML_CLOCK_SM"),
            "persistence": self._ask("PersistenceMode"),
            "ecc": None if ecc is None else ecc[0],
            "mig": None if mig is None else mig[0],
            "pcie_generation": self._ask("CurrPcieLinkGeneration"),
            "pcie_width": self._ask("CurrPcieLinkWidth"),
            "virtualisation": self._ask("VirtualizationMode"),
        }

    def clocks(self) -> dict[str, float | int | None]:
        """Clocks in MHz, power in W, temperature in C, utilisation in %, mask of clocks-event reasons."""
        rates = self._ask("UtilizationRates")
        return {
            "sm_mhz": self._ask("ClockInfo", "NVML_CLOCK_SM"),
            "memory_mhz": self._ask("ClockInfo", "NVML_CLOCK_MEM"),
            "watts": _watts(self._ask("PowerUsage")),
            "celsius": self._ask("Temperature", "NVML_TEMPERATURE_GPU"),
            "utilisation_percent": None if rates is None else rates.gpu,
            "reasons": self.reasons(),
        }

    def reasons(self) -> int | None:
        """Mask of the reasons why the clocks are now below their maximum."""
        mask: int | None = self._ask("CurrentClocksEventReasons")
        return self._ask("CurrentClocksThrottleReasons") if mask is None else mask  # an older driver's name

    def violations_ns(self) -> dict[str, int | None]:
        """Nanoseconds lost so far to the power cap and to the thermal cap."""
        policies = {"power": "NVML_PERF_POLICY_POWER", "thermal": "NVML_PERF_POLICY_THERMAL"}
        found = {name: self._ask("ViolationStatus", policy) for name, policy in policies.items()}
        return {name: None if status is None else int(status.violationTime) for name, status in found.items()}

    def energy_millijoules(self) -> int | None:
        """Energy used since the driver was loaded, in mJ (Volta and later); updated every 20 to 100 ms."""
        energy: int | None = self._ask("TotalEnergyConsumption")
        return energy

    def processes(self) -> dict[int, int | None]:
        """Bytes that each compute process holds, by the driver's PID; None where unknown."""
        held = {int(each.pid): each.usedGpuMemory for each in self._ask("ComputeRunningProcesses") or []}
        return {pid: None if size in (None, _UNKNOWN_MEMORY) else int(size) for pid, size in held.items()}

    def used_bytes(self) -> int | None:
        """Bytes in use on the whole GPU."""
        memory = self._ask("MemoryInfo")
        return None if memory is None else int(memory.used)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # versions of nvidia-ml-py differ


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1e3


@contextlib.contextmanager
def sampling(uuid: str) -> Iterator[ClockSamples]:
    """Samples of the GPU taken inside; the list is filled on leaving, and stays empty without NVML."""
    samples: ClockSamples = []
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*SAMPLER, uuid], stdin=subprocess.PIPE, stdout=output, stderr=subprocess.DEVNULL)
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


def write_samples(gpu: Gpu, stop: Callable[[float], bool], write: Callable[[str], object]) -> None:
    """Write samples until `stop(period)`, which sleeps, returns true."""
    while True:
        write(json.dumps({"at": time.time(), **gpu.clocks()}) + "\n")
        if stop(PERIOD_SECONDS):
            return


def summary(samples: ClockSamples) -> dict[str, Any]:
    """Number of samples, medians and extremes, and the share of the samples under each reason."""
    from luma_cli.measure.timing import median

    kept: dict[str, Any] = {"num_samples": len(samples)}
    for name in ("sm_mhz", "memory_mhz", "watts", "celsius", "utilisation_percent"):
        values = [float(sample[name]) for sample in samples if sample.get(name) is not None]
        if values:
            kept[name] = {"min": min(values), "median": median(values), "max": max(values)}
    masks = [int(sample["reasons"]) for sample in samples if sample.get("reasons") is not None]
    names = sorted({name for mask in masks for name in reason_names(mask)})
    kept["reasons"] = {name: sum(name in reason_names(mask) for mask in masks) / len(masks) for name in names}
    return kept


@dataclass(frozen=True, slots=True)
class Watched(Generic[T]):
    """A measurement and the summary of the GPU's samples meanwhile."""

    value: T
    throttled: bool
    num_retries: int
    trace: dict[str, Any]


def watched(
    measure: Callable[[], T],
    gpu: Gpu,
    *,
    sampling: Callable[[str], AbstractContextManager[ClockSamples]] = sampling,
    sleep: Callable[[float], None] = time.sleep,
) -> Watched[T]:
    """Measure; if heat or a hardware limit slowed the GPU, cool and measure again, at most three times."""
    num_retries = 0
    while True:
        before = gpu.violations_ns()
        with sampling(gpu.uuid) as samples:
            value = measure()
        throttled = any(int(sample.get("reasons") or 0) & DISCARDING for sample in samples)
        if not throttled or num_retries == MOST_RETRIES:
            break
        num_retries += 1
        _cool(gpu, sleep)
    lost: dict[str, int | None] = {}
    for name, end in gpu.violations_ns().items():
        start = before[name]
        lost[name] = None if start is None or end is None else end - start
    return Watched(value, throttled, num_retries, {**summary(samples), "violations_ns": lost})


def _cool(gpu: Gpu, sleep: Callable[[float], None]) -> None:
    """Wait until the GPU is no longer slowed, at most 10 s, in growing pauses."""
    pause, waited = _FIRST_PAUSE_SECONDS, 0.0
    while waited < _LONGEST_WAIT_SECONDS:
        sleep(pause)
        waited += pause
        if not (gpu.reasons() or 0) & DISCARDING:
            return
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules per image of each window, gross and without the idle power, and that power in W."""

    gross: tuple[float, ...]
    net: tuple[float, ...]
    idle_watts: float


def measure_energy(
    call: Callable[[int], object],
    synchronize: Callable[[], None],
    read_millijoules: Callable[[], int | None],
    *,
    batch: int,
    call_seconds: float,
    window_seconds: float = 10.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy | None:
    """Energy per image over windows of steady load, or None when the counter is missing or does not move.

    `call(number)` queues one batch of about `call_seconds`; `synchronize` waits for it. The counter moves every 20 to
    100 ms and some GPUs watch their power only part of the time (arXiv 2312.02741), so a window lasts 10 s or more, a
    second one starts at another phase, and both readings are kept.
    """
    if read_millijoules() is None:
        return None

    def now() -> tuple[float, float]:  # joules and seconds
        return (read_millijoules() or 0) / 1e3, clock()

    idle = now()
    sleep(IDLE_SECONDS)
    joules, seconds = now()
    idle_watts = (joules - idle[0]) / (seconds - idle[1])
    per_burst = max(1, int(_BURST_SECONDS / max(call_seconds, 1e-6)))
    gross, net = [], []
    for _ in range(NUM_WINDOWS):
        sleep(PHASE_SHIFT_SECONDS)
        call(0)
        synchronize()
        start, num_calls = now(), 0
        while clock() - start[1] < window_seconds:
            for number in range(num_calls, num_calls + per_burst):
                call(number)
            synchronize()
            num_calls += per_burst
        end = now()
        joules, seconds, num_images = end[0] - start[0], end[1] - start[1], num_calls * batch
        if joules <= 0:
            return None
        gross.append(joules / num_images)
        net.append(max(0.0, joules - idle_watts * seconds) / num_images)
    return Energy(tuple(gross), tuple(net), idle_watts)


if __name__ == "__main__":
    write_samples(
        load_nvml().open(sys.argv[1]),
        lambda seconds: bool(select.select([0], [], [], seconds)[0]),  # whether stdin ended
        partial(print, end="", flush=True),
    )
