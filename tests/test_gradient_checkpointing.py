"""Forgetting activations saves memory and changes nothing: gradients and statistics are equal bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from luma_cli.backbone.create import create_backbone
from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.isotropic.mixtures import balance_loss
from luma_cli.train.memory import enable, kept_bytes

SMALL = {"embed_dim": 32, "depth": 3, "num_heads": 2}


def make(name: str, head: HeadName = "luma", **arguments: object) -> Segmenter:
    spec = BackboneSpec(name, name, name, rule={"arguments": arguments} if arguments else {})
    torch.manual_seed(0)
    return Segmenter(create_backbone(spec, 64, seed=0), HeadConfig(name=head, num_queries=5, num_classes=3)).train()


def step(segmenter: Segmenter, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Loss, gradients and buffers of one forward and backward, the experts' balance loss included."""
    torch.manual_seed(seed)
    segmenter.zero_grad(set_to_none=True)
    if segmenter.config.name == "eomt":
        segmenter.head.anneal([0.5] * segmenter.head.plan.num_joint)
    found = segmenter.predictions(torch.randn(2, 3, 64, 64), torch.rand(2, 3, 5))
    loss = torch.stack([p.class_logits.square().mean() + p.mask_logits.square().mean() for p in found]).sum()
    loss = loss + balance_loss(segmenter)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in segmenter.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, {name: buffer.clone() for name, buffer in segmenter.named_buffers()}


CASES = [
    ("test_vit", "luma", {}, "timm"),
    ("test_vit", "eomt", {}, "blocks"),
    ("vit_small_patch16_dinov3", "eomt", SMALL, "blocks"),
    ("vit_tiny_patch16_224", "luma", {**SMALL, "drop_path_rate": 0.5, "proj_drop_rate": 0.1}, "timm"),
    ("vit_tiny_patch16_224", "eomt", {**SMALL, "drop_path_rate": 0.5, "proj_drop_rate": 0.1}, "blocks"),
    ("test_convnext", "luma", {"drop_path_rate": 0.3}, "timm"),
    ("test_resnet", "luma", {}, "timm"),
    (
        "twins_pcpvt_small",
        "luma",
        {"embed_dims": (16, 16, 32, 32), "depths": (1, 1, 1, 2), "num_heads": (1, 1, 2, 2)},
        "blocks",
    ),
    ("switch_vit_tiny_patch16_224", "luma", SMALL, "timm"),
    ("vmoe_vit_tiny_patch16_224", "luma", SMALL, "timm"),
    ("hydra_vit_tiny_patch16_224", "luma", SMALL, "timm"),
]


@pytest.mark.parametrize(("name", "head", "arguments", "way"), CASES)
def test_gradients_and_statistics_are_equal(name: str, head: HeadName, arguments: dict[str, object], way: str) -> None:
    plain, forgetful = make(name, head, **arguments), make(name, head, **arguments)
    found = enable(forgetful)
    assert found.way == way
    assert found.bytes_after <= 0.9 * found.bytes_before
    assert found.bytes_before == kept_bytes(plain)
    assert str(found).startswith(f"{way}: ")
    for seed in range(2):
        for expected, got in zip(step(plain, seed)[1:], step(forgetful, seed)[1:], strict=True):
            assert expected.keys() == got.keys()
            assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert torch.equal(step(plain, 2)[0], step(forgetful, 2)[0])


def test_evaluation_runs_as_it_did() -> None:
    plain, forgetful = make("test_vit", "eomt").eval(), make("test_vit", "eomt").eval()
    enable(forgetful)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(plain(images).mask_logits, forgetful(images).mask_logits)
    assert list(plain.state_dict()) == list(forgetful.state_dict())


class Plain(nn.Module):
    """One's own module without blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 16, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.patches(images)


def test_a_module_without_blocks_is_told_so() -> None:
    segmenter = build(Plain(), 64, card={"multiple": 16}, head=HeadConfig(num_queries=5, num_classes=3))
    with pytest.warns(UserWarning, match="gradient checkpointing has no effect"):
        assert enable(segmenter).way == "none"
