"""The segmenter as what is exported: images in, named tensors out.

B batch, K queries, C classes, H W pixels of the input, h w patch grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from luma_cli.errors import UsageError
from luma_cli.head.mask_module import Prediction
from luma_cli.head.segmenter import Segmenter

INPUT = "images"


class Graph(nn.Module):
    """A segmenter whose output is a tuple of tensors, named by `outputs`.

    scores: one score per class and pixel of the input in place of the head's own tensors, as evaluation adds them up
    over windows: for queries the sum of mask probability times class probability, for a linear head its logits.
    """

    def __init__(self, segmenter: Segmenter, scores: bool = False) -> None:
        """Raises UsageError for a segmenter without a head."""
        if segmenter.config.name == "none":
            raise UsageError("a backbone without a head has no predictions to export; choose a run with a head")
        super().__init__()
        self.segmenter = segmenter
        self.scores = scores

    @property
    def outputs(self) -> tuple[tuple[str, str], ...]:
        """Name and shape of every output."""
        if self.scores:
            return (("scores", "[B, C, H, W]"),)
        if self.segmenter.config.name == "linear":
            return (("logits", "[B, C, H / stride, W / stride]"),)
        return (("class_logits", "[B, K, C + 1], the last being no object"), ("mask_logits", "[B, K, H / 4, W / 4]"))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, H, W], normalised -> the outputs in their order."""
        output = self.segmenter(images)
        if not self.scores:
            return tuple(output)
        size = (images.shape[2], images.shape[3])
        if isinstance(output, Prediction):
            return (_query_scores(output, size),)
        return (interpolate(output.logits, size, mode="bilinear", align_corners=False),)


def _query_scores(output: Prediction, size: tuple[int, int]) -> Tensor:
    """Class scores [B, C, H, W] of queries (arXiv 2503.19108, released code): no threshold, no object dropped."""
    masks = interpolate(output.mask_logits, size, mode="bilinear", align_corners=False).sigmoid()
    classes = output.class_logits.softmax(-1)[..., :-1]
    return torch.einsum("bqhw,bqc->bchw", masks, classes)
