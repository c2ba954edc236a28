"""A checkpoint works without the files that it came from, and what it predicts is compared by name."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import encoded
from torch import nn

from luma_cli.catalogue.datasets import load_card
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.cli.app import run
from luma_cli.data.source import find_root
from luma_cli.data.split import open_split
from luma_cli.evaluate.inference import predict_labels
from luma_cli.store.database import open_read
from luma_cli.store.runs import list_runs
from luma_cli.train.restore import choose_classes, restore
from luma_cli.train.run_folder import read_config

NAMES = ("sky", "road", "tree", "car")
CARD = """name = "own"
image_suffixes = [".png"]
label_suffix = ".png"
classes = {classes}
ignored = 9
[splits.train]
images = "images"
labels = "labels"
[splits.val]
images = "images"
labels = "labels"
"""
QUICK = (
    *("--res", "64", "--head", "linear", "--recipe", "smoke", "--batch", "4", "--device", "cpu", "--workers", "0"),
    *("--set", "warmup_head_steps=1", "--set", "warmup_backbone_steps=1"),
)


def card(file: Path, names: tuple[str, ...] = NAMES, ignored: str = "9") -> Path:
    """A card of these classes with the values that they have in the files."""
    classes = [{"name": name, "value": NAMES.index(name) if name in NAMES else 1} for name in names]
    text = ", ".join(f'{{ name = "{one["name"]}", value = {one["value"]} }}' for one in classes)
    file.write_text(CARD.format(classes=f"[{text}]").replace("ignored = 9", f"ignored = {ignored}"))
    return file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run of three steps, whose card is gone afterwards."""
    place = tmp_path_factory.mktemp("own")
    for index in range(4):
        values = np.kron(np.random.default_rng(index).integers(0, 4, (3, 3)), np.ones((24, 24))).astype(np.uint8)
        image = np.stack([values * 60, 255 - values * 60, values * 20], -1)
        for folder, pixels in (("images", image), ("labels", values)):
            (place / "data" / folder).mkdir(parents=True, exist_ok=True)
            (place / "data" / folder / f"{index}.png").write_bytes(encoded(pixels))
    own = card(place / "own.toml")
    asked = ("train", "test_vit", "--data", str(own), "--root", str(place / "data"), "--steps", "3", *QUICK)
    assert run([*asked, "--out", str(place / "run"), "--db", str(place / "luma.db")]) == 0
    own.unlink()
    return place


def luma(made: Path, *arguments: str) -> int:
    return run([arguments[0], *arguments[1:], "--db", str(made / "luma.db")])


def test_the_configuration_holds_the_classes_and_the_database_does_not(made):
    config = json.loads((made / "run" / "config.json").read_text())
    assert config["card"]["classes"][2]["name"] == "tree"
    assert [one["values"] for one in config["card"]["classes"]] == [[0], [1], [2], [3]]
    assert all("colour" not in each for each in config["card"]["classes"]), "drawn colours are drawn again"
    assert config["card"]["ignored"] == 9
    with closing(open_read(made / "luma.db")) as db:
        assert "card" not in list_runs(db)[0].config


@pytest.mark.parametrize("carried", [False, True])
def test_predict_export_and_eval_need_no_card(made, tmp_path, carried, capsys):
    what = made / "run"
    if carried:
        best = next((made / "run" / "checkpoints").iterdir())
        what = tmp_path / "carried"
        what.mkdir()
        for name in ("model.safetensors", "config.json"):
            shutil.copy(best / name, what)
    image = str(made / "data" / "images" / "0.png")
    assert luma(made, "predict", str(what), image, "--out", str(tmp_path / "out"), "--device", "cpu") == 0
    assert luma(made, "export", str(what), "--format", "safetensors", "--out", str(tmp_path / "a.safetensors")) == 0
    capsys.readouterr()
    assert luma(made, "eval", str(what), "--json", "--device", "cpu") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["classes"]] == list(NAMES)
    assert found["checkpoint"] == ("" if carried else "best")


def test_a_run_goes_on_without_its_card_and_with_card_and_files_elsewhere(made, tmp_path, capsys):
    (copy := tmp_path / "copy").mkdir()
    shutil.copytree(made / "run", copy / "run")
    shutil.move(shutil.copytree(made / "data", tmp_path / "moved" / "data"), tmp_path / "moved" / "own")
    again = card(tmp_path / "moved" / "other_name.toml")
    assert luma(made, "train", "--resume", str(copy / "run"), "--device", "cpu") == 0
    config = read_config(copy / "run" / "config.json")
    assert config.dataset.table.names == NAMES
    asked = ("train", "--resume", str(copy / "run"), "--data", str(again), "--root", str(tmp_path / "moved" / "own"))
    assert luma(made, *asked, "--device", "cpu") == 0
    (tmp_path / "moved" / "own" / "images" / "0.png").write_bytes(b"other")
    assert luma(made, *asked, "--device", "cpu") == 1
    assert "the training files have fingerprint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "ignored", "said"),
    [
        (NAMES[::-1], "9", "class 0 was 'sky' and is 'car'"),
        (NAMES[:3], "[3, 9]", "class 3 was 'car' and is missing"),
        (NAMES, "[9, 10]", "ignored was [9] and is [9, 10]"),
    ],
)
def test_classes_that_changed_are_refused_by_resume(made, capsys, names, ignored, said):
    changed = card(made / "own.toml", names, ignored)
    try:
        assert luma(made, "train", "--resume", str(made / "run"), "--device", "cpu") == 1
    finally:
        changed.unlink()
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("names", [NAMES[::-1], ("tree", "sky")])
def test_eval_compares_names_and_maps_them_where_asked(made, tmp_path, capsys, names):
    ignored = "9" if len(names) == 4 else "[1, 3, 9]"
    other = card(tmp_path / "other.toml", names, ignored)
    asked = ("eval", str(made / "run"), "--data", str(other), "--root", str(made / "data"), "--device", "cpu")
    assert luma(made, *asked) == 2
    assert "--map-names" in (said := capsys.readouterr().err)
    assert f"class 0 was 'sky' and is {names[0]!r}" in said
    assert luma(made, *asked, "--map-names", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    # counted again, from the scores of the plain model
    table = load_card(other).table
    segmenter = restore(str(made / "run"), database=made / "luma.db").segmenter
    samples = open_split(load_card(other), find_root(load_card(other), made / "data"), "val")
    kept = [NAMES.index(name) for name in names]
    choose_classes(segmenter, kept)
    right = np.zeros(len(names), dtype=int)
    for index in range(len(samples)):
        predicted, truth = predict_labels(segmenter, samples.image(index), 64), samples.labels(index)
        for number in range(len(names)):
            right[number] += int(((predicted == number) & (truth == number)).sum())
    assert [one["name"] for one in found["classes"]] == list(table.names)
    assert [one["true_positive"] for one in found["classes"]] == right.tolist()
    assert ("classes" in found["protocol"]) == (len(names) < 4)


def test_other_names_are_refused_even_by_name(made, tmp_path, capsys):
    other = card(tmp_path / "other.toml", ("sky", "lake"), "[2, 3, 9]")
    asked = ("eval", str(made / "run"), "--data", str(other), "--root", str(made / "data"), "--device", "cpu")
    assert luma(made, *asked, "--map-names") == 2
    assert "class 'lake', which the model does not predict; class 1 was 'road' and is 'lake'" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [[2, 0], [3, 2, 1, 0]])
def test_chosen_classes_have_the_probabilities_that_they_had(kept):
    logits = torch.randn(2, 5, 5)

    class Stub(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Module()
            self.head.classify = nn.Identity()
            self.config = HeadConfig(num_classes=4)

    stub = Stub()
    choose_classes(stub, kept)
    found = stub.head.classify(logits).softmax(-1)
    assert torch.allclose(found[..., :-1], logits.softmax(-1)[..., kept], atol=1e-6)


def test_weights_without_their_configuration_say_so(made, tmp_path, capsys):
    best = next((made / "run" / "checkpoints").iterdir())
    alone = shutil.copy(best / "model.safetensors", tmp_path)
    for text in (str(alone), str(tmp_path)):
        assert luma(made, "eval", text) == 1
        assert "beside it" in capsys.readouterr().err


def test_a_checkpoint_runs_no_code_unless_it_is_named_again(made, tmp_path, capsys):
    best = next((made / "run" / "checkpoints").iterdir())
    evil = tmp_path / "evil.py"
    evil.write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    config = json.loads((best / "config.json").read_text()) | {"imports": [str(evil)]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(best / "model.safetensors", tmp_path)
    asked = ("eval", str(tmp_path), "--device", "cpu")
    assert luma(made, *asked) == 2
    assert f"add --import {evil} if you trust it" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert luma(made, *asked, "--import", str(evil)) == 0
    assert (tmp_path / "ran").exists()
