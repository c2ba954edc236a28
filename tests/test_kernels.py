"""Backends of attention told apart by the names that a profiler gives on a GPU."""

from __future__ import annotations

import pytest

from luma_cli.measure.attention import backends_by_kernel, backends_by_operator

FLASH = "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128, 128, 4>>"
CUTLASS = "fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::bfloat16_t>)"
CUDNN = "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x64"


@pytest.mark.parametrize(("kernel", "backend"), [(FLASH, "flash"), (CUTLASS, "efficient"), (CUDNN, "cudnn")])
def test_a_kernel_belongs_to_one_backend(kernel: str, backend: str) -> None:
    assert backends_by_kernel({"operators": {}, "kernels": {kernel: 12}}) == {backend}


@pytest.mark.parametrize(
    ("operator", "backend"),
    [
        ("aten::_scaled_dot_product_flash_attention", "flash"),
        ("aten::_scaled_dot_product_efficient_attention", "efficient"),
        ("aten::_scaled_dot_product_cudnn_attention", "cudnn"),
        ("aten::_scaled_dot_product_attention_math", "math"),
    ],
)
def test_an_operator_belongs_to_one_backend(operator: str, backend: str) -> None:
    found = {"operators": {"aten::scaled_dot_product_attention": 1, operator: 1}, "kernels": {}}
    assert backends_by_operator(found) == {backend}


def test_a_second_backend_is_seen() -> None:
    found = {"operators": {}, "kernels": {FLASH: 12, CUTLASS: 1, "gemm": 3}}
    assert backends_by_kernel(found) == {"flash", "efficient"}
