"""Boundary IoU against erosion class by class, as the official code does it, and against distances pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from luma_cli.evaluate.metrics import boundary_counts
from tests.drawn_samples import blobs


def eroded_band(mask: np.ndarray, distance: int) -> np.ndarray:
    """The mask without its erosion, by `distance` erosions of 3 x 3 with nothing outside the image."""
    padded = np.pad(mask, 1)
    inner = binary_erosion(padded, np.ones((3, 3)), iterations=distance, border_value=1)
    return mask & ~inner[1:-1, 1:-1]


def by_distance(labels: np.ndarray, ignored: np.ndarray, distance: int) -> np.ndarray:
    """Pixels that count and see another class that counts, or the outside, within `distance`."""
    height, width = labels.shape
    band = np.zeros(labels.shape, bool)
    for y in range(height):
        for x in range(width):
            top, left = max(0, y - distance), max(0, x - distance)
            around = (slice(top, y + distance + 1), slice(left, x + distance + 1))
            other = (labels[around] != labels[y, x]) & ~ignored[around]
            leaves = min(y, x, height - 1 - y, width - 1 - x) < distance
            band[y, x] = not ignored[y, x] and (other.any() or leaves)
    return band


@pytest.mark.parametrize(("height", "width", "ratio"), [(60, 80, 0.02), (41, 97, 0.05), (30, 30, 0.001), (5, 9, 0.4)])
def test_counts_are_those_of_erosion_class_by_class(height, width, ratio):
    rng = np.random.default_rng(0)
    truth, predicted = (blobs(rng, height, width, 4, cell=12) % 5 % 4 for _ in range(2))
    distance = max(1, round(ratio * (height**2 + width**2) ** 0.5))
    found = boundary_counts(truth, predicted, 4, ratio)
    for index in range(4):
        ours, theirs = eroded_band(truth == index, distance), eroded_band(predicted == index, distance)
        assert found.intersection[index] == (ours & theirs).sum()
        assert found.union[index] == (ours | theirs).sum()


def test_ignored_pixels_count_nowhere_and_make_no_outline():
    rng = np.random.default_rng(1)
    truth, predicted = blobs(rng, 34, 47, 4), blobs(rng, 34, 47, 4) % 4
    ignored = truth == 255
    assert 0.02 < ignored.mean() < 0.5
    ours, theirs = by_distance(truth, ignored, 2), by_distance(predicted, ignored, 2)
    found = boundary_counts(truth, predicted, 4, 2 / (34**2 + 47**2) ** 0.5)
    for index in range(4):
        a, b = ours & (truth == index), theirs & (predicted == index)
        assert (found.intersection[index], found.union[index]) == ((a & b).sum(), (a | b).sum())


def test_all_ignored_counts_nothing():
    found = boundary_counts(np.full((9, 9), 255, np.uint8), np.zeros((9, 9), np.uint8), 3)
    assert found.union.tolist() == [0, 0, 0]


def test_a_perfect_prediction_has_iou_one_and_counts_add_up():
    truth = blobs(np.random.default_rng(2), 50, 60, 6) % 6
    found = boundary_counts(truth, truth, 6)
    assert np.array_equal(found.intersection, found.union)
    assert found.union.sum() > 0
    assert np.array_equal((found + found).union, 2 * found.union)


def test_a_shifted_outline_costs_more_than_iou_shows():
    truth = np.zeros((200, 200), np.uint8)
    truth[50:150, 50:150] = 1
    predicted = np.roll(truth, 4, axis=1)
    found = boundary_counts(truth, predicted, 2)
    iou = (truth & predicted).sum() / (truth | predicted).sum()
    assert found.intersection[1] / found.union[1] < 0.7 < iou
