"""What every own architecture does, whatever mixes its tokens: builds, trains, lends its FFN, changes resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_backbones import spec
from torch import Tensor, nn

from luma_cli.backbone.create import create_backbone
from luma_cli.backbone.selfcheck import check
from luma_cli.catalogue.cards import load_cards
from luma_cli.catalogue.own import KINDS, SIZES, architecture
from luma_cli.head.segmenter import build
from luma_cli.isotropic.entrypoints import register
from luma_cli.measure.count import count

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
# The others' FFN works token by token; routed experts share slots among tokens, Soft MoE's mix them.
FFN = {"switch_vit": "spatial", "vmoe_vit": "spatial", "softmoe_vit": "fresh"}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
register()


def small(kind: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(architecture(kind, "tiny"), **{"img_size": 64, **SMALL, **options})


def images(number: int = 2, side: int = 64) -> Tensor:
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(1))


@EVERY_KIND
@pytest.mark.parametrize("size", SIZES)
def test_every_size_builds_at_224_and_elsewhere_and_every_operator_is_counted(kind: str, size: str) -> None:
    for resolution in (224, 512):
        with torch.device("meta"):
            model = timm.create_model(architecture(kind, size), img_size=resolution).eval()
        counted = count(model, torch.empty(1, 3, resolution, resolution, device="meta"))
        assert counted.complete, counted.unknown_ops


@EVERY_KIND
def test_its_card_says_what_another_resolution_does_and_that_nobody_publishes_weights(kind: str) -> None:
    card = load_cards()[kind]
    assert card.resizing
    assert [size.timm for size in card.sizes.values()] == [architecture(kind, size) for size in SIZES]
    assert not any(tag for size in card.sizes.values() for tag in size.pretraining.values())


@EVERY_KIND
def test_the_map_is_the_patch_grid(kind: str) -> None:
    maps = small(kind).eval().forward_intermediates(images(), indices=1, intermediates_only=True, output_fmt="NCHW")
    assert [found.shape for found in maps] == [(2, 32, 4, 4)]


@EVERY_KIND
def test_an_image_is_the_same_alone_and_in_a_batch(kind: str) -> None:
    model = small(kind, init_values=1.0).eval()
    with torch.no_grad():
        together, alone = model(images(3)), model(images(3)[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-5)


@EVERY_KIND
def test_every_parameter_learns_and_checkpointing_gradients_changes_nothing(kind: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = small(kind, init_values=1.0).train()
        model.set_grad_checkpointing(checkpointing)
        model(images()).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(gradient is not None and gradient.any() for gradient in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1])


@EVERY_KIND
def test_a_mixer_lets_every_token_see_the_others(kind: str) -> None:
    """One image's last patch changes; so does the map at its first, which a mere FFN per token would leave alone."""
    model = small(kind, init_values=1.0).eval()
    before = images(1)
    after = before.clone()
    after[..., 48:, 48:] += 1.0
    with torch.no_grad():
        first, second = (model.forward_intermediates(x, indices=1, intermediates_only=True)[0] for x in (before, after))
    assert (first[..., 0, 0] - second[..., 0, 0]).abs().max() > 1e-6


@EVERY_KIND
def test_the_luma_head_attaches_with_the_block_s_own_ffn(kind: str) -> None:
    segmenter = build(f"{kind}_t", 64)
    expected = FFN.get(kind, "exact")
    assert segmenter.head.plan.ffn == ("fresh" if expected == "fresh" else "reused")
    assert check(segmenter.backbone).status == expected
    prediction = segmenter(images())
    assert prediction.mask_logits.shape == (2, 100, 16, 16)
    assert prediction.class_logits.shape[:2] == (2, 100)
    prediction.mask_logits.mean().backward()


@EVERY_KIND
def test_weights_of_224_pixels_load_at_512(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    model = small(kind, img_size=224)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    larger = create_backbone(spec(architecture(kind, "tiny"), arguments=SMALL), 512, weights=str(path))
    assert larger.grid == (32, 32)
    assert torch.equal(larger.model.patch_embed.proj.weight, model.patch_embed.proj.weight)
    with torch.no_grad():
        assert larger(images(1, 512)).isfinite().all()


@EVERY_KIND
def test_autocast_and_half_precision_stay_close(kind: str) -> None:
    model = small(kind, init_values=1.0).eval()
    with torch.no_grad():
        full = model(images())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = model(images()).float()
        half = model.half()(images().half()).float()
    assert (mixed - full).norm() < 0.05 * full.norm()
    assert (half - full).norm() < 0.02 * full.norm()


@EVERY_KIND
def test_it_is_one_graph_for_a_compiler(kind: str) -> None:
    torch.compiler.reset()  # all kinds share the code of timm's forward, which is compiled a few times at most
    model = small(kind).eval()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")(images())
        torch.testing.assert_close(compiled, model(images()))
