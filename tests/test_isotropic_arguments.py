"""What timm's constructor and methods take, own architectures take too, or refuse by name: nothing is dropped."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.layers import set_reentrant_ckpt
from timm.models.vision_transformer import VisionTransformer

from luma_cli.catalogue.own import KINDS, MIXER_KINDS, architecture
from luma_cli.isotropic.checkpoints import convert
from luma_cli.isotropic.entrypoints import register
from luma_cli.isotropic.mixtures import balance_loss

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
BOUND = ("linformer_vit", "synthesizer_vit", "synthesizer_fr_vit", "gfnet_vit", "afno_vit")  # to one number of tokens
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
register()


def model(kind: str, **options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    made: VisionTransformer = timm.create_model(
        architecture(kind, "tiny"), **{"img_size": 64, "num_classes": 3, **SMALL, **options}
    )
    return made


@EVERY_KIND
def test_it_is_built_on_the_device_and_in_the_dtype_asked_for(kind: str) -> None:
    on_meta = model(kind, device="meta")
    assert {value.is_meta for value in (*on_meta.parameters(), *on_meta.buffers())} == {True}
    half = model(kind, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


@EVERY_KIND
def test_image_and_patch_size_are_a_number_or_two(kind: str) -> None:
    made = model(kind, img_size=(64, 96), patch_size=(16, 16)).eval()
    assert made.forward_features(torch.zeros(1, 3, 64, 96)).shape[1] == 24 + made.num_prefix_tokens


@pytest.mark.parametrize("kind", MIXER_KINDS)
@pytest.mark.parametrize("setting", [{"qkv_bias": False}, {"qk_norm": True}, {"attn_drop_rate": 0.1}])
def test_a_setting_about_attention_is_refused_where_there_is_none(kind: str, setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is about attention"):
        model(kind, **setting)


@pytest.mark.parametrize("kind", BOUND)
def test_another_number_of_tokens_is_refused_where_the_mixer_is_bound_to_one(kind: str) -> None:
    made = model(kind).eval()
    made.set_input_size((96, 96))
    with pytest.raises(ValueError, match="build the model at this img_size"):
        made(torch.zeros(1, 3, 96, 96))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in BOUND])
def test_set_input_size_gives_the_model_of_that_size(kind: str) -> None:
    resized, built = model(kind, img_size=96).eval(), model(kind, img_size=128).eval()
    resized.set_input_size((128, 128))
    built.load_state_dict(resized.state_dict())
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(resized(images), built(images))


def test_token_merging_refuses_images_of_changing_size() -> None:
    with pytest.raises(ValueError, match="leave dynamic_img_size out"):
        model("tome_vit", dynamic_img_size=True)


@EVERY_KIND
def test_several_blocks_at_once(kind: str) -> None:
    maps = model(kind).eval().get_intermediate_layers(torch.zeros(1, 3, 64, 64), n=[0, 1], reshape=True)
    assert [found.shape for found in maps] == [(1, 32, 4, 4)] * 2


@pytest.mark.parametrize("side", [(80, 32), (272, 160)])
@EVERY_KIND
def test_own_weights_come_back_from_a_grid_of_one_patch_more_than_a_square(kind: str, side: tuple[int, int]) -> None:
    """5 x 2 patches are as many as 3 x 3 and a class token's position."""
    made = model(kind, img_size=side)
    state = made.state_dict()
    converted = convert(dict(state), made)
    assert all(torch.equal(converted[name], value) for name, value in state.items())


def test_reentrant_checkpointing_merges_the_same() -> None:
    made, images = model("tome_vit").train(), torch.randn(1, 3, 64, 64)
    expected = made(images)
    made.set_grad_checkpointing(True)
    set_reentrant_ckpt(True)
    try:
        assert torch.equal(made(images), expected)
    finally:
        set_reentrant_ckpt(False)


@pytest.mark.parametrize("kind", ["switch_vit", "vmoe_vit"])
def test_a_balance_loss_that_would_teach_nothing_is_refused(kind: str) -> None:
    made, images = model(kind).train(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        made(images)
        assert balance_loss(made).isfinite()
    with pytest.raises(RuntimeError, match="has no gradient"):
        balance_loss(made)
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    assert balance_loss(made).isfinite()


@EVERY_KIND
def test_what_is_no_number_in_one_image_stays_there(kind: str) -> None:
    little_room = {"experts_options": {"capacity_factor": 0.3}} if kind in ("switch_vit", "vmoe_vit") else {}
    made = model(kind, init_values=1.0, **little_room).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = made.forward_features(images)[1]
        images[0] = torch.nan
        torch.testing.assert_close(made.forward_features(images)[1], expected)
