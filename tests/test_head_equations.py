"""The head against a second reading of its equations, written out with plain functions over copied weights."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as f
from torch import Tensor

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.head.segmenter import Segmenter, build

SMALL = HeadConfig(num_queries=6, num_classes=4)
Weights = dict[str, Tensor]


def norm(x: Tensor, weights: Weights, name: str, eps: float = 1e-6) -> Tensor:
    return f.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attend(queries: Tensor, tokens: Tensor, weights: Weights, heads: int) -> Tensor:
    """Scores written out head by head: no fused kernel, no mask, no positions."""
    asked = linear(norm(queries, weights, "attention.norm_queries"), weights, "attention.query")
    keys, values = linear(norm(tokens, weights, "attention.norm_tokens"), weights, "attention.key_value").chunk(2, -1)
    read = []
    for q, k, v in zip(asked.chunk(heads, -1), keys.chunk(heads, -1), values.chunk(heads, -1), strict=True):
        read.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), dim=-1) @ v)
    return queries + linear(torch.cat(read, -1), weights, "attention.out")


def enlarge(pixels: Tensor, weights: Weights, blocks: int) -> Tensor:
    for name in (f"upscale.{index}" for index in range(blocks)):
        pixels = f.conv_transpose2d(pixels, weights[f"{name}.enlarge.weight"], weights[f"{name}.enlarge.bias"], 2)
        pixels = f.conv2d(f.gelu(pixels), weights[f"{name}.smooth.weight"], padding=1, groups=pixels.shape[1])
        pixels = norm(pixels.permute(0, 2, 3, 1), weights, f"{name}.norm").permute(0, 3, 1, 2)
    return pixels


def reference(features: Tensor, weights: Weights, ffn, norms, heads: int, blocks: int) -> tuple[Tensor, Tensor]:
    tokens = features.flatten(2).transpose(1, 2)
    if "project.weight" in weights:
        tokens = linear(tokens, weights, "project")
    queries = attend(weights["queries.weight"].expand(len(tokens), -1, -1), tokens, weights, heads)
    queries, tokens = norms(ffn(queries), tokens)
    pixels = tokens.transpose(1, 2).unflatten(2, features.shape[2:])
    masks = f.gelu(linear(f.gelu(linear(queries, weights, "mask.0")), weights, "mask.2"))
    pixels = enlarge(pixels, weights, blocks)
    return linear(queries, weights, "classify"), torch.einsum(
        "bkd,bdhw->bkhw", linear(masks, weights, "mask.4"), pixels
    )


def vit_ffn(queries: Tensor, w: Weights) -> Tensor:
    block = f"model.blocks.{max(int(key.split('.')[2]) for key in w if key.startswith('model.blocks.'))}"
    hidden = f.gelu(linear(norm(queries, w, f"{block}.norm2"), w, f"{block}.mlp.fc1"))
    return queries + linear(hidden, w, f"{block}.mlp.fc2") * w.get(f"{block}.ls2.gamma", torch.ones(()))


def swin_ffn(queries: Tensor, w: Weights) -> Tensor:
    block = "model.layers.3.blocks.1"
    hidden = f.gelu(linear(norm(queries, w, f"{block}.norm2", 1e-5), w, f"{block}.mlp.fc1"))
    return queries + linear(hidden, w, f"{block}.mlp.fc2")


def convnext_ffn(queries: Tensor, w: Weights) -> Tensor:
    """The block's one residual without its depthwise convolution; the tiny model has the tanh form of GELU."""
    block = f"model.stages.3.blocks.{max(int(key.split('.')[4]) for key in w if key.startswith('model.stages.3.bl'))}"
    hidden = f.gelu(linear(norm(queries, w, f"{block}.norm", 1e-5), w, f"{block}.mlp.fc1"), approximate="tanh")
    return queries + w.get(f"{block}.gamma", torch.ones(())) * linear(hidden, w, f"{block}.mlp.fc2")


def fresh_ffn(queries: Tensor, w: Weights) -> Tensor:
    return queries + linear(f.gelu(linear(norm(queries, w, "ffn.norm"), w, "ffn.grow")), w, "ffn.shrink")


# name: its FFN, eps of the final norm that head and backbone share (None: two norms of the head's own), doublings
CASES = {
    "test_vit": (vit_ffn, 1e-6, 2),
    "swin_t": (swin_ffn, 1e-5, 3),
    "test_convnext": (convnext_ffn, None, 3),
}


def redrawn(segmenter: Segmenter) -> Segmenter:
    """Every norm, scale and bias from N(0,1), so that none of them can be left out unseen."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    return segmenter


def matches(segmenter: Segmenter, ffn, norms, blocks: int) -> None:
    with torch.no_grad():
        features = segmenter.backbone(torch.rand(2, 3, 64, 64))
        found = segmenter.decode(features, (64, 64))
        weights = dict(segmenter.head.state_dict())
        heads = segmenter.head.plan.num_heads
        classes, masks = reference(features, weights, ffn, norms, heads, blocks)
    assert masks.shape == (2, 6, 16, 16)
    torch.testing.assert_close(found.class_logits, classes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.mask_logits, masks, rtol=1e-4, atol=1e-4 * float(masks.abs().max()))


def own_norms(weights: Weights):
    return lambda q, x: (norm(q, weights, "norm_queries"), norm(x, weights, "norm_pixels"))


@pytest.mark.parametrize("name", CASES)
def test_the_head_is_its_equations(name: str) -> None:
    ffn, eps, blocks = CASES[name]
    segmenter = redrawn(build(name, 64, head=SMALL))
    own, borrowed = dict(segmenter.head.state_dict()), dict(segmenter.backbone.state_dict())
    shared = lambda q, x: (norm(q, borrowed, "model.norm", eps), norm(x, borrowed, "model.norm", eps))  # noqa: E731
    matches(segmenter, lambda q: ffn(q, borrowed), own_norms(own) if eps is None else shared, blocks)


@pytest.mark.parametrize("width_cap", [768, 24])
def test_a_fresh_head_is_its_equations_with_and_without_a_width_cap(width_cap: int) -> None:
    config = HeadConfig(num_queries=6, num_classes=4, ffn="fresh", width_cap=width_cap)
    segmenter = redrawn(build("test_efficientnet", 64, head=config))
    assert segmenter.head.plan.projects == (width_cap == 24)
    own = dict(segmenter.head.state_dict())
    matches(segmenter, lambda q: fresh_ffn(q, own), own_norms(own), segmenter.head.plan.num_scale_blocks)
