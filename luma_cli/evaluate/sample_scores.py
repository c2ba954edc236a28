"""One pair of an evaluation: read and cut before the model sees it, counted after. No torch.

Both run in threads beside the model. H W pixels, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from luma_cli.catalogue.datasets import IGNORED, Labels
from luma_cli.data.split import Samples
from luma_cli.errors import BadSample
from luma_cli.evaluate.boundary import boundary_counts
from luma_cli.evaluate.confusion import confusion_matrix, scores
from luma_cli.evaluate.counts import Counts
from luma_cli.evaluate.views import Pixels, View, look_at
from luma_cli.store.run_records import ImageScore


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pair that can be used: its views for the model, and its label map [H, W]."""

    index: int
    name: str
    views: tuple[View, ...]
    truth: Labels


@dataclass(frozen=True, slots=True)
class Unusable:
    """A pair that cannot be used, and why."""

    index: int
    reason: str


def load(samples: Samples, index: int, side: int, *, tta: bool = False) -> Loaded | Unusable:
    """Pair `index`, cut into windows of `side` pixels."""
    try:
        image, truth = samples.image(index), samples.labels(index)
    except BadSample as error:
        return Unusable(index, str(error))
    name = samples.name(index)
    try:
        _check_labels(image, truth, samples.table.num_classes)
        return Loaded(index, name, look_at(image, side, tta=tta), truth)
    except BadSample as error:
        return Unusable(index, f"{name}: {error}")


def _check_labels(image: Pixels, truth: Labels, num_classes: int) -> None:
    if truth.shape != image.shape[:2]:
        raise BadSample(f"labels of {list(truth.shape)} pixels, expected {list(image.shape[:2])} as the image has")
    strange = truth[(truth >= num_classes) & (truth != IGNORED)]
    if strange.size:
        raise BadSample(f"label {strange[0]}, expected 0 to {num_classes - 1}, or {IGNORED} for ignored")


def count(loaded: Loaded, predicted: Labels, num_classes: int, *, boundary: bool = False) -> Counts:
    """The counts of one image."""
    confusion = confusion_matrix(loaded.truth, predicted, num_classes)
    found = scores(confusion)
    height, width = loaded.truth.shape
    windows = sum(view.plan.num_windows for view in loaded.views)
    image = ImageScore(loaded.name, height, width, windows, found.miou, found.aacc)
    bands = boundary_counts(loaded.truth, predicted, num_classes) if boundary else None
    return Counts(confusion, bands, ((loaded.index, image),), ())
