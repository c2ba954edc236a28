"""Where guided mode runs: the datasets and devices that can be asked about. Found without torch and without network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

from luma_cli.errors import StoreError


@dataclass(frozen=True, slots=True)
class DeviceHere:
    """A device that costs are asked for.

    name: as the store and `luma recommend --device` spell it. note: how it is known. local: what `luma profile
    --device` calls it, empty where it is not in this machine.
    """

    name: str
    note: str
    local: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """datasets: name and number of classes. devices: detected ones first."""

    datasets: tuple[tuple[str, int], ...]
    devices: tuple[DeviceHere, ...] = ()

    def local(self, device: str) -> str:
        """What this machine calls the device; empty when it is elsewhere."""
        return next((each.local for each in self.devices if each.name == device), "")


def find_place() -> Place:
    """The datasets with evidence; the GPUs and the CPU here, then devices of the store and of timm's shipped table."""
    from luma_cli.advise.candidates import NUM_CLASSES

    found = [*gpus_here(), cpu_here(), *measured_before(), *shipped()]
    first: dict[str, DeviceHere] = {}
    for each in found:
        first.setdefault(each.name, each)
    return Place(tuple(NUM_CLASSES.items()), tuple(first.values()))


def gpus_here(variables: Mapping[str, str] = os.environ) -> list[DeviceHere]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, by the name that measurements carry; none without a driver."""
    from luma_cli.measure.devices import describe, visible
    from luma_cli.measure.nvml import NvmlMissing, load_nvml

    try:
        nvml = load_nvml()
        names = [str(describe(nvml.open(uuid))["device_name"]) for uuid in visible(nvml.uuids(), variables)]
    except NvmlMissing:
        return []
    return [DeviceHere(name, "GPU here", f"cuda:{index}") for index, name in enumerate(names)]


def cpu_here() -> DeviceHere:
    """The CPU of this machine."""
    from luma_cli.measure.environment import cpu_name

    return DeviceHere(cpu_name(), "CPU here", "cpu")


def shipped() -> list[DeviceHere]:
    """Devices of timm's throughput table, from which times elsewhere are predicted."""
    from luma_cli.speed.shipped import load

    return [DeviceHere(name, "timm's speeds") for name in dict.fromkeys(each.device_name for each in load().settings)]


def measured_before() -> Iterable[DeviceHere]:
    """Devices that the store knows; none where it cannot be read, which the answer will say."""
    from luma_cli.store.database import open_read
    from luma_cli.store.profiles import device_names

    try:
        connection = open_read()
        if connection is None:
            return []
        with closing(connection):
            return [DeviceHere(name, "measured before") for name in device_names(connection)]
    except StoreError:
        return []
