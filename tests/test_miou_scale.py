"""Percent or fraction: told apart where that is possible, asked where it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.evidence.imported import Record, TableFile, figure, in_percent, unclear


def table(*figures: str) -> TableFile:
    from pathlib import Path

    records = (Record(number, number + 1, {"miou": text}) for number, text in enumerate(figures, start=1))
    return TableFile(Path("results.csv"), ("miou",), tuple(records))


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (("48.1", "51"), ""),
        (("0.9%", "51"), ""),
        (("", "nan", "-0.5", "0", "51"), ""),
        (("0.481", "0.5"), "all 2 mIoU figures are at most 1, the first 0.481 in row 1 (line 2)"),
        (("48.1", "0.5", "51"), "1 of 3 mIoU figures are at most 1, the first 0.5 in row 2 (line 3)"),
    ],
)
def test_what_has_to_be_asked(figures: tuple[str, ...], expected: str) -> None:
    assert unclear(table(*figures)).partition(":")[0] == expected


@pytest.mark.parametrize(
    ("text", "scale", "percent"),
    [
        ("0.481", "fraction", 48.1),
        ("48.1", "fraction", 48.1),
        ("0.481", "percent", 0.481),
        ("0.481%", "fraction", 0.481),
        ("48.1 %", None, 48.1),
    ],
)
def test_readings(text: str, scale: str | None, percent: float) -> None:
    assert in_percent(text, scale, False) == percent  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "mIoU is empty"),
        ("%", "mIoU is empty"),
        ("nan", "expected a finite number"),
        ("-inf", "expected a finite number"),
        ("48,1", "expected a number"),
        ("100", "mIoU is 100 percent"),
        ("0", "mIoU is 0 percent"),
        ("-3", "mIoU is -3 percent"),
    ],
)
def test_what_is_no_miou(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        in_percent(text, None, False)


@given(st.floats(0.001, 0.999))
def test_a_fraction_is_a_hundredth_of_its_percentage(fraction: float) -> None:
    assert in_percent(repr(fraction), "fraction", False) == pytest.approx(100 * fraction, abs=1e-9)
    assert figure(f"{fraction}".replace(".", ","), decimal_comma=True) == (fraction, False)
