"""The confusion matrix against a loop over pixels and torchmetrics; what an absent class counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassJaccardIndex

from luma_cli.errors import BadSample
from luma_cli.evaluate.metrics import confusion_matrix, mean, scores
from tests.drawn_samples import blobs


def drawn(seed: int, num_classes: int, height: int = 23, width: int = 31) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, num_classes, (height, width)).astype(np.uint8)
    truth = blobs(rng, height, width, num_classes, cell=5)
    agree = (rng.random(truth.shape) < 0.5) & (truth != 255)
    return truth, np.where(agree, truth, predicted)


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 7, 150, 254]))
def test_matrix_is_that_of_a_loop_over_pixels(seed, num_classes):
    truth, predicted = drawn(seed, num_classes, 9, 11)
    expected = np.zeros((num_classes, num_classes), np.int64)
    for row in range(truth.shape[0]):
        for column in range(truth.shape[1]):
            if truth[row, column] != 255:
                expected[truth[row, column], predicted[row, column]] += 1
    found = confusion_matrix(truth, predicted, num_classes)
    assert found.dtype == np.int64
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("num_classes", [3, 19, 150])
def test_iou_is_torchmetrics_and_zero_is_eomts_mean(num_classes):
    metric = MulticlassJaccardIndex(num_classes, average=None, ignore_index=255, validate_args=False)
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for seed in range(3):
        truth, predicted = drawn(seed, num_classes)
        truth[truth == 1], predicted[predicted == 1] = 0, 0  # a class that is nowhere
        matrix += confusion_matrix(truth, predicted, num_classes)
        metric.update(torch.from_numpy(predicted).long(), torch.from_numpy(truth).long())
    expected = 100 * metric.compute().double().numpy()
    found = scores(matrix)
    assert found.iou[1] is None
    present = [index for index, value in enumerate(found.iou) if value is not None]
    assert np.allclose([found.iou[index] for index in present], expected[present], atol=1e-4)
    assert found.num_present == len(present) < num_classes
    assert found.miou == pytest.approx(expected[present].mean(), abs=1e-4)
    assert scores(matrix, "zero").miou == pytest.approx(expected.mean(), abs=1e-4)


def test_scores_by_hand():
    matrix = np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 4, 0, 0]])
    found = scores(matrix)
    assert found.iou == pytest.approx((600 / 9, 300 / 10, None, 0), nan_ok=False)
    assert found.accuracy == pytest.approx((75, 75, None, 0))
    assert found.num_present == 3
    assert found.miou == pytest.approx((600 / 9 + 30) / 3)
    assert found.macc == 50
    assert found.aacc == 100 * 9 / 16
    assert scores(matrix, "zero").miou == pytest.approx((600 / 9 + 30) / 4)


def test_a_class_that_is_only_predicted_counts_for_iou_but_has_no_accuracy():
    found = scores(np.array([[2, 2], [0, 0]]))
    assert found.iou == (50, 0)
    assert found.accuracy == (50, None)
    assert (found.miou, found.macc, found.num_present) == (25, 50, 2)


def test_nothing_has_no_score():
    found = scores(np.zeros((3, 3), np.int64))
    assert (found.miou, found.macc, found.aacc, found.num_present) == (None, None, None, 0)
    assert mean([None, None], "zero") is None


def test_matrices_add_up():
    truth, predicted = drawn(5, 7, 40, 30)
    halves = [confusion_matrix(truth[part], predicted[part], 7) for part in (slice(0, 11), slice(11, 40))]
    assert np.array_equal(sum(halves), confusion_matrix(truth, predicted, 7))


def test_what_cannot_be_compared_is_refused():
    plain = np.zeros((4, 5), np.uint8)
    with pytest.raises(BadSample, match=r"shape \[5, 4\] for \[4, 5\]"):
        confusion_matrix(plain.T, plain, 3)
    with pytest.raises(BadSample, match="label 3, expected 0 to 2, or 255"):
        confusion_matrix(plain + np.uint8(3), plain, 3)
    with pytest.raises(BadSample, match="predicted class 3, expected 0 to 2"):
        confusion_matrix(plain, plain + np.uint8(3), 3)
