"""Devices that can be asked about, by the names that measurements carry; a place without GPU, driver or database."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import pytest
from fake_nvml import FakeGpu, FakeNvml
from store_samples import profile

from luma_cli.cli.guided.dialogue import DeviceHere, cpu_here, find_devices, gpus_here, local_name, measured_before
from luma_cli.measure import devices
from luma_cli.measure.devices import find
from luma_cli.measure.nvml import load_nvml
from luma_cli.store.database import open_write
from luma_cli.store.profiles import save


def machine(monkeypatch: pytest.MonkeyPatch, *gpus: FakeGpu, broken: bool = False) -> None:
    module = FakeNvml(*gpus, broken=broken)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_gpu_has_the_name_that_its_measurements_have(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, FakeGpu("GPU-a", "NVIDIA H200"), FakeGpu("GPU-b", "NVIDIA L4"))
    monkeypatch.setattr("luma_cli.measure.devices.versions", lambda: {"torch": "2", "timm": "1"})
    found = gpus_here(variables={})
    assert found == [DeviceHere("NVIDIA H200", "GPU here", "cuda:0"), DeviceHere("NVIDIA L4", "GPU here", "cuda:1")]
    for each in found:
        device = find(each.local, load_nvml(), {})
        assert devices.here(device, load_nvml(), {}).identity["device_name"] == each.name


def test_hidden_gpus_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, FakeGpu("GPU-a", "NVIDIA H200"), FakeGpu("GPU-b", "NVIDIA L4"))
    assert [each.name for each in gpus_here({"CUDA_VISIBLE_DEVICES": "1"})] == ["NVIDIA L4"]
    assert gpus_here({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_without_a_driver_there_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, broken=True)
    assert gpus_here({}) == []
    devices = find_devices()
    assert devices[0] == cpu_here()
    assert {each.note for each in devices[1:]} == {"timm's speeds"}
    assert "RTX 4090" in [each.name for each in devices]
    assert local_name(cpu_here().name, devices) == "cpu"


def test_equal_gpus_are_one_device_and_the_store_adds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, FakeGpu("GPU-a", "NVIDIA H200"), FakeGpu("GPU-b", "NVIDIA H200"))
    with closing(open_write()) as database:
        save(database, profile(device_name="NVIDIA H200"))
        save(database, profile(device_name="NVIDIA A100"))
    names = [(each.name, each.note, each.local) for each in find_devices()]
    assert names[:3] == [
        ("NVIDIA H200", "GPU here", "cuda:0"),
        (cpu_here().name, "CPU here", "cpu"),
        ("NVIDIA A100", "measured before", ""),
    ]


def test_an_empty_or_foreign_database_offers_nothing(isolated: Path) -> None:
    with closing(open_write()):
        assert list(measured_before()) == []
    (isolated / "luma.db").write_text("no database")
    assert list(measured_before()) == []


def test_an_unknown_device_is_not_here() -> None:
    assert local_name("B", (DeviceHere("A", "GPU here", "cuda:0"),)) == ""
