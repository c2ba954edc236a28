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

WIDTH, DEPTH, HEADS, SIZE, QUERIES, CLASSES, JOINT = 32, 4, 2, 64, 7, 5, 3
_MLP = {"fc1": "fc1", "fc2": "fc2"}
_MLP_DINOV3 = {"fc1": "up_proj", "fc2": "down_proj"}
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
    model: Any = ours.backbone.model
    state = theirs.state_dict()
    embeddings = {
        "cls_token": state["embeddings.cls_token"],
        "reg_token": state["embeddings.register_tokens"],
        "pos_embed": state["embeddings.position_embeddings.weight"][None],
        **_moved(state, "embeddings.patch_embeddings.projection", "patch_embed.proj"),
    }
    blocks: dict[str, Tensor] = {}
    for index in range(DEPTH):
        block, layer = f"blocks.{index}", f"layers.{index}"
        blocks |= _shared_parts(state, block, layer, _MLP)
        for kind in ("weight", "bias"):
            parts = [state[f"{layer}.attention.{part}_proj.{kind}"] for part in "qkv"]
            blocks[f"{block}.attn.qkv.{kind}"] = torch.cat(parts)
        for number in (1, 2):
            blocks[f"{block}.ls{number}.gamma"] = state[f"{layer}.layer_scale{number}.lambda1"]
    model.load_state_dict({**embeddings, **blocks, **_moved(state, "layernorm", "norm")})
    _load_head(ours, state)
    return theirs, ours


def dinov3() -> tuple[nn.Module, Segmenter]:
    """EoMT on DINOv3, whose patches are rotated, by other angles in each pass of a training, and the same as ours."""
    from transformers import EomtDinov3Config, EomtDinov3ForUniversalSegmentation

    config = EomtDinov3Config(**_COMMON, intermediate_size=4 * WIDTH, layer_norm_eps=1e-5)
    theirs = _redrawn(EomtDinov3ForUniversalSegmentation(config))
    ours = _ours("vit_small_patch16_dinov3_qkvb", {"init_values": 1.0})
    model: Any = ours.backbone.model
    rescale_rotations(model, load_recipe("eomt-ade20k-dinov3").rope_rescale)
    state = theirs.state_dict()
    embeddings = {
        "cls_token": state["embeddings.cls_token"],
        "reg_token": state["embeddings.register_tokens"],
        **_moved(state, "embeddings.patch_embeddings", "patch_embed.proj"),
    }
    blocks: dict[str, Tensor] = {}
    for index in range(DEPTH):
        block, layer = f"blocks.{index}", f"layers.{index}"
        blocks |= _shared_parts(state, block, layer, _MLP_DINOV3, out="o_proj")
        parts = [state[f"{layer}.attention.{part}_proj.weight"] for part in "qkv"]
        blocks[f"{block}.attn.qkv.weight"] = torch.cat(parts)
        for part in "qv":
            blocks[f"{block}.attn.{part}_bias"] = state[f"{layer}.attention.{part}_proj.bias"]
        for number in (1, 2):
            blocks[f"{block}.gamma_{number}"] = state[f"{layer}.layer_scale{number}.lambda1"]
    model.load_state_dict({**embeddings, **blocks, **_moved(state, "layernorm", "norm")})
    _load_head(ours, state)
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


def _shared_parts(
    state: dict[str, Tensor], block: str, layer: str, mlp: dict[str, str], out: str = "out_proj"
) -> dict[str, Tensor]:
    """Norms, output projection and feed-forward layers of a block, under timm's names."""
    found = {**_moved(state, f"{layer}.norm1", f"{block}.norm1"), **_moved(state, f"{layer}.norm2", f"{block}.norm2")}
    found |= _moved(state, f"{layer}.attention.{out}", f"{block}.attn.proj")
    for ours, theirs in mlp.items():
        found |= _moved(state, f"{layer}.mlp.{theirs}", f"{block}.mlp.{ours}")
    return found


def _load_head(ours: Segmenter, state: dict[str, Tensor]) -> None:
    head = {"queries.weight": state["query.weight"], **_moved(state, "class_predictor", "classify")}
    for number, layer in enumerate(("fc1", "fc2", "fc3")):
        head |= _moved(state, f"mask_head.{layer}", f"mask.{2 * number}")
    for number in range(2):
        block = f"upscale_block.block.{number}"
        head |= _moved(state, f"{block}.conv1", f"upscale.{number}.enlarge")
        head |= {f"upscale.{number}.smooth.weight": state[f"{block}.conv2.weight"]}
        head |= _moved(state, f"{block}.layernorm2d", f"upscale.{number}.norm")
    assert ours.head is not None
    ours.head.load_state_dict(head)


def _moved(state: dict[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.{kind}": state[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
