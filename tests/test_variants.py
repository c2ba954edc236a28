"""The variants of LUMA: what each sets, that each is its equations, and that they are never taken for one another."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from luma_cli.catalogue.heads import VARIANTS, HeadConfig
from luma_cli.cli.app import run
from luma_cli.errors import UsageError
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.measure.facts import segmenter_cost

AUTHORS = HeadConfig(variant="authors-2025", num_queries=5, num_classes=3)


def redrawn(name: str, resolution: int, head: HeadConfig) -> Segmenter:
    """Every norm, scale and bias from N(0, 1), so that none of them can be left out unseen."""
    segmenter = build(name, resolution, head=head)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    return segmenter


def as_the_authors_mean(segmenter: Segmenter, images: Tensor) -> tuple[Tensor, Tensor]:
    """Queries read the input of the last block after the final norm, without biases, through a learned scale."""
    model, head = segmenter.backbone.model, dict(segmenter.head.state_dict())
    block, seen = model.blocks[-1], []
    hook = block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    patches = segmenter.backbone(images).flatten(2).mT
    hook.remove()
    queries = head["queries.weight"].expand(len(images), -1, -1)
    key, value = head["attention.key_value.weight"].chunk(2)
    num_heads, tokens = segmenter.head.plan.num_heads, model.norm(seen[0])
    q, k, v = (
        x.unflatten(-1, (num_heads, -1)).transpose(1, 2)
        for x in (model.norm(queries) @ head["attention.query.weight"].mT, tokens @ key.mT, tokens @ value.mT)
    )
    read = (torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v).transpose(1, 2).flatten(2)
    read = read @ head["attention.out.weight"].mT + head["attention.out.bias"]
    queries = queries + head["attention.scale"] * read
    queries = queries + block.ls2(block.mlp(block.norm2(queries)))
    pixels = segmenter.head.upscale(model.norm(patches).mT.unflatten(2, segmenter.backbone.grid))
    embedded = segmenter.head.mask(queries)
    return queries @ head["classify.weight"].mT + head["classify.bias"], torch.einsum(
        "bkd,bdhw->bkhw", embedded, pixels
    )


def test_the_authors_variant_is_its_equations() -> None:
    segmenter = redrawn("test_vit", 64, AUTHORS)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found, (classes, masks) = segmenter(images), as_the_authors_mean(segmenter, images)
    torch.testing.assert_close(found.class_logits, classes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.mask_logits, masks, rtol=1e-4, atol=1e-4 * float(masks.abs().max()))


@pytest.mark.parametrize(("stride", "side"), [(4, 24), (8, 12), (16, 6)])
def test_masks_have_the_stride_asked_for(stride: int, side: int) -> None:
    head = HeadConfig(mask_stride=stride, num_queries=5, num_classes=3)
    output = build("test_convnext", 96, head=head)(torch.rand(1, 3, 96, 96))
    assert output.mask_logits.shape == (1, 5, side, side)


def test_by_the_stem_a_stride_of_32_is_doubled_once_and_the_bare_map_is_cheaper() -> None:
    # ConvNeXt has no class token, which the variant's `prefix` leaves out where there is none.
    once = build("test_convnext", 96, head=AUTHORS)
    assert once(torch.rand(1, 3, 96, 96)).mask_logits.shape[2:] == (6, 6)
    usual = build("test_convnext", 96, head=HeadConfig(num_queries=5, num_classes=3))
    assert segmenter_cost(once).head_macs < segmenter_cost(usual).head_macs / 3


def test_an_option_beside_the_variant_changes_it_and_its_name() -> None:
    head = HeadConfig(variant="authors-2025", tap="output", mask_stride=8)
    assert (head.tap, head.mask_stride, head.layer_scale) == ("output", 8, True)
    assert head.design == "authors-2025, mask_stride 8"
    assert HeadConfig().design == ""


def test_the_usual_head_keeps_its_identity() -> None:
    """Rows of earlier versions are found again: nothing is added to what they were hashed from."""
    assert HeadConfig().identity() == {
        "name": "luma",
        "num_queries": 100,
        "num_classes": 150,
        "l2": 1,
        "tap": "output",
        "ffn": "auto",
        "width_cap": 768,
    }
    different = [HeadConfig(), *(HeadConfig(variant=name) for name in VARIANTS if name != "paper-page")]
    different += [HeadConfig(**{name: value}) for name, value in CHANGES.items()]
    assert len({json.dumps(head.identity(), sort_keys=True) for head in different}) == len(different)
    assert all(HeadConfig(**head.identity()) == head for head in different)


CHANGES = {"mask_stride": 8, "layer_scale": True, "qkv_bias": False, "read_norm": "shared", "query_norm": False}


@pytest.mark.parametrize("options", [{"variant": "2027"}, {"mask_stride": 5}, {"read_norm": "none"}])
def test_what_no_variant_has_is_refused(options: dict) -> None:
    with pytest.raises(UsageError, match="expected one of"):
        HeadConfig(**options)


def test_other_heads_have_no_variants(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="expected one of paper-page, masked"):
        HeadConfig(name="eomt", variant="authors-2025")
    assert run(["cost", "vit_b", "--res", "512", "--head", "linear", "--mask-stride", "8"]) == 2
    assert "--mask-stride does not apply to --head linear" in capsys.readouterr().err


def test_show_prints_the_equations_of_the_variant(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for more in ("--head luma", "--variant authors-2025", ""):
        assert run(f"show vit_b {more}".split()) == 0
        printed.append(capsys.readouterr().out)
    usual, authors, without = printed
    assert "Q + A Wo; biases on q, k, v and o" in usual
    assert "Q + g * A Wo; a bias on o alone" in authors
    assert "variant authors-2025" in authors
    assert "Wo" not in without
