"""A pynvml of our own: GPUs whose clocks, reasons, processes and counters the test sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    pass


@dataclass
class FakeGpu:
    uuid: str = "GPU-aaaa"
    name: str = "NVIDIA H200"
    reasons: list[int] = field(default_factory=lambda: [0])
    processes: dict[int, int] = field(default_factory=dict)
    used: int = 0
    millijoules: float = 0.0
    thermal_ns: int = 0
    unsupported: frozenset[str] = frozenset()

    def next_reasons(self) -> int:
        return self.reasons.pop(0) if len(self.reasons) > 1 else self.reasons[0]


class FakeNvml:
    """Stands in for the module pynvml."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1

    def __init__(self, *gpus: FakeGpu, broken: bool = False):
        self.gpus = list(gpus)
        self.broken = broken

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise NVMLError("Driver Not Loaded")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml") or name.startswith("nvmlSystem"):
            raise AttributeError(name)

        def ask(gpu: FakeGpu, *rest: Any) -> Any:
            if name in gpu.unsupported:
                raise NVMLError("Not Supported")
            return self._answers(gpu)[name](*rest)

        return ask

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.95.05"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:  # noqa: N802
        for gpu in self.gpus:
            if gpu.uuid == uuid:
                return gpu
        raise NVMLError("Not Found")

    def _answers(self, gpu: FakeGpu) -> dict[str, Any]:
        return {
            "nvmlDeviceGetUUID": lambda: gpu.uuid,
            "nvmlDeviceGetName": lambda: gpu.name,
            "nvmlDeviceGetEnforcedPowerLimit": lambda: 700_000,
            "nvmlDeviceGetVbiosVersion": lambda: "96.00",
            "nvmlDeviceGetMaxClockInfo": lambda kind: {1: 1980, 2: 3201}[kind],
            "nvmlDeviceGetApplicationsClock": lambda kind: 1980,
            "nvmlDeviceGetPersistenceMode": lambda: 1,
            "nvmlDeviceGetEccMode": lambda: [1, 1],
            "nvmlDeviceGetMigMode": lambda: [0, 0],
            "nvmlDeviceGetCurrPcieLinkGeneration": lambda: 5,
            "nvmlDeviceGetCurrPcieLinkWidth": lambda: 16,
            "nvmlDeviceGetVirtualizationMode": lambda: 0,
            "nvmlDeviceGetPowerUsage": lambda: 350_000,
            "nvmlDeviceGetClockInfo": lambda kind: {1: 1700, 2: 3201}[kind],
            "nvmlDeviceGetTemperature": lambda kind: 60,
            "nvmlDeviceGetUtilizationRates": lambda: SimpleNamespace(gpu=97),
            "nvmlDeviceGetCurrentClocksEventReasons": gpu.next_reasons,
            "nvmlDeviceGetCurrentClocksThrottleReasons": gpu.next_reasons,
            "nvmlDeviceGetViolationStatus": lambda policy: SimpleNamespace(violationTime=gpu.thermal_ns),
            "nvmlDeviceGetTotalEnergyConsumption": lambda: int(gpu.millijoules),
            "nvmlDeviceGetComputeRunningProcesses": lambda: [
                SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.processes.items()
            ],
            "nvmlDeviceGetMemoryInfo": lambda: SimpleNamespace(used=gpu.used),
        }
