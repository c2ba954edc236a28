"""`luma eval --ood`: how unsure a model is of each pixel, the curves, layouts of published sets, the command."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.catalogue.recipes import Recipe
from luma_cli.cli.app import run
from luma_cli.data.drawn import write_sample
from luma_cli.data.unknown import KNOWN, UNKNOWN, VOID, find_unknown
from luma_cli.errors import BadSample, DataError, UsageError
from luma_cli.evaluate.inference import score_map
from luma_cli.evaluate.unknown import NUM_BINS, UnknownCounts, bins, curves, evaluate_unknown, unknown_scores
from luma_cli.head.segmenter import build
from luma_cli.store.database import open_read
from luma_cli.store.runs import evaluations
from luma_cli.train.checkpoint import CheckpointState, save_checkpoint
from luma_cli.train.config import RunConfig
from luma_cli.train.run_folder import started

RUN_ID = "20261201-101010-test_vit-cityscapes-0f0f"


def by_sorting(scores: NDArray[np.float64], unknown: NDArray[np.bool_]) -> tuple[float, float, float]:
    """AUPRC, AUROC, FPR95 in percent from every distinct score as a threshold."""
    thresholds = np.unique(scores)[::-1]
    found = np.array([(scores[unknown] >= each).sum() for each in thresholds]) / unknown.sum()
    wrong = np.array([(scores[~unknown] >= each).sum() for each in thresholds])
    precision = found * unknown.sum() / (found * unknown.sum() + wrong)
    area = np.sum(np.diff(found, prepend=0.0) * precision)
    rate = wrong / (~unknown).sum()
    roc = np.trapezoid(np.concatenate([[0.0], found]), np.concatenate([[0.0], rate]))
    return 100 * area, 100 * roc, 100 * rate[np.argmax(found >= 0.95)]


def counted(scores: NDArray[np.float64], truth: NDArray[np.uint8]) -> UnknownCounts:
    counts = UnknownCounts.none()
    counts.add(torch.from_numpy(scores.astype(np.float32)), torch.from_numpy(truth))
    return counts


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-12])
def test_curves_are_those_of_sorted_scores_for_sure_models_too(scale: float) -> None:
    rng = np.random.default_rng(3)
    truth = rng.choice(np.array([KNOWN, KNOWN, KNOWN, UNKNOWN, VOID], dtype=np.uint8), 4000)
    scores = scale * rng.beta(0.5, 3, 4000) * np.where(truth == UNKNOWN, 2.0, 1.0)
    found = curves(counted(scores, truth))
    seen = truth != VOID
    exact = by_sorting(scores[seen], truth[seen] == UNKNOWN)
    assert (found.auprc, found.auroc, found.fpr95) == pytest.approx(exact, abs=0.1)
    assert found.num_pixels == seen.sum()
    assert found.unknown_share == pytest.approx(100 * (truth[seen] == UNKNOWN).mean())


def test_counts_add_up_and_ties_are_shared() -> None:
    truth = np.array([KNOWN, UNKNOWN, KNOWN, UNKNOWN], dtype=np.uint8)
    scores = np.array([0.5, 0.5, 0.5, 0.5])
    whole, parts = counted(scores, truth), counted(scores[:2], truth[:2])
    parts.add(torch.from_numpy(scores[2:].astype(np.float32)), torch.from_numpy(truth[2:]))
    assert (whole.pixels == parts.pixels).all()
    found = curves(whole)
    assert (found.auprc, found.auroc, found.fpr95) == (50, 50, 100)


def test_bins_keep_the_order_of_negative_and_positive_scores() -> None:
    scores = torch.tensor([-60000.0, -2.0, -1.5, -1e-30, 0.0, 1e-30, 1e-7, 0.3, 1.0, 60000.0])
    found = bins(scores)
    assert (found.diff() > 0).all()
    assert found.min() >= 0
    assert found.max() < NUM_BINS


def test_nothing_to_tell_apart() -> None:
    with pytest.raises(UsageError, match="no pixel of the masks is unknown"):
        curves(counted(np.array([0.1, 0.2]), np.array([KNOWN, KNOWN], dtype=np.uint8)))


def test_doubt_of_a_linear_head_is_what_softmax_leaves_however_sure() -> None:
    logits = torch.tensor([[0.0, 30.0, 1.0], [2.0, 2.0, 2.0]], dtype=torch.float32)
    left = 1 - logits.double().softmax(-1).amax(-1)
    assert unknown_scores(logits, "largest", are_logits=True).double() == pytest.approx(left.numpy(), rel=1e-6)
    assert unknown_scores(logits, "entropy", are_logits=True)[1] == pytest.approx(1.0)
    assert unknown_scores(logits, "max-logit", are_logits=True).tolist() == [-30.0, -2.0]


def test_doubt_of_query_heads() -> None:
    scores = torch.tensor([[0.7, 0.2, 0.0], [0.1, 0.1, 0.1]])
    assert unknown_scores(scores, "largest", are_logits=False).tolist() == pytest.approx([0.3, 0.9])
    sure, unsure = unknown_scores(scores, "entropy", are_logits=False).tolist()
    assert (sure < 0.7, unsure) == (True, pytest.approx(1.0))
    with pytest.raises(UsageError, match="use --confidence largest"):
        unknown_scores(scores, "max-logit", are_logits=False)


def write(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


IMAGE = np.zeros((4, 6, 3), dtype=np.uint8)
LAYOUTS = {
    "smiyc": ("images/validation0001.jpg", "labels_masks/validation0001_labels_semantic.png", 1),
    "obstacle track": ("images/validation_3.webp", "labels_masks/validation_3_labels_semantic.png", 1),
    "road anomaly": ("frames/animals06.jpg", "frames/animals06.labels/labels_semantic.png", 2),
    "fishyscapes": ("leftImg8bit/test/04/04_a_8_000030_leftImg8bit.png", "0000_04_a_8_000030_labels.png", 1),
    "fishyscapes, by frame": ("test/04_a_8_000030_leftImg8bit.png", "labels/04_a_8_000030_fishy-labels.png", 1),
    "own": ("images/a.png", "masks/a.png", 1),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, tmp_path: Path) -> None:
    image, mask, value = LAYOUTS[name]
    write(tmp_path / image, IMAGE)
    write(tmp_path / "images" / "of_the_hidden_test.png", IMAGE)
    values = np.full((4, 6), VOID, dtype=np.uint8)
    values[0], values[1] = range(6), value
    values[0] %= value
    write(tmp_path / mask, values)
    write(tmp_path / mask.replace(".png", "_color.png"), IMAGE)
    found = find_unknown(tmp_path)
    (pair,) = found.pairs
    assert (pair.image, pair.mask, found.num_unlabelled) == (tmp_path / image, tmp_path / mask, 1)
    truth = found.mask(pair, found.image(pair).shape)
    assert (truth[0] == KNOWN).all()
    assert (truth[1] == UNKNOWN).all()
    assert (truth[2:] == VOID).all()


def test_masks_of_0_and_255_are_read_when_asked_and_strange_values_refused(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a.png", IMAGE)
    binary = np.zeros((4, 6), dtype=np.uint8)
    binary[2:] = 255
    write(tmp_path / "masks" / "a.png", binary)
    asked = find_unknown(tmp_path, 255)
    assert (asked.mask(asked.pairs[0], (4, 6)) == np.where(binary == 255, UNKNOWN, KNOWN)).all()
    binary[0] = 7
    write(tmp_path / "masks" / "a.png", binary)
    usual = find_unknown(tmp_path)
    with pytest.raises(BadSample, match=r"value 7, expected 0 \(known\), 1 \(unknown\) or 255 \(void\)"):
        usual.mask(usual.pairs[0], (4, 6))
    with pytest.raises(BadSample, match="6 x 4 pixels, but .* has 5 x 4"):
        usual.mask(usual.pairs[0], (4, 5))


def test_folders_that_say_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        find_unknown(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no mask; expected images/NAME.jpg"):
        find_unknown(tmp_path)
    write(tmp_path / "masks" / "a.png", np.zeros((4, 6), dtype=np.uint8))
    with pytest.raises(DataError, match="no image called a is in the folder"):
        find_unknown(tmp_path)
    for folder in ("one", "two"):
        write(tmp_path / folder / "a.png", IMAGE)
    with pytest.raises(DataError, match="2 images are called a"):
        find_unknown(tmp_path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn anomaly set, and a run whose one checkpoint holds random weights."""
    folder = tmp_path_factory.mktemp("ood")
    write_sample("cityscapes", folder / "strange", 3, short_side=64, unknown=True)
    head = HeadConfig(num_queries=10, num_classes=19)
    config = RunConfig("test_vit", 64, head, "cityscapes", Recipe(), weights="random")
    state = build("test_vit", 64, head=head, seed=3).state_dict()
    with started(folder / "run", RUN_ID, config) as made:
        save_checkpoint(made, CheckpointState(RUN_ID, config, 40, 1, 0, state, {}), best=True)
    return folder


def test_the_drawn_set_holds_known_unknown_and_void_pixels_and_is_the_same_again(place: Path, tmp_path: Path) -> None:
    found = find_unknown(place / "strange")
    masks = [found.mask(pair, found.image(pair).shape) for pair in found.pairs]
    assert len(masks) == 3
    assert {int(value) for mask in masks for value in np.unique(mask)} == {KNOWN, UNKNOWN, VOID}
    write_sample("cityscapes", tmp_path / "again", 3, short_side=64, unknown=True)
    again = find_unknown(tmp_path / "again")
    assert again.identity.split("#")[1] == found.identity.split("#")[1]


@pytest.mark.parametrize("head", ["luma", "linear"])
def test_strips_give_the_curves_of_whole_score_maps(head: HeadName, place: Path) -> None:
    segmenter = build("test_vit", 64, head=HeadConfig(name=head, num_classes=19), seed=1)
    data = find_unknown(place / "strange")
    seen = []
    counts = evaluate_unknown(segmenter, data, "largest", 64, on_image=seen.append)
    whole = UnknownCounts.none()
    for pair, judged in zip(data.pairs, seen, strict=True):
        image = data.image(pair)
        scores = score_map(segmenter, image, 64).permute(1, 2, 0)
        doubt = unknown_scores(scores, "largest", are_logits=head == "linear")
        assert judged.scores == pytest.approx(doubt.numpy(), abs=1e-6)
        whole.add(doubt, torch.from_numpy(data.mask(pair, image.shape)))
    assert (whole.pixels == counts.pixels).all()


def test_eval_ood_prints_keeps_and_draws(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["eval", str(place / "run"), "--ood", str(place / "strange"), "--db", str(tmp_path / "luma.db")]
    assert run([*words, "--json", "--out", str(tmp_path / "pictures")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 <= found["ood_auprc_percent"] <= 100
    assert found["num_images"] == len(list((tmp_path / "pictures").glob("*_doubt.png"))) == 3
    assert run(words) == 0
    assert f"{found['ood_auroc_percent']:.2f}" in capsys.readouterr().out
    with closing(open_read(tmp_path / "luma.db")) as connection:  # type: ignore[type-var]
        first, second = evaluations(connection, RUN_ID)
    assert first.scores == second.scores == {name: found[name] for name in first.scores}
    assert (len(first.scores), first.miou_percent) == (4, None)
    assert run(["db", "check", "--db", str(tmp_path / "luma.db")]) == 0
    capsys.readouterr()
    assert run(["runs", "show", str(place / "run"), "--db", str(tmp_path / "luma.db")]) == 0
    assert "AUPRC\tAUROC\tFPR95" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--confidence", "entropy"], "--confidence applies to --ood FOLDER alone"),
        (["--ood", "DATA", "--data", "ade20k"], "--ood scores doubt, not classes"),
        (["--ood", "DATA", "--confidence", "max-logit"], "use --confidence largest"),
        (["--ood", "DATA", "--ood-value", "0"], "--ood-value is 0, expected 1 to 255"),
        (["--ood", "DATA", "--ood-value", "3"], "no pixel of the masks is unknown"),
    ],
)
def test_wrong_words(place: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    data = str(place / "strange")
    assert run(["eval", str(place / "run"), *(data if each == "DATA" else each for each in words)]) == 2
    assert said in capsys.readouterr().err
