"""Decoded images in memory: the same pixels, the same losses, each file decoded once, and only where they fit."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from luma_cli.catalogue.datasets import load_card
from luma_cli.catalogue.recipes import Augmentation
from luma_cli.cli.app import run
from luma_cli.data import split as splits
from luma_cli.data.cache import CachedSamples, cached
from luma_cli.data.loader import StepOrder, TrainingSet, batches
from luma_cli.data.source import find_root
from luma_cli.data.split import Split, open_split
from luma_cli.errors import BadSample
from luma_cli.train import prepare

CARD = """
image_suffixes = [".png"]
label_suffix = ".png"
classes = ["sky", "road", "tree"]
[splits.train]
images = "images"
labels = "labels"
[splits.val]
images = "images"
labels = "labels"
"""


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Six pictures of different sizes."""
    rng = np.random.default_rng(0)
    for index in range(6):
        size = (20 + index, 30 - index)
        for folder, pixels in (("images", rng.integers(0, 256, (*size, 3))), ("labels", rng.integers(0, 3, size))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"{index}.png")
    (tmp_path / "card.toml").write_text(CARD, encoding="utf-8")
    card = load_card(tmp_path / "card.toml")
    return open_split(card, find_root(card), "train")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_equal_and_files_are_decoded_once(
    num_workers: int, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(samples: Any) -> list[Any]:
        order = StepOrder(len(split), 2, seed=3)
        found = batches(TrainingSet(samples, 16, Augmentation(), seed=3), order, 0, 9, num_workers)
        return [(batch.images.numpy(), batch.labels.numpy()) for batch in found]

    expected = read(split)
    kept, said = cached(split, 1e6)
    assert said == "kept decoded in memory, 0.0148 MB"
    for _ in range(2):  # the second time all of them come from memory, which forked workers have filled
        for plain, held in zip(expected, read(kept), strict=True):
            np.testing.assert_equal(held, plain)
        monkeypatch.setattr(splits, "decode_image", lambda *_: pytest.fail("decoded again"))
        monkeypatch.setattr(splits, "decode_labels", lambda *_: pytest.fail("decoded again"))


def test_what_does_not_fit_is_not_kept(split: Split) -> None:
    found, said = cached(split, 1000)
    assert found is split
    assert said == "decoded in every epoch: 0.0148 MB would not fit into 0.001 MB"


def test_what_was_read_cannot_be_changed_from_outside_and_a_copy_reads_files(split: Split) -> None:
    kept, _ = cached(split, 1e6)
    for index in range(len(split)):
        for _ in range(2):
            kept.image(index)[:] = 7
            kept.labels(index)[:] = 7
        again = pickle.loads(pickle.dumps(kept))
        for each in (kept, again):
            np.testing.assert_array_equal(each.image(index), split.image(index))
            np.testing.assert_array_equal(each.labels(index), split.labels(index))


def test_a_damaged_file_is_named_each_time(split: Split, tmp_path: Path) -> None:
    (tmp_path / "images" / "2.png").write_bytes(b"no picture")
    kept, _ = cached(split, 1e6)
    assert isinstance(kept, CachedSamples)
    for _ in range(2):
        with pytest.raises(BadSample, match=r"2\.png"):
            kept.image(2)
    np.testing.assert_array_equal(kept.image(3), split.image(3))


def test_losses_are_equal_to_the_bit(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = []
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(prepare, "_CACHE_SHARE", 0)
        asked = f"train test_vit --data {tmp_path}/card.toml --res 32 --recipe smoke --steps 6 --batch 2 --device cpu"
        more = ["--set", "warmup_head_steps=0", "--set", "warmup_backbone_steps=0", "--out", str(tmp_path / name)]
        assert run([*asked.split(), "--workers", "0", "--queries", "5", *more]) == 0
        assert ("kept decoded in memory" in capsys.readouterr().err) == (name == "with")
        assert run(["runs", "show", str(tmp_path / name), "--json"]) == 0
        losses.append(json.loads(capsys.readouterr().out)["curves"]["train/loss"])
    assert len(losses[0]) == 6
    assert losses[0] == losses[1]
