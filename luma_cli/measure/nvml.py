"""What NVML (module `pynvml`, package nvidia-ml-py) tells of one GPU, addressed by UUID. Imports no torch.

A query that a GPU, a MIG slice or a container does not support answers None instead of failing the measurement.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

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
        """UUIDs of all GPUs in nvidia-smi's order. Raises NvmlMissing when one does not answer."""
        try:
            count = self._module.nvmlDeviceGetCount()
            handles = [self._module.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
            return [_text(self._module.nvmlDeviceGetUUID(handle)) for handle in handles]
        except self._module.NVMLError as error:
            raise NvmlMissing(str(error)) from error

    def open(self, uuid: str) -> Gpu:
        """The GPU (or MIG slice) with this UUID. Raises NvmlMissing when it is gone."""
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

    def _ask(self, query: Callable[[], T]) -> T | None:
        """The answer, or None when the driver refuses or this nvidia-ml-py lacks the query."""
        # A driver older than nvidia-ml-py raises an error that is no NVMLError.
        older = getattr(self._module, "NVMLLibraryMismatchError", self._module.NVMLError)
        try:
            return query()
        except (self._module.NVMLError, older, AttributeError):
            return None

    def name(self) -> str:
        """Marketing name, e.g. `NVIDIA H200`."""
        return _text(self._ask(lambda: self._module.nvmlDeviceGetName(self._handle)) or "unknown GPU")

    def driver(self) -> str:
        """Version of the driver."""
        return _text(self._ask(lambda: self._module.nvmlSystemGetDriverVersion()) or "")

    def power_limit_watts(self) -> float | None:
        """The power limit in force, in W."""
        milliwatts = self._ask(lambda: self._module.nvmlDeviceGetEnforcedPowerLimit(self._handle))
        return None if milliwatts is None else milliwatts / 1e3

    def vbios(self) -> str:
        """Version of the VBIOS."""
        return _text(self._ask(lambda: self._module.nvmlDeviceGetVbiosVersion(self._handle)) or "")

    def settings(self) -> dict[str, Any]:
        """Settings that can move a number: clocks, persistence, ECC, MIG, PCIe, virtualisation."""
        nvml, handle = self._module, self._handle
        return {
            "max_sm_clock_mhz": self._ask(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "max_memory_clock_mhz": self._ask(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            "application_sm_clock_mhz": self._ask(
                lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_SM)
            ),
            "persistence": self._ask(lambda: nvml.nvmlDeviceGetPersistenceMode(handle)),
            "ecc": self._ask(lambda: nvml.nvmlDeviceGetEccMode(handle)[0]),
            "mig": self._ask(lambda: nvml.nvmlDeviceGetMigMode(handle)[0]),
            "pcie_generation": self._ask(lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle)),
            "pcie_width": self._ask(lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(handle)),
            "virtualisation": self._ask(lambda: nvml.nvmlDeviceGetVirtualizationMode(handle)),
        }

    def clocks(self) -> dict[str, float | int | None]:
        """One sample: clocks in MHz, power in W, temperature in C, utilisation in %, mask of clocks-event reasons."""
        nvml, handle = self._module, self._handle
        milliwatts = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        return {
            "sm_mhz": self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "memory_mhz": self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            "watts": None if milliwatts is None else milliwatts / 1e3,
            "celsius": self._ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "utilisation_percent": self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "reasons": self.reasons(),
        }

    def reasons(self) -> int | None:
        """Mask of the reasons for which the clocks are not at their highest now."""
        nvml, handle = self._module, self._handle
        newer = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        return newer if newer is not None else self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))

    def violations_ns(self) -> dict[str, int | None]:
        """Nanoseconds lost so far to the power and to the thermal cap; differences count."""
        nvml, handle = self._module, self._handle

        def lost(policy: str) -> int | None:
            status = self._ask(lambda: nvml.nvmlDeviceGetViolationStatus(handle, getattr(nvml, policy)))
            return None if status is None else int(status.violationTime)

        return {"power": lost("NVML_PERF_POLICY_POWER"), "thermal": lost("NVML_PERF_POLICY_THERMAL")}

    def energy_millijoules(self) -> int | None:
        """Energy used since the driver was loaded, in mJ (Volta and later); updated every 20 to 100 ms."""
        return self._ask(lambda: int(self._module.nvmlDeviceGetTotalEnergyConsumption(self._handle)))

    def processes(self) -> dict[int, int | None]:
        """Bytes that each compute process holds, by PID as the driver sees it; None where it will not say."""
        listed = self._ask(lambda: self._module.nvmlDeviceGetComputeRunningProcesses(self._handle)) or []
        return {int(process.pid): _bytes(process.usedGpuMemory) for process in listed}

    def used_bytes(self) -> int | None:
        """Bytes in use on the whole GPU."""
        return self._ask(lambda: int(self._module.nvmlDeviceGetMemoryInfo(self._handle).used))


def _text(value: str | bytes) -> str:
    """Text, whichever of the two this nvidia-ml-py returns."""
    return value.decode() if isinstance(value, bytes) else value


def _bytes(value: int | None) -> int | None:
    """A process' bytes, None for the value that stands for unknown."""
    return None if value is None or value == _UNKNOWN_MEMORY else int(value)
