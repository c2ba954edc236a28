"""Memory of this process and of the machine, from /proc. Imports no torch."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    """Bytes of this process that are in RAM now; its peak where the system does not tell."""
    return _status("VmRSS") or lifetime_peak_bytes()


def reset_peak() -> bool:
    """Start a new peak of resident memory; False where the kernel does not offer that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """Highest resident memory since `reset_peak`, or of the process' life where that failed."""
    return _status("VmHWM") or lifetime_peak_bytes()


def lifetime_peak_bytes() -> int:
    """Highest resident memory of the process' life."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that can still be allocated without swapping, a container's limit respected; 8 GiB where unknown."""
    known = [8 * 2**30]
    if meminfo.is_file():
        match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.M)
        known = [int(match[1]) * 1024] if match else known
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and limit.read_text().strip().isdigit():
        known.append(int(limit.read_text()) - int(used.read_text()))
    return max(0, min(known))


def _status(field: str) -> int:
    """A size from the process' status in bytes, 0 where there is none."""
    if not _STATUS.is_file():
        return 0
    match = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text(), re.M)
    return int(match[1]) * 1024 if match else 0
