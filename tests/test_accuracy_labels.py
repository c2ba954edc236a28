"""Labels that nobody named: those of the size, in the series first."""

from __future__ import annotations

from luma_cli.accuracy.labels import usual_labels
from luma_cli.accuracy.sightings import Sighting
from luma_cli.accuracy.subjects import subject_of

SEEN = [
    Sighting.of(subject_of(name, "ade20k", pretraining=labels))
    for name, labels in [("swin_tiny", "supervised_in1k"), ("swin_large", "supervised_in21k")]
]


def test_labels_are_those_of_the_size():
    assert usual_labels(subject_of("convnext_large", "ade20k"), SEEN) == "supervised_in21k"
    assert usual_labels(subject_of("convnext_tiny", "ade20k"), SEEN) == "supervised_in1k"


def test_the_series_comes_first():
    series = [Sighting.of(subject_of("convnext_large", "ade20k", pretraining="supervised_in1k"))]
    assert usual_labels(subject_of("convnext_large", "ade20k"), [*SEEN, *series]) == "supervised_in1k"


def test_nothing_near_and_nothing_known_are_the_usual_labels():
    assert usual_labels(subject_of("convnext_xlarge", "ade20k"), SEEN) == "supervised_in1k"
    assert usual_labels(subject_of("xyz", "ade20k"), SEEN) == "supervised_in1k"
