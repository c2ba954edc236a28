"""Real measurements of tiny models on this CPU, short but whole, in this process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import timm
import torch

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BuildError
from luma_cli.head.segmenter import Segmenter
from luma_cli.measure import session
from luma_cli.measure.accelerator import Cpu
from luma_cli.measure.runner import Options, Result, dump
from luma_cli.measure.timing import Rule
from luma_cli.store.records import Configuration

QUICK = Options(rule=Rule(max_seconds=0.05))


def attempt(backbone: str = "test_vit", build: Any = None, **fields: Any) -> Result:
    configuration = Configuration(backbone, backbone, **{"resolution": 64, "batch": 2, **fields})
    with pytest.MonkeyPatch.context() as patch:
        if build is not None:
            patch.setattr("luma_cli.head.segmenter.build", build)
        return session.attempt(configuration, QUICK, lambda stage: None)


@pytest.fixture(autouse=True)
def timm_as_it_was() -> Any:
    from timm.layers.config import set_fused_attn

    yield
    set_fused_attn(True)


def test_a_vit_is_measured_whole() -> None:
    stages: list[str] = []
    configuration = Configuration("test_vit", "test_vit", 64)
    result = session.attempt(configuration, QUICK, stages.append)
    assert result.status == "ok", result.reason
    assert {"throughput", "latency_eager", "memory_allocated", "memory_device", "memory_allocated_plateau"} <= set(
        result.metrics
    )
    assert not {"latency_cuda_graph", "energy", "memory_reserved"} & set(result.metrics)
    assert (result.metrics["throughput"].unit, result.metrics["latency_eager"].unit) == ("images/s", "ms")
    assert result.metrics["latency_eager"].p90 >= result.metrics["latency_eager"].median > 0
    assert result.batch == min(
        t[0]
        for t in result.notes["batch_search"]["trials"]
        if t[2] >= 0.98 * max(t[2] for t in result.notes["batch_search"]["trials"])
    )
    assert result.facts == {"ffn": "reused"}
    assert result.provenance["threads"] == torch.get_num_threads()
    assert result.seconds > 0
    assert stages[:3] == ["building", "first call", "memory at batch 1"]
    dump(result)


def test_the_attention_that_ran_is_listed() -> None:
    fused = attempt(part="backbone")
    assert fused.notes["sdpa_calls"] == 6
    assert fused.notes["attention_kernels"]["operators"]["aten::_scaled_dot_product_flash_attention_for_cpu"] == 6
    math = attempt(part="backbone", attention="math")
    assert math.notes["attention_kernels"]["operators"]["aten::_scaled_dot_product_attention_math"] == 6
    assert math.notes["fused_attention_level"] == 2
    unfused = attempt(part="backbone", attention="unfused")
    assert unfused.notes["sdpa_calls"] == 0
    assert unfused.notes["attention_kernels"]["operators"] == {}


def test_a_backend_is_not_applicable_where_attention_is_never_called() -> None:
    result = attempt("test_convnext", attention="math")
    assert result.status == "not_applicable"
    assert result.reason == "test_convnext never calls scaled dot product attention"


def test_convolutional_models_are_tried_in_both_layouts() -> None:
    result = attempt("test_convnext")
    assert set(result.notes["layout_seconds"]) == {"off", "on"}
    faster = min(result.notes["layout_seconds"], key=result.notes["layout_seconds"].get)
    assert result.notes["channels_last"] == (faster == "on")
    assert "layout_seconds" not in attempt("test_vit").notes
    assert attempt("test_convnext", channels_last="on").notes["channels_last"] is True


@pytest.mark.parametrize("part", ["backbone", "head"])
def test_parts_are_measured_alone(part: str) -> None:
    result = attempt(part=part)
    assert result.status == "ok", result.reason
    assert result.notes["sdpa_calls"] == (6 if part == "backbone" else 1)
    assert result.facts["ffn"] == ("none" if part == "backbone" else "reused")


def test_the_head_is_measured_alone_on_the_blocks_that_it_reads() -> None:
    head = HeadConfig(l2=2, tap="input", prefix=True)
    result = attempt(part="head", head=head, train_memory=True)
    assert result.status == "ok", result.reason
    assert result.notes["sdpa_calls"] == 2
    assert result.notes["training_memory"]["batch"] == 2  # how much it takes may fit into what earlier tests freed
    assert "memory_allocated_training" in result.metrics


def test_half_precision_runs() -> None:
    assert attempt(dtype="bfloat16").status == "ok"


WHOLE_STEP = """
from luma_cli.measure.accelerator import Cpu
from luma_cli.measure.runner import Result
from luma_cli.measure.session import measure_training_memory
from luma_cli.store.records import Configuration

result = Result("ok")
configuration = Configuration("test_vit", "test_vit", resolution=512, batch=6)
measure_training_memory(configuration, Cpu(), result)
print(result.notes["training_memory"]["batch"], result.metrics["memory_allocated_training"].median)
"""


def test_training_memory_is_of_a_whole_step() -> None:
    """In a process of its own, as a worker is: this one may have freed more than a step takes."""
    told = subprocess.run([sys.executable, "-c", WHOLE_STEP], capture_output=True, text=True, check=True).stdout
    batch, median = told.split()[-2:]
    assert batch == "6"
    assert float(median) > 6 * 100 * 128**2 * 4


def test_training_memory_of_eomt_is_of_all_its_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    original = Segmenter.predictions

    def watch(self: Segmenter, images: torch.Tensor, generator: torch.Generator | None = None) -> Any:
        found = original(self, images, generator)
        made.append(len(found))
        return found

    monkeypatch.setattr(Segmenter, "predictions", watch)
    result = attempt(train_memory=True, head=HeadConfig(name="eomt", l2=2))
    assert result.status == "ok", result.reason
    assert made == [3, 3]
    assert result.facts["ffn"] == "none"


def test_a_linear_probe_is_measured_and_so_is_its_part() -> None:
    for part in ("all", "head"):
        result = attempt(head=HeadConfig(name="linear"), part=part)
        assert result.status == "ok", result.reason


class Failing(torch.nn.Module):
    """A segmenter that fails as told from a batch on."""

    head = None

    def __init__(self, error: Exception, at_batch: int):
        super().__init__()
        self.backbone = torch.nn.Conv2d(3, 4, 3)
        self.error = error
        self.at_batch = at_batch

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[0] >= self.at_batch:
            raise self.error
        return self.backbone(images)


CUDA_OOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore lines")
CPU_OOM = RuntimeError(
    "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
)


LIBRARY_OOMS = [
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
]


@pytest.mark.parametrize("error", [CUDA_OOM, CPU_OOM, MemoryError(), *LIBRARY_OOMS])
def test_no_memory_at_one_image_is_a_status(error: Exception) -> None:
    result = attempt(build=lambda *a, **k: Failing(error, 1))
    assert result.status == "oom"
    assert "\n" not in result.reason


def test_no_memory_at_a_fixed_batch_keeps_what_was_found() -> None:
    result = attempt(build=lambda *a, **k: Failing(CUDA_OOM, 8), batch=8)
    assert result.status == "oom"
    assert result.batch == 8
    assert {"latency_eager", "memory_allocated"} <= set(result.metrics)
    assert "throughput" not in result.metrics


def test_the_search_backs_off_from_no_memory() -> None:
    result = attempt(build=lambda *a, **k: Failing(CUDA_OOM, 4), batch=0)
    assert result.status == "ok", result.reason
    trials = result.notes["batch_search"]["trials"]
    assert [trial[:2] for trial in trials[-3:]] == [[2, "ok"], [4, "oom"], [3, "ok"]]
    assert result.notes["batch_search"]["stopped_by"] == "out of memory"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("bad\nshape"), "ValueError: bad"),
        (KeyError("x"), "KeyError: 'x'"),
        (BuildError("no tap here"), "no tap here"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "RuntimeError: CUDA error: an illegal"),
    ],
)
def test_any_other_error_is_a_failure_in_one_line(error: Exception, reason: str) -> None:
    def build(*args: Any, **keywords: Any) -> Any:
        raise error

    result = attempt(build=build)
    assert result.status == "failed"
    assert result.reason.startswith(reason)
    assert "\n" not in result.reason


def test_inputs_are_random_seeded_and_rotate() -> None:
    subject = session.MeasuredPart(Configuration("test_vit", "test_vit", 64), torch.device("cpu"))
    images = subject.inputs(2)
    assert len(images) == 3
    assert all(0.9 < float(image.std()) < 1.1 for image in images)
    assert not torch.equal(images[0], images[1])
    assert torch.equal(images[0], subject.inputs(2)[0])
    seen: list[int] = []
    subject.module = lambda image: seen.append([torch.equal(image, kept) for kept in images].index(True))
    call = subject.caller(2)
    for number in range(6):
        call(number)
    assert seen == [0, 1, 2, 0, 1, 2]


class Slow(torch.nn.Module):
    """A convolutional segmenter that counts its calls."""

    head = None

    def __init__(self, clock: Any):
        super().__init__()
        self.backbone = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3) for _ in range(5)))
        self.clock = clock
        self.num_calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.num_calls += 1
        self.clock.now += 10.0 * images.shape[0]
        return images


def test_a_call_of_ten_seconds_is_not_repeated_often(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from luma_cli.measure.timing import Stopwatch

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(Cpu, "stopwatch", lambda self: Stopwatch(lambda: clock.now))
    slow = Slow(clock)
    configuration = Configuration("test_vit", "test_vit", 64)
    monkeypatch.setattr("luma_cli.head.segmenter.build", lambda *a, **k: slow)
    result = session.attempt(configuration, Options(), lambda stage: None)
    assert result.status == "ok", result.reason
    assert result.batch == 1
    assert result.metrics["latency_eager"].n == 3
    assert result.metrics["latency_eager"].noisy
    assert slow.num_calls <= 17
    for column in ("allocated", "device"):
        assert result.metrics[f"memory_{column}_plateau"].median == result.metrics[f"memory_{column}"].median


def test_memory_comes_before_kernels_are_chosen_by_trial() -> None:
    stages: list[str] = []
    session.attempt(Configuration("test_vit", "test_vit", 64, batch=2), QUICK, stages.append)
    assert stages.index("memory at batch 2") < stages.index("throughput at batch 2")


def test_the_graph_is_captured_with_the_kernels_of_the_eager_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    from luma_cli.measure.accelerator import Cuda

    class OnCuda(Cpu):
        kind = "cuda"
        tuned = Cuda.tuned

    seen: list[bool] = []

    def capture(module: Any, inputs: Any) -> Any:
        seen.append(torch.backends.cudnn.benchmark)
        return lambda number: None

    monkeypatch.setattr(session, "capture", capture)
    configuration = Configuration("test_vit", "test_vit", 64)
    result = Result("ok")
    subject = session.MeasuredPart(configuration, torch.device("cpu"))
    steps = session.MeasurementSteps(configuration, QUICK, subject, OnCuda(), result, lambda stage: None)
    steps.measure_graph_latency()
    assert seen == [True]
    assert "latency_cuda_graph" in result.metrics
    assert torch.backends.cudnn.benchmark is False


def test_a_number_format_that_overflows_is_no_measurement(tmp_path):
    """An activation of 60,000 x 1,000 fits into float32 and not into float16."""
    state = timm.create_model("test_vit", num_classes=0, img_size=64).state_dict()
    for name in ("weight", "bias"):
        state[f"blocks.1.mlp.fc1.{name}"] = state[f"blocks.1.mlp.fc1.{name}"] * 0 + (60_000 if name == "bias" else 0)
    state["blocks.1.mlp.fc2.weight"] = state["blocks.1.mlp.fc2.weight"] * 0 + 1_000
    torch.save(state, tmp_path / "overflow.pth")
    result = attempt(weights=str(tmp_path / "overflow.pth"), dtype="float16")
    assert (result.status, "NaN or infinite values in float16; try --dtype" in result.reason) == ("failed", True)
