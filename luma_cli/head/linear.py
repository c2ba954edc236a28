"""The linear probe: batch norm and a 1 x 1 convolution on the patch map (DINOv2, arXiv 2304.07193, section 7.4).

B batch, D channels, h w patch grid, C classes. It measures features, not a head: its logits keep the patch grid.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from luma_cli.backbone.backbone import Backbone
from luma_cli.catalogue.heads import HeadConfig


class PixelLogits(NamedTuple):
    """logits [B, C, h, w], one class score per patch; there is no "no object" class.

    They are not resized here: the loss and the metric bring them to the labels' size (bilinearly in DINOv2).
    """

    logits: Tensor


class LinearHead(nn.Module):
    """Batch norm, then one score per class, of the backbone's final-normed map where it has a final norm."""

    def __init__(self, width: int, config: HeadConfig) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.classify = nn.Conv2d(width, config.num_classes, kernel_size=1)

    def read(self, backbone: Backbone, images: Tensor) -> Tensor:
        """What the head takes from the backbone: the map [B, D, h, w] of images [B, 3, H, W]."""
        features: Tensor = backbone(images)
        return features

    def forward(self, features: Tensor, mask_size: tuple[int, int], backbone: Backbone) -> PixelLogits:
        """Features [B, D, h, w] -> logits [B, C, h, w]; `mask_size` says nothing to a probe."""
        if backbone.has_final_norm:
            tokens = backbone.norm_tokens(features.flatten(2).transpose(1, 2))
            features = tokens.transpose(1, 2).reshape(features.shape)
        return PixelLogits(self.classify(self.norm(features)))
