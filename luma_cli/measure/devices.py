"""Devices by name (`cpu`, `cuda`, `cuda:1`, as nvidia-smi numbers them), host memory, environment. No torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luma_cli.errors import MeasureError, UsageError
from luma_cli.measure.nvml import Nvml, NvmlMissing, load_nvml
from luma_cli.store.records import Environment
from luma_cli.version import __version__

if TYPE_CHECKING:
    import torch

METHOD = 1  # raise when a change to the method makes older rows incomparable

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_BY_BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # as nvidia-smi numbers GPUs
_NAME = re.compile(r"cpu|cuda(?::(\d+))?")
# What can move a number. A list, because a pattern such as TORCH_* would store tokens and keys as well.
_KEPT_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING"),
    *("CUDA_DEVICE_MAX_CONNECTIONS", "CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "PYTORCH_CUDA_ALLOC_CONF"),
    *("PYTORCH_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING", "TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"),
    *("TORCHINDUCTOR_MAX_AUTOTUNE", "TORCHINDUCTOR_FREEZING", "TIMM_FUSED_ATTN", "TIMM_REENTRANT_CKPT"),
    *("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "OMP_WAIT_POLICY", "OMP_DYNAMIC", "MKL_NUM_THREADS"),
    *("MKL_DYNAMIC", "MKL_ENABLE_INSTRUCTIONS", "KMP_AFFINITY", "KMP_BLOCKTIME", "LD_PRELOAD"),
    *("LD_LIBRARY_PATH", "MALLOC_ARENA_MAX", "MALLOC_CONF"),
)
# Where Linux shows an NVIDIA GPU: a PC's, a Jetson's, Windows' own.
_NODES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Device:
    """A device to measure on: `kind` is cpu or cuda; a worker sees only the GPU with this `uuid`.

    visible: what CUDA_VISIBLE_DEVICES calls it where that is not its UUID. seen: by torch, where NVML is missing.
    """

    name: str
    kind: str
    uuid: str = ""
    visible: str = ""
    seen: SeenGpu | None = None


@dataclass(frozen=True, slots=True)
class SeenGpu:
    """A CUDA device, or a slice of one, as torch sees it; its UUID is that of the whole GPU, empty where unknown."""

    name: str = f"{UNKNOWN} GPU"
    uuid: str = ""
    memory_bytes: int = 0
    num_multiprocessors: int = 0


def seen_by_torch() -> list[SeenGpu]:
    """The CUDA devices of torch, asked in a process of its own unless this one has torch: a context takes memory."""
    if "torch" in sys.modules:
        return list(_ask_torch())
    if not _cuda_version() or not any(map(os.path.exists, _NODES)):
        return []
    command = [sys.executable, "-P", "-m", "luma_cli.measure.devices"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **_BY_BUS})
    return [SeenGpu(**each) for each in json.loads(done.stdout)] if done.returncode == 0 else []


def _ask_torch() -> Iterator[SeenGpu]:
    import torch

    for index in range(max(1, torch.cuda.device_count()) if torch.cuda.is_available() else 0):
        try:
            found = torch.cuda.get_device_properties(index)
        except (RuntimeError, AssertionError):  # there, but it tells nothing
            yield SeenGpu()
            continue
        uuid = getattr(found, "uuid", "")
        yield SeenGpu(found.name, f"GPU-{uuid}" * bool(uuid), found.total_memory, found.multi_processor_count)


def find_all(nvml: Nvml | None = None, variables: Mapping[str, str] = os.environ) -> list[Device]:
    """Every CUDA device that may be used, by NVML, or by torch where that is missing (Jetson, some containers).

    Raises NvmlMissing when neither finds one.
    """
    try:
        uuids = visible((nvml or load_nvml()).uuids(), variables)
        return [Device(f"cuda:{index}", "cuda", uuid) for index, uuid in enumerate(uuids)]
    except NvmlMissing:
        if not (seen := seen_by_torch()):
            raise
    entries = [each.strip() for each in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
    return [
        Device(name, "cuda", gpu.uuid or name, entries[index] if index < len(entries) else str(index), gpu)
        for index, (name, gpu) in enumerate((f"cuda:{index}", gpu) for index, gpu in enumerate(seen))
    ]


def find(name: str, nvml: Nvml | None = None, variables: Mapping[str, str] = os.environ) -> Device:
    """The device with this name here. Raises UsageError for an unknown name, no driver, or a GPU that is missing."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"device {name!r} is unknown, expected cpu, cuda or cuda:N; try --device cpu")
    if name == "cpu":
        return Device("cpu", "cpu")
    try:
        present = find_all(nvml, variables)
    except NvmlMissing as error:
        raise UsageError(f"--device {name}: no NVIDIA driver here ({error}); try --device cpu") from error
    index = int(match[1] or 0)
    if index >= len(present):
        raise UsageError(f"--device {name}: {len(present)} CUDA device(s) here; try --device cpu")
    return replace(present[index], name=name)


def visible(uuids: list[str], variables: Mapping[str, str]) -> list[str]:
    """The UUIDs that CUDA_VISIBLE_DEVICES leaves."""
    setting = variables.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return uuids
    chosen: list[str] = []
    for entry in (part.strip() for part in setting.split(",")):
        if entry.startswith("MIG-"):
            found = [entry]
        elif entry.isdigit() and int(entry) < len(uuids):
            found = [uuids[int(entry)]]
        else:
            found = [uuid for uuid in uuids if entry and uuid.startswith(entry)][:1]
        if not found:  # like CUDA: nothing after the first entry without a device
            break
        chosen += found
    return chosen


def worker_variables(device: Device) -> dict[str, str]:
    """Environment variables that show a worker only this device and no network."""
    if device.kind == "cpu":
        return {**OFFLINE, "CUDA_VISIBLE_DEVICES": ""}
    return {**OFFLINE, **_BY_BUS, "CUDA_VISIBLE_DEVICES": device.visible or device.uuid}


def here(device: Device, nvml: Nvml | None = None, variables: Mapping[str, str] = os.environ) -> Environment:
    """The environment of measurements on `device`, as known without importing torch. Raises MeasureError without it."""
    identity: dict[str, Any] = {"device": device.kind, "method": METHOD, **versions()}
    provenance: dict[str, Any] = {
        "host": socket.gethostname(),
        "luma": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "revision": _revision(Path(__file__).resolve().parents[2]),
        "variables": {name: variables[name] for name in sorted(_KEPT_VARIABLES) if name in variables},
    }
    if device.kind == "cpu":
        identity |= {"device_name": cpu_name(), "num_threads": num_threads(variables)}
        return Environment(identity, provenance)
    identity["cuda"] = _cuda_version()
    provenance |= {"gpu_uuid": device.seen.uuid if device.seen else device.uuid, "cpu": cpu_name()}
    try:
        nvml = nvml or load_nvml()
        gpu = nvml.open(device.uuid)  # by UUID: indices of NVML and CUDA need not agree
    except NvmlMissing as error:
        seen = device.seen or _seen(device)
        identity |= {"device_name": _slice(seen.name, device, seen), "driver": UNKNOWN, "power_limit_watts": None}
        return Environment(identity, provenance | {"vbios": UNKNOWN, "nvml": f"missing: {error}"})
    settings, name = gpu.settings(), gpu.name()
    if settings["mig"] or device.uuid.startswith("MIG-"):
        name = _slice(name, device)
    identity |= {"device_name": name, "driver": nvml.driver(), "power_limit_watts": gpu.power_limit_watts()}
    return Environment(identity, provenance | {"vbios": gpu.vbios(), **settings})


def _seen(device: Device) -> SeenGpu:
    """What torch sees of the device; of a GPU in slices that is always one slice, under the UUID of the whole."""
    found = seen_by_torch()
    own = [each for each in found if each.uuid == device.uuid]
    return (own or found or [SeenGpu()])[0]


def _slice(name: str, device: Device, seen: SeenGpu | None = None) -> str:
    """The name of a GPU that is cut in slices, with what tells the slice from the whole; other names as they are.

    NVML names a slice by its profile (`NVIDIA A100-SXM4-40GB MIG 1g.5gb`) where it may be asked for it.
    """
    if "MIG" in name or (seen is not None and "MIG-" not in f"{device.uuid}{device.visible}"):
        return name
    seen = seen or _seen(device)
    size = f"{seen.num_multiprocessors} SMs, {seen.memory_bytes / 2**30:.3g} GiB" if seen.memory_bytes else UNKNOWN
    return f"{name} MIG slice ({size})"


def versions() -> dict[str, str]:
    """Versions of torch and timm. Raises MeasureError when one is missing."""
    try:
        return {name: importlib.metadata.version(name) for name in ("torch", "timm")}
    except importlib.metadata.PackageNotFoundError as error:
        raise MeasureError(f"{error.name} is not installed; try: pip install luma-seg") from error


def _cuda_version() -> str:
    """The CUDA release that torch was built for, e.g. `13.2`; empty for a CPU build. Reads torch/version.py only."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return ""
    match = re.search(r"^cuda[^=\n]*=\s*'([^']*)'", (Path(found.origin).parent / "version.py").read_text(), re.M)
    return match[1] if match else ""


def torch_provenance(device: torch.device) -> dict[str, Any]:
    """Flags and library builds, known to torch only, that can move a number."""
    import torch

    found: dict[str, Any] = {
        "torch_build": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],  # other work on the host slows threads that wait for each other
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "mkldnn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type != "cuda":
        return found
    properties = torch.cuda.get_device_properties(device)
    triton = importlib.metadata.version("triton") if importlib.util.find_spec("triton") else ""
    return found | {
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "cudnn_benchmark_for_timing": True,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "cuda_runtime": torch.version.cuda,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "num_multiprocessors": properties.multi_processor_count,
        "device_memory_bytes": properties.total_memory,
        "triton": triton,
        "allocator": torch.cuda.get_allocator_backend(),
    }


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Marketing name of the CPU."""
    if cpuinfo.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8", errors="replace"), re.M)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()


def num_threads(variables: Mapping[str, str] = os.environ, cpuinfo: Path = Path("/proc/cpuinfo")) -> int:
    """Threads to compute with: OMP_NUM_THREADS, else the physical cores this process may use."""
    asked = variables.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = _physical_cores(allowed, cpuinfo)
    quota = Path("/sys/fs/cgroup/cpu.max")  # a container's: microseconds of CPU time per period
    if quota.is_file():
        limit, _, period = quota.read_text().strip().partition(" ")
        cores = min(cores, int(limit) // int(period)) if limit.isdigit() and period.isdigit() else cores
    return max(1, cores)


def _physical_cores(allowed: set[int], cpuinfo: Path) -> int:
    """Distinct cores among the allowed logical CPUs; the number of CPUs where unknown."""
    if not cpuinfo.is_file():
        return len(allowed)
    cores = set()
    for block in cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", block, re.M))
        if fields.get("processor", "").isdigit() and int(fields["processor"]) in allowed:
            cores.add((fields.get("physical id"), fields.get("core id", fields["processor"])))
    return len(cores) or len(allowed)


def _revision(folder: Path) -> str:
    """The git commit of luma's own checkout, with `+` when it has changes; empty where luma was installed.

    Of no other folder: git runs what a repository's settings name (core.fsmonitor, filters).
    """
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", "describe", "--always", "--abbrev=40"]
    command += ["--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def resident_bytes() -> int:
    """Bytes of this process in RAM now; its peak where the system does not report them."""
    return _proc_bytes("/proc/self/status", "VmRSS") or lifetime_peak_bytes()


def reset_peak() -> bool:
    """Start a new peak of resident memory; False where the kernel does not offer that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """Highest resident memory since `reset_peak`, or of the process' life where that failed."""
    return _proc_bytes("/proc/self/status", "VmHWM") or lifetime_peak_bytes()


def lifetime_peak_bytes() -> int:
    """Highest resident memory of the process' life."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes() -> int:
    """Bytes that can still be allocated without swapping, a container's limit respected; 8 GiB where unknown."""
    known = [_proc_bytes("/proc/meminfo", "MemAvailable") or 8 * 2**30]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and limit.read_text().strip().isdigit():
        known.append(int(limit.read_text()) - int(used.read_text()))
    return max(0, min(known))


def _proc_bytes(path: str, field: str) -> int:
    """A size in bytes from a file of /proc, 0 where there is none."""
    if not Path(path).is_file():
        return 0
    match = re.search(rf"^{field}:\s+(\d+) kB", Path(path).read_text(), re.M)
    return int(match[1]) * 1024 if match else 0


# Of the driver, torch on the host, cuBLAS (ALLOC_FAILED) and cuDNN (ALLOCATION_FAILED), in lower case.
_SIGNS_OF_NO_MEMORY = ("out of memory", "you tried to allocate", "alloc_failed", "allocation_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the device or on the host."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS_OF_NO_MEMORY)


def find_cuda(uuid: str) -> int:
    """Torch's index of the GPU with this UUID. Raises MeasureError when torch does not see it."""
    import torch

    if not torch.cuda.is_available():
        raise MeasureError("this torch has no CUDA device; try --device cpu, or a torch built for the driver")
    count = torch.cuda.device_count()
    if index := re.fullmatch(r"cuda:(\d+)", uuid):  # neither NVML nor torch knows its UUID
        return int(index[1]) if int(index[1]) < count else 0
    seen = [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)]
    matches = [index for index, name in enumerate(seen) if name and uuid.endswith(name)]
    if matches:
        return matches[0]
    if count == 1:  # a MIG slice reports the UUID of its GPU; CUDA_VISIBLE_DEVICES left only the one asked for
        return 0
    raise MeasureError(f"torch does not see GPU {uuid} among {', '.join(seen)}")


if __name__ == "__main__":
    print(json.dumps([asdict(each) for each in _ask_torch()]))
