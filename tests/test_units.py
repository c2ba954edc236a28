"""Units and budgets: one meaning each, junk refused, multiply-adds never confused with FLOPs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.errors import BadBudget, UsageError
from luma_cli.units import Budget, gflops, parse_budget, parse_image


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("200gflops", "macs", 200e9),
        ("200 GFLOPs", "macs", 200e9),
        ("0.2T", "macs", 200e9),
        ("0.2 TFLOPs", "macs", 200e9),
        ("100gmacs", "macs", 100e9),
        ("50Mparams", "params", 50e6),
        ("50 M params", "params", 50e6),
        ("20ms", "ms", 20.0),
        ("1.5 s", "ms", 1500.0),
        ("30fps", "fps", 30.0),
        ("500img/s", "images_per_second", 500.0),
        ("8GiB", "bytes", 8 * 2**30),
        ("8GB", "bytes", 8e9),
        ("2J", "joules", 2.0),
        ("500mJ", "joules", 0.5),
        ("24gpuh", "gpu_hours", 24.0),
        ("24 gpu-hours", "gpu_hours", 24.0),
        ("1.5 GPU hours", "gpu_hours", 1.5),
    ],
)
def test_budgets(text: str, kind: str, limit: float) -> None:
    budget = parse_budget(text)
    assert budget.kind == kind
    assert budget.limit == pytest.approx(limit, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["200", "200 bananas", "-5ms", "", "gflops", "0ms", "nan ms", "inf ms", "1e999ms", "5 5ms"]
)
def test_junk_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadBudget, match="200gflops"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["-5ms", "0gflops", "1e400gflops"])
def test_a_number_that_bounds_nothing_is_named_as_such(text: str) -> None:
    with pytest.raises(BadBudget, match="greater than zero"):
        parse_budget(text)


def test_small_exponents_are_read() -> None:
    assert parse_budget("5e-1gflops").limit == 5e8


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_limit_that_bounds_nothing_is_refused_in_python_too(limit: float) -> None:
    with pytest.raises(BadBudget, match="greater than zero"):
        Budget("ms", limit, f"{limit}ms")


def test_convention_touches_flops_only() -> None:
    assert parse_budget("200gflops", "2x").limit == 100e9
    assert parse_budget("200gmacs", "2x").limit == 200e9
    assert parse_budget("200Mparams", "2x").limit == 200e6


@given(st.floats(1e-3, 1e6), st.sampled_from(["mac", "2x"]))
def test_what_is_shown_as_gflops_parses_back(value: float, convention: str) -> None:
    shown = gflops(value * 1e9, convention)  # type: ignore[arg-type]
    assert parse_budget(f"{shown:.12f}gflops", convention).limit == pytest.approx(value * 1e9)  # type: ignore[arg-type]


def test_rates_are_floors_and_costs_are_ceilings() -> None:
    assert parse_budget("30fps").holds(31)
    assert not parse_budget("30fps").holds(29)
    assert parse_budget("30ms").holds(29)
    assert not parse_budget("30ms").holds(31)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("400gflops/image", "macs_image"), ("2 J/img", "joules_image"), ("40ms/image", "ms_image"), ("30fps", "fps")],
)
def test_budgets_of_whole_images(text: str, kind: str) -> None:
    assert parse_budget(text).kind == kind


@pytest.mark.parametrize("text", ["200gflops/imag", "8GiB/image", "30fps/image", "50Mparams/image"])
def test_what_an_image_has_no_value_of(text: str) -> None:
    with pytest.raises(BadBudget, match="try 200gflops, 400gflops/image"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["0x512", "1x100000", "512", "-4x512", "1920.5x1080", "31x31", "axb", ""])
def test_images_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="e.g. --image 1920x1080"):
        parse_image(text)


def test_an_image_is_width_by_height() -> None:
    assert parse_image("1920x1080") == parse_image(" 1920 × 1080 ") == (1080, 1920)
