"""An evaluation on the terminal, as JSON and as CSV: what is known, and nothing where nothing is known."""

from __future__ import annotations

import csv
import io
import json

from luma_cli.report.evaluation import class_table, print_evaluation, protocol_line, score_table
from luma_cli.report.progress import Countdown
from luma_cli.report.table import print_plain
from luma_cli.store.records import ClassScore, EvaluationRecord, ImageScore


def record(**changes) -> EvaluationRecord:
    protocol = {"window": 512, "resize": "short side", "scales": [1.0], "flip": False, "absent": "skip"}
    values = dict(
        run_id="20261121-run", checkpoint_sha256="ab" * 32, step=39100, data="ade20k", split="val", resolution=512,
        protocol={**protocol, "dtype": "bfloat16", "boundary_ratio": 0.02}, num_images=2000, num_skipped=0,
        num_windows=3214, num_classes=3, num_present=2, miou_percent=55.4321, macc_percent=66.0, aacc_percent=80.5,
        boundary_miou_percent=31.25, windows_per_image=1.607, macs_per_image=1.234e11, seconds=321.04,
        classes=(
            ClassScore("wall", 900, 100, 50, 85.714, 94.737, 40.0),
            ClassScore("[red]sky", 0, 9, 0, 0.0, None, 0.0),
            ClassScore("tree", 0, 0, 0, None, None, None),
        ),
        images=(ImageScore("a", 4, 5, 2, 50.0, 60.0),),
    )  # fmt: skip
    return EvaluationRecord(**{**values, **changes})


def plain(table) -> str:
    stream = io.StringIO()
    print_plain(table, stream)
    return stream.getvalue()


def test_scores_in_a_table():
    assert plain(score_table(record(num_skipped=2), "data: mine")) == (
        "# 20261121-run at step 39,100 on ade20k val, 512 px\n"
        "# windows of 512 px; resize: short side; single scale, no flip; classes absent from truth and prediction left"
        " out of the mean; boundary width 2% of the diagonal; dtype bfloat16\n"
        "# 2 unusable images left out\n"
        "# data: mine\n"
        "mIoU\tmAcc\taAcc\tboundary IoU\tclasses\timages\twindows/image\tGMACs/image\ts\n"
        "55.43\t66.00\t80.50\t31.25\t2 of 3\t2,000\t1.61\t123.4\t321.0\n"
    )


def test_what_is_not_known_is_left_out_or_a_dash():
    table = plain(score_table(record(boundary_miou_percent=None, macs_per_image=None, miou_percent=None, run_id="")))
    assert "boundary IoU" not in table
    assert "# checkpoint abababababab at step" in table
    assert table.splitlines()[-1].startswith("-\t66.00\t80.50\t2 of 3")
    assert table.splitlines()[-1].endswith("\t-\t321.0")


def test_the_protocol_of_test_time_augmentation():
    line = protocol_line(record(protocol={"scales": [0.5, 1.75], "flip": True, "absent": "zero", "window": 64}))
    assert "scales 0.5 1.75 with and without flip, averaged; absent classes count 0 in the mean" in line


def test_classes_in_a_table():
    assert plain(class_table(record())).splitlines() == [
        "class\tIoU\taccuracy\tboundary IoU\ttrue pixels",
        "wall\t85.71\t94.74\t40.00\t950",
        "[red]sky\t0.00\t-\t0.00\t0",
        "tree\t-\t-\t-\t0",
    ]
    assert "boundary" not in plain(class_table(record(boundary_miou_percent=None)))


def test_json_has_null_and_no_images(capsys):
    print_evaluation(record(), note="mine", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["note"], found["miou_percent"]) == (1, "mine", 55.4321)
    assert found["classes"][2]["iou_percent"] is None
    assert "images" not in found


def test_csv_has_empty_cells(capsys):
    print_evaluation(record(macs_per_image=None), as_csv=True)
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["miou_percent"], row["macs_per_image"], row["protocol_window"]) == ("55.4321", "", "512")
    print_evaluation(record(), classes=True, as_csv=True)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [each["iou_percent"] for each in rows] == ["85.714", "0.0", ""]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_line_now_and_then():
    clock = iter([0.0, 1.0, 11.0, 12.0, 30.0]).__next__
    stream = io.StringIO()
    progress = Countdown(stream, 60, clock, done="evaluated")
    for number in (1, 1, 1, 57):
        progress(number)
    assert stream.getvalue() == (
        "luma: evaluated 2 of 60 in 0:11, about 5:19 left\nluma: evaluated 60 of 60 in 0:30, about 0:00 left\n"
    )


def test_progress_on_a_terminal_redraws_one_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    clock = iter([0.0, 1.0, 1.1, 2.0]).__next__
    stream = Terminal()
    progress = Countdown(stream, 4, clock)
    for number in (1, 1, 2):
        progress(number)
    assert stream.getvalue().count("\r\x1b[2K") == 2
    assert stream.getvalue().endswith("counted 4 of 4 in 0:02, about 0:00 left\n")
