"""`luma estimate`: every row of a list gets an answer in its order, on the scale of its own head."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from luma_cli.cli.app import run as command

COLUMNS = ("dataset", "backbone", "pretraining", "resolution", "head", "eval")
pytestmark = pytest.mark.usefixtures("fitted")


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict:
    assert command(["estimate", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def listed(tmp_path: Path, capsys: pytest.CaptureFixture[str], *rows: tuple[str, ...]) -> list[dict]:
    path = tmp_path / "asked.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    answer = told(capsys, "--from", str(path))
    assert answer["schema"] == 1
    assert [each["backbone"] for each in answer["estimates"]] == [row[1] for row in rows]
    return answer["estimates"]


def test_a_list_is_answered_in_its_order_and_unknown_rows_say_so(tmp_path, capsys):
    swin, unknown, odd, family, frozen = listed(
        tmp_path,
        capsys,
        ("ade20k", "swin_tiny_patch4_window7_224.ms_in1k", "supervised", "512x512", "upernet", "single-scale"),
        ("ade20k", "what-is-this", "supervised", "512x512", "upernet", "single-scale"),
        ("ade20k", "swin_tiny", "supervised", "big", "upernet", "ss"),
        ("ADE20K", "BiFormer-S", "", "", "UperNet", "MS+flip"),
        ("cityscapes", "vit_large_patch14_dinov2.lvd142m", "dinov2", "", "linear (frozen)", ""),
    )
    assert 43 < swin["miou"] < 46
    assert swin["extrapolated"] is False
    assert unknown["miou"] is None
    assert "not recognised" in unknown["reason"]
    assert odd["miou"] is None
    assert "big" in odd["reason"]
    assert family["extrapolated"] is True
    assert "biformer" in family["reason"]
    assert frozen["miou_80"][0] < frozen["miou"] < frozen["miou_80"][1]


def test_intervals_are_nested_and_unseen_series_are_wider(tmp_path, capsys):
    seen, unseen = listed(
        tmp_path,
        capsys,
        ("ade20k", "swin_small_patch4_window7_224.ms_in1k", "supervised", "512", "upernet", "single-scale"),
        ("ade20k", "biformer_b", "supervised", "512", "upernet", "single-scale"),
    )
    for each in (seen, unseen):
        bounds = [each[f"miou_{level}"] for level in (90, 80, 50)]
        lows, highs = zip(*bounds, strict=True)
        assert [*lows, each["miou"], *reversed(highs)] == sorted([*lows, each["miou"], *highs])
    widths = [each["miou_80"][1] - each["miou_80"][0] for each in (seen, unseen)]
    assert widths[1] > 1.3 * widths[0]


def test_a_card_has_exact_costs_and_another_head_none(capsys):
    (luma,) = told(capsys, "vit_b.dinov3", "--res", "512")["estimates"]
    assert luma["costs"]["macs"]["source"] == "exact"
    assert 122e9 < luma["costs"]["macs"]["value"] < 124e9
    assert luma["architecture"] == "vit_base_patch16_dinov3"
    (other,) = told(capsys, "vit_b.dinov3", "--res", "512", "--head", "upernet")["estimates"]
    assert other["costs"] == {}
    assert other["miou"] != luma["miou"]


def test_labels_that_nobody_named_are_those_usual_for_the_size(tmp_path, capsys):
    small, large = listed(
        tmp_path,
        capsys,
        ("ade20k", "internimage_t", "supervised", "512", "upernet", "single-scale"),
        ("ade20k", "internimage_xl", "supervised", "640", "upernet", "single-scale"),
    )
    assert (small["pretraining"], large["pretraining"]) == ("supervised_in1k", "supervised_in21k")
    assert "assumed by its size" in large["reason"]
    assert large["extrapolated"] is False


def test_the_sheet_of_one_names_what_it_stands_on(capsys):
    assert command(["estimate", "vit_b.dinov3", "--res", "512"]) == 0
    text = capsys.readouterr().out
    assert "no LUMA run seen" in text
    assert "80% interval" in text
    assert "exact" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give one backbone or --from"),
        (("vit_b", "--from", "x.csv"), "give one backbone or --from"),
        (("--from", "missing.csv"), "missing.csv"),
    ],
)
def test_wrong_use_is_one_line(arguments, said, capsys):
    assert command(["estimate", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_file_without_the_columns_is_refused(tmp_path, capsys):
    (tmp_path / "bad.csv").write_text("name,res\nvit_b,512\n")
    assert command(["estimate", "--from", str(tmp_path / "bad.csv")]) == 2
    assert "no column dataset" in capsys.readouterr().err


def test_one_that_is_not_recognised_fails(capsys):
    assert command(["estimate", "xyz"]) == 1
    assert "not recognised" in capsys.readouterr().out
