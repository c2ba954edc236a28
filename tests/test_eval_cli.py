"""`luma eval` from a checkpoint and files on disk to the table, JSON, CSV and the store."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import closing
from pathlib import Path

import pytest

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe
from luma_cli.cli.app import run
from luma_cli.data.drawn import write_sample
from luma_cli.head.segmenter import build
from luma_cli.measure.facts import segmenter_cost
from luma_cli.store.database import open_read
from luma_cli.store.runs import evaluations
from luma_cli.train.checkpoint import CheckpointState, save_checkpoint
from luma_cli.train.config import RunConfig
from luma_cli.train.run_folder import started

RUN_ID = "20261121-153012-test_vit-ade20k-3fa2"
NUM_VAL = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn dataset, and a run whose one checkpoint holds random weights."""
    folder = tmp_path_factory.mktemp("eval")
    write_sample("ade20k", folder / "ade", 15, short_side=64)
    head = HeadConfig(num_queries=20)
    config = RunConfig("test_vit", 64, head, "ade20k", Recipe(), weights="random", data_root=str(folder / "ade"))
    state = build("test_vit", 64, head=head, seed=3).state_dict()
    with started(folder / "run", RUN_ID, config) as made:
        save_checkpoint(made, CheckpointState(RUN_ID, config, 40, 1, 0, state, {}), best=True)
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["eval", *arguments]) == 0
    return capsys.readouterr().out


def test_json_has_every_score_and_the_store_every_image(place, capsys, tmp_path):
    database = str(tmp_path / "luma.db")
    found = json.loads(said(capsys, str(place / "run"), "--json", "--db", database))
    assert found["schema"] == 1
    assert (found["run_id"], found["step"], found["num_images"], found["split"]) == (RUN_ID, 40, NUM_VAL, "val")
    assert re.fullmatch("ade20k#[0-9a-f]{8}", found["data"])
    assert "(3 of 2,000 images); not comparable with published numbers" in found["note"]
    assert 0 <= found["miou_percent"] <= 100
    assert len(found["classes"]) == 150
    cost = segmenter_cost(build("test_vit", 64, head=HeadConfig(num_queries=20), device="meta"))
    assert found["macs_per_image"] == pytest.approx(found["num_windows"] / NUM_VAL * cost.macs)
    connection = open_read(Path(database))
    assert connection is not None
    with closing(connection):
        (kept,) = evaluations(connection, RUN_ID, images=True)
    assert len(kept.images) == NUM_VAL
    assert kept.miou_percent == found["miou_percent"]
    assert kept.protocol == found["protocol"]


def test_table_says_scores_protocol_and_what_the_data_is(place, capsys):
    out = said(capsys, str(place / "run"), "--classes", "--workers", "0")
    assert "mIoU\tmAcc\taAcc\tboundary IoU\tclasses\timages\twindows/image\tGMACs/image\ts" in out
    assert f"# {RUN_ID} at step 40, best checkpoint on ade20k#" in out
    assert "windows of 64 px; resize: short side to the window, PIL bilinear; single scale, no flip;" in out
    assert "not comparable with published numbers of ade20k" in out
    assert "wall\t" in out


def test_the_same_scores_whatever_the_form_and_the_threads(place, capsys):
    first = json.loads(said(capsys, str(place / "run"), "--json", "--workers", "0"))
    weights = str(place / "run" / "checkpoints")
    checkpoint = str(next(Path(weights).glob("step-*")))
    second = json.loads(
        said(capsys, checkpoint, "--json", "--workers", "3", "--batch", "4", "--root", str(place / "ade"))
    )
    for name in ("miou_percent", "boundary_miou_percent", "checkpoint_sha256", "data", "classes", "protocol"):
        assert first[name] == second[name], name
    (row,) = csv.DictReader(io.StringIO(said(capsys, str(place / "run"), "--csv")))
    assert float(row["miou_percent"]) == first["miou_percent"]
    assert row["protocol_scales"] == "[1.0]"
    rows = list(csv.DictReader(io.StringIO(said(capsys, str(place / "run"), "--csv", "--classes"))))
    assert [each["name"] for each in rows] == [each["name"] for each in first["classes"]]
    assert {each["iou_percent"] for each in rows if each["true_positive"] + each["false_negative"] == "00"} <= {
        "",
        "0.0",
    }


def test_options_move_the_number_and_are_told(place, capsys):
    plain = json.loads(said(capsys, str(place / "run"), "--json", "--no-boundary"))
    zero = json.loads(said(capsys, str(place / "run"), "--json", "--absent", "zero", "--split", "train"))
    augmented = json.loads(said(capsys, str(place / "run"), "--json", "--tta", "--no-boundary"))
    assert plain["boundary_miou_percent"] is None
    assert plain["protocol"]["boundary_ratio"] is None
    assert zero["protocol"] != plain["protocol"]
    assert (zero["split"], zero["num_images"]) == ("train", 12)
    assert augmented["windows_per_image"] > 10 * plain["windows_per_image"]
    assert augmented["macs_per_image"] > 10 * plain["macs_per_image"]
    assert augmented["protocol"]["flip"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--root", "nowhere"], 1, "ade20k not found"),
        (["--data", "cityscape"], 2, "cityscapes"),
        (["--data", "cityscapes"], 2, "class 'traffic sign' and 5 more, which the model does not predict"),
        (["--batch", "0"], 2, "batch is 0, expected at least 1"),
        (["--workers", "-1"], 2, "--workers"),
        (["--device", "gpu"], 2, "device 'gpu' is unknown"),
        (["--json", "--csv"], 2, "--json and --csv are both given"),
        (["--absent", "nan"], 2, "--absent"),
        (["--skip-bad", "-1"], 2, "skip_bad is -1, expected at least 0"),
    ],
)
def test_wrong_input_is_one_line(place, capsys, monkeypatch, arguments, code, message):
    monkeypatch.delenv("LUMA_DATA", raising=False)
    assert run(["eval", str(place / "run"), *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    assert message in shown.err


def test_unknown_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["eval", "20200101"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_damaged_images_are_named_and_can_be_left_out(place, capsys, tmp_path):
    write_sample("ade20k", tmp_path / "ade", 15, short_side=64)
    for archive in (tmp_path / "ade").glob("*.zip"):
        archive.unlink()
    broken = sorted((tmp_path / "ade").rglob("images/validation/*.jpg"))[1]
    broken.write_bytes(broken.read_bytes()[:200])
    arguments = [str(place / "run"), "--root", str(tmp_path / "ade")]
    assert run(["eval", *arguments]) == 1
    assert broken.name in capsys.readouterr().err
    assert run(["eval", *arguments, "--skip-bad", "1"]) == 0
    shown = capsys.readouterr()
    assert "1 unusable image left out" in shown.out
    assert f"left out: {broken}" in shown.err
