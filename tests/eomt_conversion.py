"""Weights of transformers' EoMT carried over to a timm backbone of the same shape with our EoMT head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from luma_cli.backbone.create import create_backbone
from luma_cli.backbone.timm_model import rescale_rotations
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import load_recipe
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.head.segmenter import Segmenter
from luma_cli.train.foreign import renamed

WIDTH, DEPTH, HEADS, SIZE, QUERIES, CLASSES, JOINT = 32, 4, 2, 64, 7, 5, 3
_COMMON = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "image_size": SIZE,
    "patch_size": 16,
    "num_queries": QUERIES,
    "num_blocks": JOINT,
    "num_labels": CLASSES,
}


def plain() -> tuple[nn.Module, Segmenter]:
    """EoMT on a ViT with a class token, four registers and LayerScale, and the same as ours."""
    from transformers import EomtConfig, EomtForUniversalSegmentation

    theirs = _redrawn(EomtForUniversalSegmentation(EomtConfig(**_COMMON)))
    ours = _ours("vit_small_patch14_reg4_dinov2", {"init_values": 1.0})
    ours.load_state_dict(renamed(theirs.state_dict()))
    return theirs, ours


def dinov3() -> tuple[nn.Module, Segmenter]:
    """EoMT on DINOv3, whose patches are rotated, by other angles in each pass of a training, and the same as ours."""
    from transformers import EomtDinov3Config, EomtDinov3ForUniversalSegmentation

    config = EomtDinov3Config(**_COMMON, intermediate_size=4 * WIDTH, layer_norm_eps=1e-5)
    theirs = _redrawn(EomtDinov3ForUniversalSegmentation(config))
    ours = _ours("vit_small_patch16_dinov3_qkvb", {"init_values": 1.0})
    rescale_rotations(ours.backbone.model, load_recipe("eomt-ade20k-dinov3").rope_rescale)
    ours.load_state_dict(renamed(theirs.state_dict()))
    return theirs, ours


def all_predictions(theirs: Any, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Class and mask logits of every prediction that transformers' model makes in one forward, in order."""
    seen: list[tuple[Tensor, Tensor]] = []
    original: Callable[[Tensor], tuple[Tensor, Tensor]] = theirs.predict

    def watch(tokens: Tensor) -> tuple[Tensor, Tensor]:
        masks, classes = original(tokens)
        seen.append((classes, masks))
        return masks, classes

    theirs.predict = watch
    torch.manual_seed(0)
    try:
        theirs(images)
    finally:
        del theirs.predict
    return seen


def _ours(name: str, arguments: dict[str, Any]) -> Segmenter:
    shape = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    spec = BackboneSpec(name, name, name, rule={"arguments": {**shape, **arguments}})
    config = HeadConfig(name="eomt", num_queries=QUERIES, num_classes=CLASSES, l2=JOINT)
    return Segmenter(create_backbone(spec, SIZE), config).eval()


def _redrawn(model: nn.Module) -> nn.Module:
    """Parameters so large that nothing is dropped unseen: scales 0.5 to 1.5, the rest keeps the size of its input."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and not name.endswith("bias"):
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
            else:
                fan_in = parameter[0].numel() if parameter.dim() > 1 and parameter.shape[0] > 1 else 1
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return model.eval()
