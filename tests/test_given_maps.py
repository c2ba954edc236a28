"""`luma eval --pred`: given label maps score as torchmetrics says, and are found by their names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.classification import MulticlassJaccardIndex

from luma_cli.cli.app import run

NAMES = ("sky", "road", "tree")
VALUES = np.array([7, 30, 2], dtype=np.uint8)
CARD = """
image_suffixes = [".png"]
label_suffix = ".png"
classes = [{name = "sky", value = 7}, {name = "road", value = 30}, {name = "tree", value = 2}]
ignored = [255, 0]
[splits.val]
images = "images"
labels = "labels"
recursive = true
"""


def drawn(seed: int) -> NDArray[np.uint8]:
    """Class indices [20, 30], with runs of one class."""
    return np.random.default_rng(seed).integers(0, 3, (4, 6), dtype=np.uint8).repeat(5, 0).repeat(5, 1)


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images in folders below; some pixels of the truth are ignored."""
    for number, name in enumerate(("a/1", "b/2")):
        truth = VALUES[drawn(number)]
        truth[:, :3] = 255
        save(tmp_path / "images" / f"{name}.png", np.zeros((20, 30, 3), np.uint8))
        save(tmp_path / "labels" / f"{name}.png", truth)
    (tmp_path / "card.toml").write_text(CARD, encoding="utf-8")
    return tmp_path


def scored(data: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    assert run(["eval", "--pred", str(data / "pred"), "--data", str(data / "card.toml"), "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["{}.png", "{}_pred.png", "elsewhere/{:.0}{tail}.png"])
def test_scores_are_those_of_torchmetrics(name: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metric = MulticlassJaccardIndex(3, average="none", ignore_index=255)
    for number, place in enumerate(("a/1", "b/2")):
        found = drawn(number + 10)
        save(data / "pred" / name.format(place, tail=place[-1]), found)
        truth = drawn(number)
        truth[:, :3] = 255
        metric.update(torch.from_numpy(found)[None].long(), torch.from_numpy(truth)[None].long())
    answer = scored(data, capsys)
    expected = 100 * metric.compute().numpy()
    assert [each["iou_percent"] for each in answer["classes"]] == pytest.approx(expected.tolist(), rel=1e-6)
    assert answer["miou_percent"] == pytest.approx(float(expected.mean()), rel=1e-6)
    assert [each["name"] for each in answer["classes"]] == list(NAMES)
    assert answer["boundary_miou_percent"] is not None


def test_values_score_as_indices_do(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, place in enumerate(("a/1", "b/2")):
        save(data / "pred" / f"{place}.png", drawn(number + 10))
        save(data / "pred" / f"{place}_raw.png", VALUES[drawn(number + 10)])
    by_index, by_value = scored(data, capsys), scored(data, capsys, "--pred-values", "value")
    assert by_index.pop("protocol")["label_maps"] == "index"
    assert by_value.pop("protocol")["label_maps"] == "value"
    assert by_index == by_value


def test_a_pixel_without_prediction_is_missed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Intersection and truth stay, no other class is charged."""
    for number, place in enumerate(("a/1", "b/2")):
        found = drawn(number)
        found[:10] = 255
        save(data / "pred" / f"{place}.png", found)
    truth = np.stack([drawn(0), drawn(1)])[:, :, 3:]
    said = truth[:, 10:]
    expected = [100 * (said == index).sum() / (truth == index).sum() for index in range(3)]
    answer = scored(data, capsys)
    assert [each["iou_percent"] for each in answer["classes"]] == pytest.approx(expected)
    assert {each["false_positive"] for each in answer["classes"]} == {0}


def test_what_does_not_fit_is_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["eval", "--pred", str(data / "pred"), "--data", str(data / "card.toml")]
    assert run(asked) == 2
    save(data / "pred" / "1.png", drawn(0))
    assert run(asked) == 1
    save(data / "pred" / "2.png", VALUES[drawn(0)])
    assert run(asked) == 1
    save(data / "pred" / "2.png", drawn(0)[:5])
    assert run(asked) == 1
    assert run([*asked, "--skip-bad", "1"]) == 0
    assert run([*asked, "--tta"]) == 2
    assert run(["eval", "latest", *asked[1:]]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "evaluated" not in line]
    assert "is no folder" in said[0]
    assert "no label map for 1 of 2 images; for 2 looked for one file called 2.png, 2_pred.png" in said[1]
    assert "is no index of 3 classes; for the values" in said[2]
    assert "30 x 5 pixels, but" in said[3]
    assert "left out: " in said[4]
    assert "leave out the run" in said[5]
    assert "leave out the run" in said[6]
