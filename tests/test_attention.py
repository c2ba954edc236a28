"""Watching, refusing and redirecting attention, as far as a CPU can show it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from luma_cli.errors import MeasureError
from luma_cli.measure import attention


def tensors(dtype: torch.dtype = torch.float32, channels: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, 9, channels, generator=generator).to(dtype) for _ in range(3)]


def test_every_call_is_seen_with_its_arguments() -> None:
    query, key, value = tensors()
    seen: list[attention.Attend] = []
    with attention.AttentionWatch(seen.append):
        sdpa(query, key, value)
        sdpa(query, key, value, torch.zeros(9, 9), scale=0.5)
        sdpa(query, key, value=value, is_causal=True)
        torch.matmul(query, key.transpose(-1, -2))
    assert [(c.attn_mask is None, c.is_causal, c.scale) for c in seen] == [
        (True, False, None),
        (False, False, 0.5),
        (True, True, None),
    ]
    assert seen[1].describe() == "query [2, 4, 9, 16] float32, masked"


def test_a_refusal_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    call = attention.Attend(*tensors())
    for backend in ("flash", "efficient"):
        assert "cuda" in attention.refusal(call, backend).lower()
    assert attention.refusal(call, "math") == ""
    assert capfd.readouterr().err == ""
    assert torch.zeros(1).sum() == 0
    print("still open", file=__import__("sys").stderr)
    assert capfd.readouterr().err == "still open\n"


def test_a_forced_backend_is_the_only_one() -> None:
    with attention.forced("math"):
        assert torch.backends.cuda.math_sdp_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    with attention.forced("unfused"):
        assert torch.backends.cuda.flash_sdp_enabled()


class Kernel:
    """flash_attn_func in plain torch, on tensors with tokens before heads."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, softmax_scale: float | None, causal: bool
    ) -> torch.Tensor:
        self.shapes.append(tuple(q.shape))
        scale = softmax_scale or 1 / math.sqrt(q.shape[-1])
        scores = torch.einsum("bqhd,bkhd->bhqk", q.float(), k.float()) * scale
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
        return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v.float()).to(q.dtype)


@pytest.mark.parametrize("keywords", [{}, {"is_causal": True}, {"scale": 0.3}])
def test_redirected_calls_give_the_same(keywords: dict[str, Any]) -> None:
    query, key, value = tensors(torch.bfloat16)
    kernel = Kernel()
    with attention.FlashAttn(kernel, device_type="cpu") as mode:
        redirected = sdpa(query, key, value, **keywords)
    assert (mode.num_redirected, mode.num_passed) == (1, 0)
    assert kernel.shapes == [(2, 9, 4, 16)]
    torch.testing.assert_close(redirected, sdpa(query, key, value, **keywords), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"dtype": torch.float32}, "single precision"),
        ({"channels": 264}, "large heads"),
        ({"mask": True}, "a mask"),
    ],
)
def test_what_the_package_cannot_run_goes_to_torch(changed: dict[str, Any], why: str) -> None:
    query, key, value = tensors(changed.get("dtype", torch.bfloat16), changed.get("channels", 16))
    mask = torch.zeros(9, 9, dtype=query.dtype) if changed.get("mask") else None
    kernel = Kernel()
    with attention.FlashAttn(kernel, device_type="cpu") as mode:
        sdpa(query, key, value, mask)
    assert (mode.num_redirected, mode.num_passed, kernel.shapes) == (0, 1, []), why


def test_tensors_off_the_gpu_are_not_redirected() -> None:
    with attention.FlashAttn(Kernel()) as mode:
        sdpa(*tensors(torch.bfloat16))
    assert mode.num_redirected == 0


def test_all_calls_of_a_vit_are_redirected() -> None:
    import timm

    model = timm.create_model("test_vit", img_size=64).eval().bfloat16()
    with torch.inference_mode(), attention.FlashAttn(Kernel(), device_type="cpu") as mode:
        model.forward_features(torch.randn(1, 3, 64, 64, dtype=torch.bfloat16))
    assert (mode.num_redirected, mode.num_passed) == (6, 0)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(MeasureError, match=r"luma-seg\[flash\]"):
        attention.load_kernel()
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_func=len))
    assert attention.load_kernel() is len
