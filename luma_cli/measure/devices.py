"""Which device a name means: `cpu`, `cuda`, `cuda:1`. GPUs are numbered as nvidia-smi does. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from luma_cli.errors import UsageError
from luma_cli.measure.nvml import Gpu, Nvml, NvmlMissing, load_nvml

_NAME = re.compile(r"cpu|cuda(?::(\d+))?")


@dataclass(frozen=True, slots=True)
class Device:
    """A device to measure on: `kind` is cpu or cuda; `uuid` is what the worker is confined to."""

    name: str
    kind: str
    uuid: str = ""


def find(name: str, nvml: Nvml | None = None, variables: Mapping[str, str] = os.environ) -> Device:
    """The device that `name` means here.

    Raises UsageError for a name that is none, for CUDA on a machine without it, and for a GPU that is not there.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UsageError(f"device {name!r} is unknown, expected cpu, cuda or cuda:N; try --device cpu")
    if name == "cpu":
        return Device("cpu", "cpu")
    try:
        uuids = visible((nvml or load_nvml()).uuids(), variables)
    except NvmlMissing as error:
        raise UsageError(f"--device {name}: no NVIDIA driver here ({error}); try --device cpu") from error
    index = int(match[1] or 0)
    if index >= len(uuids):
        raise UsageError(f"--device {name}: {len(uuids)} CUDA device(s) here; try --device cpu")
    return Device(name, "cuda", uuids[index])


def visible(uuids: list[str], variables: Mapping[str, str]) -> list[str]:
    """The UUIDs that CUDA_VISIBLE_DEVICES leaves; like CUDA it stops at the first entry that names no device."""
    setting = variables.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return uuids
    chosen: list[str] = []
    for entry in (part.strip() for part in setting.split(",")):
        if entry.startswith("MIG-"):
            chosen.append(entry)
            continue
        numbered = uuids[int(entry)] if entry.isdigit() and int(entry) < len(uuids) else None
        found = numbered or next((uuid for uuid in uuids if entry and uuid.startswith(entry)), None)
        if found is None:
            break
        chosen.append(found)
    return chosen


def worker_variables(device: Device) -> dict[str, str]:
    """Environment variables that confine a worker to the device and keep it off the network."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if device.kind == "cpu":
        return {**offline, "CUDA_VISIBLE_DEVICES": ""}
    return {**offline, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": device.uuid}


def gpu_of(device: Device, nvml: Nvml) -> Gpu:
    """The NVML handle of a CUDA device, by UUID: indices of NVML and CUDA need not agree."""
    return nvml.open(device.uuid)


def describe(gpu: Gpu) -> dict[str, Any]:
    """What identifies the GPU model and its limits."""
    return {"device_name": gpu.name(), "driver": gpu.driver(), "power_limit_watts": gpu.power_limit_watts()}
