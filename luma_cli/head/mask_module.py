"""Class and mask predictions from queries and a patch map: the end of both mask heads (arXiv 2503.19108, section 3.1).

B batch, K queries, N = h w patches, W channels of the head, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import interpolate

from luma_cli.head.upscale import upscale


class Prediction(NamedTuple):
    """class_logits [B, K, C + 1], the last class being "no object"; mask_logits [B, K, H / 4, W / 4]."""

    class_logits: Tensor
    mask_logits: Tensor


class MaskModule(nn.Module):
    """A class per query, and masks as products of its mask embedding with the upscaled map."""

    def __init__(self, width: int, num_classes: int, num_scale_blocks: int) -> None:
        super().__init__()
        self.classify = nn.Linear(width, num_classes + 1)
        self.mask = _three_layers(width)
        self.upscale = upscale(width, num_scale_blocks)

    def predict(self, queries: Tensor, patches: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Prediction:
        """Normed queries [B, K, W] and patches [B, N, W] on a grid (h, w) -> a prediction with masks of `size`.

        The bilinear finish for strides that no doubling meets acts on the K logits, not on the W channels: resizing
        is linear, so both orders give the same masks, and K is the smaller.
        """
        batch, _, width = patches.shape
        pixels = self.upscale(patches.reshape(batch, *grid, width).permute(0, 3, 1, 2))
        masks = (self.mask(queries) @ pixels.flatten(2)).view(*queries.shape[:2], *pixels.shape[2:])
        if masks.shape[2:] != size:
            masks = interpolate(masks, size, mode="bilinear", align_corners=False)
        return Prediction(self.classify(queries), masks)


def _three_layers(width: int) -> nn.Sequential:
    """The mask embedding of a query: three linear layers with GELU between."""
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
    )
