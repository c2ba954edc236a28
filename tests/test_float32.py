"""Float32 in whole, and what was set before comes back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from luma_cli.train.points import whole_float32

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


def product() -> torch.Tensor:
    return torch.ones(2, 2) @ torch.ones(2, 2)


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_products_are_exact_inside_and_as_before_outside(before):
    torch.set_float32_matmul_precision(before)
    with torch.autocast("cpu", torch.bfloat16):
        with whole_float32(CPU):
            assert torch.get_float32_matmul_precision() == "highest"
            assert product().dtype == torch.float32
        assert product().dtype == torch.bfloat16
    assert torch.get_float32_matmul_precision() == before


def test_an_error_brings_the_setting_back_as_well():
    torch.set_float32_matmul_precision("high")
    fails = whole_float32(CPU)
    fails.__enter__()
    assert not fails.__exit__(KeyError, KeyError(), None)
    assert torch.get_float32_matmul_precision() == "high"


def test_a_setting_of_one_backend_is_kept():
    """Once a backend has its own, torch.get_float32_matmul_precision refuses to answer."""
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    with whole_float32(CPU):
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"
