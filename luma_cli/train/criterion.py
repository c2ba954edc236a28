"""What a training minimises: the loss of a batch of predictions against label maps, for the head that is trained.

B images, R x R pixels of a label map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe
from luma_cli.errors import BuildError
from luma_cli.head.segmenter import Output


class LossParts(NamedTuple):
    """`total` is the weighted sum and carries the gradient; bce, dice and classes are its parts before their weights.

    All are float32 scalars, summed over predictions; the parts are for display and carry no gradient.
    """

    total: Tensor
    bce: Tensor
    dice: Tensor
    classes: Tensor


class Criterion(Protocol):
    """The loss of one head. It has no parameters and keeps nothing between calls."""

    def totals(self, labels: Tensor) -> Tensor:
        """What the loss of this batch is divided by: float64 [k], from label maps [B, R, R] alone.

        Summed over micro-batches and ranks and divided by the number of ranks, it makes the sum of the losses of
        micro-batches, averaged over ranks, the loss of the whole batch.
        """

    def __call__(
        self, predictions: Sequence[Output], labels: Tensor, totals: Tensor, step: int, samples: Sequence[int]
    ) -> LossParts:
        """The loss of `predictions`, in float32 whatever their dtype.

        labels: uint8 [B, R, R], classes and 255 for pixels that do not count, on the predictions' device.
        step, samples: of the optimiser, and the B indices of the images in their dataset; random points depend on
        them, not on ranks, micro-batches or the order of the images.
        Raises DataError for a label that is no class.
        """


def create_criterion(head: HeadConfig, recipe: Recipe, seed: int) -> Criterion:
    """The loss of `head` with the weights and numbers of points of `recipe`. Raises BuildError for head `none`."""
    from luma_cli.train.mask_criterion import MaskCriterion
    from luma_cli.train.pixel_criterion import PixelCriterion

    if head.name == "none":
        raise BuildError("head 'none' predicts nothing that could be trained; choose luma, eomt or linear")
    return PixelCriterion() if head.name == "linear" else MaskCriterion(head, recipe, seed)
