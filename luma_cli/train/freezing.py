"""A backbone that does not learn: what is left is a probe of its features (arXiv 2607.00687: patches never see queries).

The FFN and the final norm that a head borrows are the backbone's and rest with it.
"""

from __future__ import annotations

from luma_cli.head.segmenter import Segmenter


def freeze_backbone(segmenter: Segmenter) -> int:
    """Let no parameter of the backbone learn; how many numbers rest. `train_mode` then keeps it in eval mode."""
    segmenter.backbone.requires_grad_(False)
    segmenter.backbone.eval()
    return sum(parameter.numel() for parameter in segmenter.backbone.parameters())
