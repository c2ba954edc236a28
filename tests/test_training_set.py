"""Items of training: by their key alone, bad samples named or replaced and counted."""

from __future__ import annotations

import pytest
import torch
from array_samples import ArraySamples

from luma_cli.catalogue.recipes import Augmentation
from luma_cli.data.loader import Skipped, TrainingSet
from luma_cli.errors import BadSample, DataError


def training_set(samples: ArraySamples, skip_bad: int = 0, seed: int = 0) -> TrainingSet:
    return TrainingSet(samples, 32, Augmentation(), seed, skip_bad)


def test_items_depend_on_their_key_alone() -> None:
    one, other = training_set(ArraySamples()), training_set(ArraySamples())
    for key in [(0, 3), (0, 4), (1, 3)]:
        torch.rand(3)
        assert torch.equal(one[key].image, other[key].image)
        assert torch.equal(one[key].labels, other[key].labels)
    assert not torch.equal(one[(0, 3)].image, one[(1, 3)].image)
    assert not torch.equal(one[(0, 3)].image, training_set(ArraySamples(), seed=1)[(0, 3)].image)


def test_a_bad_sample_is_named() -> None:
    with pytest.raises(BadSample, match=r"picture_3\.jpg"):
        training_set(ArraySamples(bad=frozenset({3})))[(0, 3)]


def test_labels_of_another_size_are_bad() -> None:
    with pytest.raises(BadSample, match="picture_3: labels of .* expected equal sizes"):
        training_set(ArraySamples(odd_sizes=frozenset({3})))[(0, 3)]


def test_a_bad_sample_is_replaced_by_the_next_good_one() -> None:
    broken = training_set(ArraySamples(bad=frozenset({11, 0})), skip_bad=2)
    item = broken[(0, 11)]
    assert item.skipped == ("picture_11", "picture_0")
    assert torch.equal(item.image, broken[(0, 11)].image)
    assert not torch.equal(item.image, broken[(0, 1)].image), "it stands for 11, so it is changed in 11's way"
    assert broken[(0, 1)].skipped == ()


def test_more_bad_samples_in_a_row_than_allowed() -> None:
    with pytest.raises(BadSample, match="picture_4"):
        training_set(ArraySamples(bad=frozenset({3, 4})), skip_bad=1)[(0, 3)]


def test_all_samples_bad() -> None:
    with pytest.raises(BadSample, match="picture_0"):
        training_set(ArraySamples(2, bad=frozenset({0, 1})), skip_bad=9)[(0, 1)]


def test_skipped_names_are_counted_once() -> None:
    skipped = Skipped(2)
    assert skipped.add(("a", "b", "a")) == ("a", "b")
    assert skipped.add(("b",)) == ()
    with pytest.raises(DataError, match="3 bad samples, the last one c, but --skip-bad allows 2"):
        skipped.add(("c",))
    assert skipped.names == ("a", "b", "c")
