"""Device and number format that a model is run on."""

from __future__ import annotations

import pytest
import torch

from luma_cli.errors import UsageError
from luma_cli.evaluate.inference import autocast_dtype, dtype_name, torch_device
from luma_cli.measure import devices


def test_auto_is_the_cpu_without_a_gpu(monkeypatch):
    def none(name: str) -> devices.Device:
        raise UsageError("no NVIDIA driver here")

    monkeypatch.setattr(devices, "find", none)
    assert torch_device() == torch.device("cpu")
    with pytest.raises(UsageError, match="no NVIDIA driver"):
        torch_device("cuda:1")


def test_the_cpu_is_the_cpu_and_another_name_is_refused():
    assert torch_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="device 'gpu' is unknown"):
        torch_device("gpu")


@pytest.mark.parametrize(("name", "dtype"), [("auto", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_formats(name, dtype):
    assert dtype_name(autocast_dtype(name, torch.device("cpu"))) == dtype


def test_an_unknown_format_is_refused():
    with pytest.raises(UsageError, match="'int8' is unknown, expected auto, fp32, bf16, fp16"):
        autocast_dtype("int8", torch.device("cpu"))
