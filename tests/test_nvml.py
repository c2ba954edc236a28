"""What NVML says of a GPU, through a module of our own; and the policy for hot and shared ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fake_nvml import FakeGpu, FakeNvml

from luma_cli.errors import UsageError
from luma_cli.measure import devices
from luma_cli.measure.accelerator import count_others
from luma_cli.measure.nvml import (
    ClockSamples,
    Gpu,
    Nvml,
    NvmlMissing,
    Watched,
    load_nvml,
    reason_names,
    sampling,
    summary,
    watched,
    write_samples,
)


def nvml(*gpus: FakeGpu, broken: bool = False) -> Nvml:
    return load_nvml(FakeNvml(*gpus, broken=broken))


def opened(gpu: FakeGpu) -> Gpu:
    return nvml(gpu).open(gpu.uuid)


def test_a_gpu_is_found_by_uuid_not_by_index() -> None:
    first, second = FakeGpu("GPU-a", "A100"), FakeGpu("GPU-b", "H200")
    assert nvml(first, second).open("GPU-b").name() == "H200"
    with pytest.raises(NvmlMissing, match="GPU-c"):
        nvml(first).open("GPU-c")


def test_no_driver_is_said() -> None:
    with pytest.raises(NvmlMissing, match="Driver Not Loaded"):
        nvml(broken=True)


def test_what_is_not_supported_is_none() -> None:
    queries = {"nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetCurrentClocksEventReasons"}
    gpu = opened(FakeGpu(unsupported=frozenset(queries | {"nvmlDeviceGetEnforcedPowerLimit"}), reasons=[4]))
    assert gpu.energy_millijoules() is None
    assert gpu.power_limit_watts() is None
    assert gpu.reasons() == 4  # the older query's name answers


def test_memory_that_the_driver_does_not_tell_is_none() -> None:
    assert opened(FakeGpu(processes={7: 2**64 - 1, 8: 1024})).processes() == {7: None, 8: 1024}


def test_a_driver_older_than_the_bindings_answers_none() -> None:
    class Mismatch(Exception):
        pass

    class Older(FakeNvml):
        NVMLLibraryMismatchError = Mismatch

        def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> object:  # noqa: N802
            raise Mismatch("Unversioned function called")

    gpu = FakeGpu()
    assert load_nvml(Older(gpu)).open(gpu.uuid).processes() == {}


def test_a_lost_gpu_is_said() -> None:
    lost = FakeGpu(unsupported=frozenset({"nvmlDeviceGetUUID"}))
    with pytest.raises(UsageError, match="try --device cpu"):
        devices.find("cuda", nvml(lost), {})


def test_reasons_have_names() -> None:
    assert reason_names(0x4 | 0x40) == ("software_power_cap", "hardware_thermal")


@pytest.mark.parametrize(
    ("setting", "uuids"),
    [
        (None, ["GPU-aa", "GPU-bb"]),
        ("1", ["GPU-bb"]),
        ("1,0", ["GPU-bb", "GPU-aa"]),
        ("GPU-b", ["GPU-bb"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["GPU-aa"]),
        ("MIG-1", ["MIG-1"]),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(setting: str | None, uuids: list[str]) -> None:
    variables = {} if setting is None else {"CUDA_VISIBLE_DEVICES": setting}
    assert devices.visible(["GPU-aa", "GPU-bb"], variables) == uuids


def test_a_device_is_confined_to_by_uuid() -> None:
    device = devices.find("cuda:1", nvml(FakeGpu("GPU-a"), FakeGpu("GPU-b")), {})
    assert devices.worker_variables(device)["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    assert devices.worker_variables(device)["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "gpu", "mps", "", "cuda:-1"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="try --device cpu"):
        devices.find(name, nvml(FakeGpu("GPU-a"), FakeGpu("GPU-b")), {})


def test_cuda_without_a_driver_is_refused() -> None:
    with pytest.raises(UsageError, match="no NVIDIA driver here"):
        devices.find("cuda", variables={})


def test_siblings_share_an_identity_but_not_a_provenance() -> None:
    fake = nvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    first, second = (devices.here(devices.find(f"cuda:{i}", fake, {}), fake, {}) for i in (0, 1))
    assert first.identity == second.identity
    assert first.identity["device_name"] == "NVIDIA H200"
    assert first.identity["power_limit_watts"] == 700.0
    assert (first.provenance["gpu_uuid"], second.provenance["gpu_uuid"]) == ("GPU-a", "GPU-b")


def samples_of(*masks: int) -> ClockSamples:
    return [{"at": 0.0, "sm_mhz": 1500 + i, "watts": 300.0, "reasons": mask} for i, mask in enumerate(masks)]


class Traces:
    """Stands in for the sampling process: one prepared trace per measurement."""

    def __init__(self, *traces: ClockSamples):
        self.traces = list(traces)

    @contextmanager
    def __call__(self, uuid: str) -> Iterator[ClockSamples]:
        samples: ClockSamples = []
        yield samples
        samples.extend(self.traces.pop(0))


def run_watched(gpu: FakeGpu, *traces: ClockSamples) -> tuple[Watched[int], list[float]]:
    slept: list[float] = []
    count = iter(range(10))
    return watched(lambda: next(count), opened(gpu), sampling=Traces(*traces), sleep=slept.append), slept


def test_a_power_cap_is_recorded_and_kept() -> None:
    result, slept = run_watched(FakeGpu(), samples_of(0x4, 0x4, 0x0))
    assert (result.value, result.throttled, result.num_retries, slept) == (0, False, 0, [])
    assert result.trace["reasons"] == {"software_power_cap": pytest.approx(2 / 3)}
    assert result.trace["sm_mhz"] == {"min": 1500.0, "median": 1501.0, "max": 1502.0}


@pytest.mark.parametrize("mask", [0x8, 0x20, 0x40, 0x80])
def test_a_hot_measurement_is_thrown_away(mask: int) -> None:
    result, slept = run_watched(FakeGpu(), samples_of(0, mask), samples_of(0, 0))
    assert (result.value, result.throttled, result.num_retries) == (1, False, 1)
    assert slept == [0.05]


def test_after_three_retries_it_is_kept_and_flagged() -> None:
    result, slept = run_watched(FakeGpu(reasons=[0x40]), *[samples_of(0x40)] * 4)
    assert (result.value, result.throttled, result.num_retries) == (3, True, 3)
    assert slept[:5] == [0.05, 0.1, 0.2, 0.4, 0.5]
    assert 30 <= sum(slept) <= 33


def test_time_lost_to_the_caps_is_a_difference() -> None:
    gpu = FakeGpu(thermal_ns=5_000)
    traces = Traces(samples_of(0))

    def measure() -> None:
        gpu.thermal_ns += 700

    result = watched(measure, opened(gpu), sampling=traces)
    assert result.trace["violations_ns"] == {"power": 700, "thermal": 700}


def test_the_sampling_process_writes_until_told_to_stop() -> None:
    lines: list[str] = []
    periods: list[float] = []

    def stop(period: float) -> bool:
        periods.append(period)
        return len(periods) == 3

    write_samples(opened(FakeGpu(reasons=[0, 4])), stop, lines.append)
    assert periods == [0.05] * 3
    assert all('"sm_mhz": 1700' in line for line in lines)


def test_a_sampling_process_without_nvml_gives_nothing() -> None:
    with sampling("GPU-none") as samples:
        assert samples == []
    assert samples == []
    assert summary(samples) == {"num_samples": 0, "reasons": {}}


@pytest.mark.parametrize(
    ("before", "now", "was_ours", "others"),
    [
        (set(), {10}, False, 0),  # our PID is listed
        (set(), {99}, False, 0),  # a container: we are 99 to the driver
        ({50}, {50, 99}, False, 1),
        ({50}, {50, 10}, False, 1),
        ({50}, {10}, False, 1),  # left meanwhile, yet it was there
        (set(), {99, 60}, False, 1),
        ({99}, {99}, True, 0),
        ({99, 50}, {99, 50}, True, 1),
        (set(), set(), False, 0),
    ],
)
def test_others_on_the_device_are_counted(before: set[int], now: set[int], was_ours: bool, others: int) -> None:
    assert count_others(before, now, pid=10, was_ours=was_ours) == others
