"""Pictures of trainings: curves hold what the store has, a confusion matrix what an evaluation counted."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from run_samples import RUN_ID, record
from run_stand_in import weights_file

from luma_cli.cli.app import run
from luma_cli.report.run_plots import plot_confusion, smoothed
from luma_cli.store import database
from luma_cli.store.runs import MIOU, save_metrics, start_run

CARD = """
image_suffixes = [".png"]
label_suffix = ".png"
classes = ["sky", "road", "a very long name of a class that does not fit"]
[splits.val]
images = "images"
labels = "labels"
"""


def texts(path: Path) -> set[str]:
    """What is written in an SVG."""
    return {"".join(each.itertext()).strip() for each in ElementTree.parse(path).iter() if each.tag.endswith("text")}


def test_curves_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(database.open_write()) as db:
        for name in (RUN_ID, "other-run"):
            start_run(db, record(name))
        assert run(["plot", "curve", RUN_ID, "--out", str(tmp_path / "c.svg")]) == 1
        losses = [(step, math.nan if step == 3 else 8.0 / step) for step in range(1, 201)]
        save_metrics(db, RUN_ID, [(step, "train/loss", loss) for step, loss in losses])
        save_metrics(db, "other-run", [(100, MIOU, 33.25), (200, MIOU, 40.0)])
    assert "no loss and no validation" in capsys.readouterr().err
    for _ in range(2):
        assert run(["plot", "curve", RUN_ID, "other-run", "--out", str(tmp_path / "c.svg")]) == 0
        written = (tmp_path / "c.svg").read_bytes()
    assert {RUN_ID, "other-run", "training loss", "validation mIoU (%)"} <= texts(tmp_path / "c.svg")
    assert run(["plot", "curve", RUN_ID, "other-run", "--out", str(tmp_path / "c.svg")]) == 0
    assert (tmp_path / "c.svg").read_bytes() == written
    assert run(["plot", "curve", RUN_ID, "--out", str(tmp_path / "c.gif")]) == 2


def test_smoothing_keeps_a_constant_and_short_curves() -> None:
    assert smoothed([(step, 2.0) for step in range(300)]) == [(step, 2.0) for step in range(300)]
    assert smoothed([(1, 5.0), (2, 1.0)]) == [(1, 5.0), (2, 1.0)]


def test_confusion_of_a_run(tmp_path: Path) -> None:
    for folder, pixels in (("images", np.zeros((20, 30, 3), np.uint8)), ("labels", np.eye(20, 30, dtype=np.uint8))):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "1.png")
    (tmp_path / "card.toml").write_text(CARD, encoding="utf-8")
    weights = weights_file(tmp_path / "run", str(tmp_path / "card.toml"), 3)
    assert run(["plot", "confusion", str(weights), "--out", str(tmp_path / "m.svg")]) == 0
    assert {"sky", "road", "predicted", "true", "a very long name of a cl..."} <= texts(tmp_path / "m.svg")


def test_cells_are_shares_of_the_true_class(tmp_path: Path) -> None:
    plot_confusion(np.array([[30, 10, 0], [0, 7, 0], [0, 0, 0]]), ["a", "b", "c"], "title", tmp_path / "m.svg")
    found = texts(tmp_path / "m.svg")
    assert {"75", "25", "100", "title"} <= found
    assert "nan" not in found


def test_many_classes_fit_without_numbers(tmp_path: Path) -> None:
    plot_confusion(np.eye(150, dtype=np.int64), [f"class {index}" for index in range(150)], "t", tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as image:
        assert image.width > 4000
