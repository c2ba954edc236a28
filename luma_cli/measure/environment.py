"""Where a measurement runs: identity found without importing torch, provenance beside it.

The parent asks for the identity to know what is already measured, so nothing here may import torch or timm.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luma_cli.errors import MeasureError
from luma_cli.measure.devices import Device, describe, gpu_of
from luma_cli.measure.nvml import Nvml, load_nvml
from luma_cli.store.records import Environment
from luma_cli.version import __version__

# Raised when a change to the method makes older rows incomparable.
METHOD = 1

_KEPT_VARIABLES = re.compile(
    r"(PYTORCH|TORCH|TIMM|CUBLAS|CUDNN|CUDA|NVIDIA_TF32|OMP|MKL|KMP|LD_PRELOAD|MALLOC)_?\w*|LD_LIBRARY_PATH"
)


def here(device: Device, nvml: Nvml | None = None, variables: Mapping[str, str] = os.environ) -> Environment:
    """The environment of measurements on `device`, as far as it is known without torch.

    Raises MeasureError when torch or timm is not installed.
    """
    identity: dict[str, Any] = {"device": device.kind, "method": METHOD, **versions()}
    provenance: dict[str, Any] = {
        "host": socket.gethostname(),
        "luma": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "revision": revision(Path.cwd()),
        "variables": {k: v for k, v in sorted(variables.items()) if _KEPT_VARIABLES.fullmatch(k)},
    }
    if device.kind == "cpu":
        identity |= {"device_name": cpu_name(), "num_threads": num_threads(variables)}
        return Environment(identity, provenance)
    gpu = gpu_of(device, nvml or load_nvml())
    identity |= {**describe(gpu), "cuda": cuda_version()}
    provenance |= {"gpu_uuid": gpu.uuid, "vbios": gpu.vbios(), "cpu": cpu_name(), **gpu.settings()}
    return Environment(identity, provenance)


def versions() -> dict[str, str]:
    """Versions of torch and timm. Raises MeasureError when one is missing."""
    try:
        return {name: importlib.metadata.version(name) for name in ("torch", "timm")}
    except importlib.metadata.PackageNotFoundError as error:
        raise MeasureError(f"{error.name} is not installed; try: pip install luma-seg") from error


def cuda_version() -> str:
    """The CUDA release that torch was built for, e.g. `13.2`; empty for a CPU build. Reads torch/version.py alone."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return ""
    match = re.search(r"^cuda[^=\n]*=\s*'([^']*)'", (Path(found.origin).parent / "version.py").read_text(), re.M)
    return match[1] if match else ""


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
    return max(1, min(_physical_cores(allowed, cpuinfo), _quota(Path("/sys/fs/cgroup/cpu.max"))))


def _physical_cores(allowed: set[int], cpuinfo: Path) -> int:
    """Distinct cores among the allowed logical CPUs; all of them where the system does not tell."""
    if not cpuinfo.is_file():
        return len(allowed)
    cores = set()
    for block in cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", block, re.M))
        if fields.get("processor", "").isdigit() and int(fields["processor"]) in allowed:
            cores.add((fields.get("physical id"), fields.get("core id", fields["processor"])))
    return len(cores) or len(allowed)


def _quota(path: Path) -> int:
    """CPUs that a container's quota allows; a large number without one."""
    unlimited = 2**20
    if not path.is_file():
        return unlimited
    limit, _, period = path.read_text().strip().partition(" ")
    return max(1, int(limit) // int(period)) if limit.isdigit() and period.isdigit() else unlimited


def revision(folder: Path) -> str:
    """The git commit of `folder`, with `+` when it has changes; empty outside a repository."""
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
