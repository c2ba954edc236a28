"""What only a CUDA device can show; run by benchmarks/gpu.py, skipped elsewhere."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from luma_cli.catalogue.names import resolve
from luma_cli.measure import devices, sweep
from luma_cli.measure.attention import backends_by_kernel, backends_by_operator
from luma_cli.measure.nvml import load_nvml
from luma_cli.store.records import Profile

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cuda() -> Any:
    """Torch with a CUDA device, or the test is skipped."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.cuda


def profile(
    name: str = "vit_small_patch16_224", resolution: int = 224, energy_seconds: float = 0.0, **fields: Any
) -> Profile:
    template = sweep.template(**{"device": "cuda", "dtype": "bfloat16", "batch": 4, **fields})
    settings = sweep.SweepSettings(device="cuda", max_seconds=1.0, timeout_seconds=120, energy_seconds=energy_seconds)
    (found,) = sweep.measure_all(sweep.plan([resolve(name)], [resolution], template), settings)
    return found


@functools.cache
def plain_profile() -> Profile:
    """The profile that several tests look at, measured once."""
    return profile()


def test_a_whole_row_with_graph_and_energy() -> None:
    found = profile(batch=0, energy_seconds=1.0)
    assert found.status == "ok", found.reason
    assert found.batch is not None
    assert found.batch > 1
    eager, graph = found.metrics["latency_eager"], found.metrics["latency_cuda_graph"]
    assert 0 < graph.median <= eager.median * 1.05
    memory = [found.metrics[f"memory_{column}"].median for column in ("allocated", "reserved", "device")]
    assert memory == sorted(memory)
    assert found.metrics["energy"].median > found.metrics["energy_above_idle"].median > 0
    assert found.notes["clocks_throughput"]["num_samples"] > 0
    assert found.environment.identity["device_name"] != "unknown GPU"


@pytest.mark.parametrize("attention", ["flash", "efficient"])
def test_the_backend_that_was_asked_for_ran_and_no_other(attention: str) -> None:
    found = profile(attention=attention)
    assert found.status == "ok", found.reason
    names = found.notes["attention_kernels"]
    assert backends_by_operator(names) == backends_by_kernel(names) == {attention}, names


def test_masked_attention_cannot_be_flash() -> None:
    found = profile("swin_tiny_patch4_window7_224", attention="flash")
    assert found.status == "not_applicable"
    assert "masked" in found.reason


def test_single_precision_cannot_be_flash() -> None:
    assert profile(attention="flash", dtype="float32").status == "not_applicable"


def test_too_large_a_batch_is_out_of_memory_and_leaves_the_gpu_clean() -> None:
    gpu = load_nvml().open(devices.find("cuda").uuid)
    before = gpu.used_bytes() or 0
    found = profile(resolution=1024, batch=20_000)
    assert found.status == "oom"
    assert "latency_eager" in found.metrics
    assert (gpu.used_bytes() or 0) - before < 2**28


def test_memory_agrees_with_torch(cuda: Any) -> None:
    import torch

    from luma_cli.head.segmenter import build

    found = plain_profile()
    model = build("vit_small_patch16_224", 224, device="cuda", dtype=torch.bfloat16)
    images = torch.randn(1, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
    with torch.inference_mode():
        model(images)
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()
        model(images)
    cuda.synchronize()
    assert found.metrics["memory_allocated"].median == pytest.approx(cuda.max_memory_allocated(), rel=0.02)


def test_compiled_models_are_measured() -> None:
    found = profile(compile="default")
    assert found.status == "ok", found.reason
    assert found.notes["compile_seconds"] > 0


def test_the_worker_sees_the_gpu_that_was_asked_for(cuda: Any) -> None:
    found = plain_profile()
    uuid = found.environment.provenance["gpu_uuid"]
    assert uuid.endswith(str(cuda.get_device_properties(0).uuid)) or uuid.startswith("MIG-")
