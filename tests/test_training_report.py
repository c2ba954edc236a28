"""The live line of a training, as text."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from luma_cli.report.progress import TrainingProgress, duration, evaluation_line, step_line
from luma_cli.store.records import EvaluationRecord
from luma_cli.train.loop import Evaluated, Noted, Saved, Started, Stepped

METRICS = {"loss": 12.34567, "loss_bce": 0.5, "loss_dice": 1.2, "loss_class": 2.0, "lr": 1e-4, "grad_norm": 3.0}


def stepped(step: int, skipped: bool = False) -> Stepped:
    return Stepped(step, 100, 0, METRICS, 31.234, 3 * 2**30, skipped)


def record(miou: float | None = 43.218) -> EvaluationRecord:
    return EvaluationRecord(
        run_id="r",
        checkpoint_sha256="",
        step=10,
        data="ade20k#1a2b3c4d",
        split="val",
        resolution=128,
        protocol={},
        num_images=40,
        num_skipped=0,
        num_windows=80,
        num_classes=150,
        num_present=9,
        miou_percent=miou,
        macc_percent=50.0,
        aacc_percent=None if miou is None else 81.5,
        boundary_miou_percent=None,
        windows_per_image=2.0,
        macs_per_image=None,
        seconds=1.0,
    )


def test_a_step_in_one_line():
    assert step_line(stepped(7), 2.0) == (
        "step   7/100  loss 12.346 (mask 0.500 dice 1.200 class 2.000)  lr 1.0e-04  31.2 img/s  3.0 GiB  3m 06s left"
    )


def test_a_narrow_terminal_shows_less_of_the_loss_and_still_the_time_left():
    assert step_line(stepped(7), 2.0, 80) == "step   7/100  loss 12.346  lr 1.0e-04  31.2 img/s  3.0 GiB  3m 06s left"
    assert step_line(stepped(7), 2.0, 64) == "step   7/100  loss 12.346  31.2 img/s  3.0 GiB  3m 06s left"
    assert step_line(stepped(7), 2.0, 200) == step_line(stepped(7), 2.0)


def test_a_step_that_was_left_out_says_so():
    assert step_line(stepped(100, skipped=True), 2.0).endswith("3.0 GiB  update skipped: not finite")


def test_a_validation_in_one_line():
    assert evaluation_line(Evaluated(10, record(), True)) == (
        "step 10: mIoU 43.22 (mean of 9 of 150 classes), accuracy 81.50 on 40 val images of ade20k#1a2b3c4d"
        "  (best so far)"
    )
    assert evaluation_line(Evaluated(10, record(None), False)).startswith("step 10: no labelled pixel on 40")
    whole = replace(record(), num_present=150)
    assert evaluation_line(Evaluated(10, whole, False)).startswith("step 10: mIoU 43.22, accuracy")


@pytest.mark.parametrize(
    ("seconds", "text"), [(7, "0m 07s"), (187, "3m 07s"), (3600 * 4 + 301, "4h 05m"), (86400 * 2 + 3 * 3600, "2d 3h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_away_from_a_terminal_a_line_comes_every_half_minute_and_at_the_end():
    file, now = io.StringIO(), [0.0]
    with TrainingProgress(file, clock=lambda: now[0]) as progress:
        progress(Started("run-1", "runs/run-1", 3, 100, {"device": "cpu [bold]"}))
        for step in range(4, 101):
            now[0] += 1.0
            progress(stepped(step))
            if step == 50:
                progress(Saved(step, "x"))
        progress(Noted("a [note]"))
    lines = file.getvalue().splitlines()
    assert lines[:3] == ["run run-1 in runs/run-1", "  device: cpu [bold]", "  resumed at step 3 of 100"]
    assert [line.split("/")[0] for line in lines[3:-1]] == ["step   4", "step  34", "step  64", "step  94", "step 100"]
    assert lines[-1] == "a [note]"
    assert "66s left" not in file.getvalue()
    assert "1m 06s left" in lines[4]


def test_the_loss_of_a_linear_head_has_no_parts():
    event = stepped(7)
    event.metrics.update(loss_bce=0.0, loss_dice=0.0)
    assert step_line(event, 2.0).startswith("step   7/100  loss 12.346  lr 1.0e-04")
