"""Evaluation of a split: the same counts whatever the batch, the threads and the processes; bad images; the record."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BadSample, UsageError
from luma_cli.evaluate.evaluation import EvalSettings, evaluate, evaluation_record
from luma_cli.evaluate.inference import predict_labels
from luma_cli.evaluate.metrics import Counts, boundary_counts, confusion_matrix, merge, scores
from luma_cli.head.segmenter import Segmenter, build
from tests.drawn_samples import DrawnSamples

SIDE = 64
SIZES = ((70, 110), (64, 64), (200, 64), (30, 41), (64, 65), (90, 61), (50, 170))
SETTINGS = EvalSettings(SIDE, boundary=True)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return build("test_vit", SIDE, head=HeadConfig(num_classes=5), seed=3)


@pytest.fixture(scope="module")
def expected(segmenter: Segmenter) -> Counts:
    return evaluate(segmenter, DrawnSamples(SIZES), SETTINGS)


def assert_same(one: Counts, other: Counts) -> None:
    assert np.array_equal(one.confusion, other.confusion)
    assert np.array_equal(one.boundary.intersection, other.boundary.intersection)
    assert np.array_equal(one.boundary.union, other.boundary.union)
    assert (one.images, one.skipped) == (other.images, other.skipped)


def test_counts_are_those_of_single_predictions(segmenter, expected):
    samples = DrawnSamples(SIZES)
    confusion, union = np.zeros((5, 5), np.int64), np.zeros(5, np.int64)
    for index, (number, image) in enumerate(expected.images):
        predicted, truth = predict_labels(segmenter, samples.image(index)), samples.labels(index)
        one = confusion_matrix(truth, predicted, 5)
        confusion += one
        union += boundary_counts(truth, predicted, 5).union
        assert (number, image.name, (image.height, image.width)) == (index, f"drawn_{index}", SIZES[index])
        assert (image.miou_percent, image.accuracy_percent) == (scores(one).miou, scores(one).aacc)
    assert np.array_equal(expected.confusion, confusion)
    assert np.array_equal(expected.boundary.union, union)
    assert confusion.sum() == sum((samples.labels(index) != 255).sum() for index in range(len(samples)))
    assert [image.num_windows for _, image in expected.images] == [2, 1, 4, 2, 2, 2, 4]


@pytest.mark.parametrize(("batch", "workers", "ranks"), list(itertools.product((1, 3, 16), (0, 2), (1, 3))))
def test_counts_depend_neither_on_batch_nor_threads_nor_processes(segmenter, expected, batch, workers, ranks):
    settings = dataclasses.replace(SETTINGS, batch=batch)
    samples = DrawnSamples(SIZES)
    parts = [
        evaluate(segmenter, samples, settings, rank=rank, num_ranks=ranks, num_workers=workers) for rank in range(ranks)
    ]
    assert_same(merge(parts), expected)


def test_an_image_of_one_class_or_none_counts_like_any_other(segmenter):
    class Plain(DrawnSamples):
        def labels(self, index: int) -> np.ndarray:
            return np.full(self.sizes[index], (2, 255)[index], np.uint8)

    counts = evaluate(segmenter, Plain(((64, 64), (64, 64))), SETTINGS)
    assert len(counts.images) == 2
    assert counts.confusion.sum() == counts.confusion[2].sum() == 64 * 64
    assert counts.images[1][1].miou_percent is None


@pytest.mark.parametrize("workers", [0, 2])
def test_unusable_images_are_refused_by_name_or_left_out_and_counted(segmenter, expected, workers):
    samples = DrawnSamples(SIZES, bad=(1, 4))
    with pytest.raises(BadSample, match=r"drawn_1.jpg: damaged; .*--skip-bad N"):
        evaluate(segmenter, samples, SETTINGS, num_workers=workers)
    with pytest.raises(BadSample, match=r"drawn_4.jpg: damaged \(2 so far\)"):
        evaluate(segmenter, samples, dataclasses.replace(SETTINGS, skip_bad=1, batch=8), num_workers=workers)
    counts = evaluate(segmenter, samples, dataclasses.replace(SETTINGS, skip_bad=2, batch=4), num_workers=workers)
    assert counts.skipped == ((1, "drawn_1.jpg: damaged"), (4, "drawn_4.jpg: damaged"))
    assert [index for index, _ in counts.images] == [0, 2, 3, 5, 6]
    assert counts.images == tuple(image for image in expected.images if image[0] not in (1, 4))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((64, 65), np.uint8), r"drawn_0: labels of \[64, 65\] pixels, expected \[64, 64\]"),
        (np.full((64, 64), 5, np.uint8), "drawn_0: label 5, expected 0 to 4"),
    ],
)
def test_labels_that_do_not_fit_are_refused_by_name(segmenter, wrong, said):
    class Wrong(DrawnSamples):
        def labels(self, index: int) -> np.ndarray:
            return wrong

    with pytest.raises(BadSample, match=said):
        evaluate(segmenter, Wrong(((64, 64),)), SETTINGS)


def test_an_image_that_is_far_too_narrow_is_refused_by_name(segmenter):
    with pytest.raises(BadSample, match=r"drawn_0: 30000 x 1 pixels become"):
        evaluate(segmenter, DrawnSamples(((1, 30000),)), SETTINGS)


def test_another_number_of_classes_is_refused(segmenter):
    with pytest.raises(UsageError, match="predicts 5 classes, the data has 7"):
        evaluate(segmenter, DrawnSamples(SIZES, num_classes=7), SETTINGS)


@pytest.mark.parametrize("wrong", [{"resolution": 0}, {"batch": 0}, {"skip_bad": -1}])
def test_settings_that_are_none(wrong):
    with pytest.raises(UsageError, match="expected at least"):
        EvalSettings(**{"resolution": 64, **wrong})


def test_progress_counts_every_image_of_the_process(segmenter):
    seen: list[tuple[int, int]] = []
    settings = dataclasses.replace(SETTINGS, batch=2, skip_bad=1)
    samples = DrawnSamples(SIZES, bad=(0,))
    evaluate(segmenter, samples, settings, num_ranks=2, on_image=lambda *done: seen.append(done))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_split_without_images_scores_nothing(segmenter):
    counts = evaluate(segmenter, DrawnSamples(()), EvalSettings(SIDE))
    record = evaluation_record(counts, DrawnSamples(()).table, resolution=SIDE, data="x", split="val", seconds=0.0)
    assert (record.num_images, record.miou_percent, record.macs_per_image, record.windows_per_image) == (
        0,
        None,
        None,
        0,
    )


def test_the_record_says_what_was_counted_and_how(segmenter, expected):
    table = DrawnSamples(SIZES).table
    record = evaluation_record(
        expected, table, resolution=SIDE, data="drawn", split="val", seconds=1.5, macs_per_window=1000, absent="zero"
    )
    found = scores(expected.confusion, "zero")
    assert (record.miou_percent, record.macc_percent, record.aacc_percent) == (found.miou, found.macc, found.aacc)
    assert (record.num_images, record.num_windows, record.num_classes, record.num_present) == (7, 17, 5, 5)
    assert record.windows_per_image == pytest.approx(17 / 7)
    assert record.macs_per_image == pytest.approx(17000 / 7)
    assert record.protocol["absent"] == "zero"
    assert record.protocol["scales"] == [1.0]
    assert [one.name for one in record.classes] == list(table.names)
    for index, one in enumerate(record.classes):
        assert one.true_positive + one.false_negative == expected.confusion[index].sum()
        assert one.true_positive + one.false_positive == expected.confusion[:, index].sum()
        assert one.boundary_iou_percent == pytest.approx(
            100 * expected.boundary.intersection[index] / expected.boundary.union[index]
        )
    assert record.boundary_miou_percent == pytest.approx(np.mean([one.boundary_iou_percent for one in record.classes]))


def test_augmented_views_count_as_windows(segmenter):
    counts = evaluate(segmenter, DrawnSamples(((64, 85),)), EvalSettings(SIDE, tta=True, batch=8))
    assert counts.num_windows == 2 * (1 + 1 + 2 + 4 + 4 + 6)
    assert counts.boundary is None


def test_autocast_changes_the_format_of_the_forward_pass_alone(segmenter):
    seen = []
    hook = segmenter.head.classify.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    evaluate(segmenter, DrawnSamples(SIZES[:1]), EvalSettings(SIDE), dtype=torch.bfloat16)
    hook.remove()
    assert set(seen) == {torch.bfloat16}
