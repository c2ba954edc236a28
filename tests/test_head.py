"""The LUMA head on a backbone small enough to know by heart, and on tiny timm models of several FFN kinds."""

from __future__ import annotations

import copy

import pytest
import torch
from head_stand_in import StandIn, images
from torch import nn

from luma_cli.catalogue.heads import HeadConfig, Tap, default_heads, num_scale_blocks, plan_head
from luma_cli.errors import BuildError, UsageError
from luma_cli.head.parts import HeadOutput
from luma_cli.head.segmenter import Segmenter, build, tap_of

SMALL = HeadConfig(num_queries=6, num_classes=4)
# tokens, NHWC single residual, NHWC tokens, gammas, GRN, BatchNorm conv MLP, depthwise conv, none
TINY = (
    "test_vit",
    "test_convnext",
    "swin_t",
    "test_vit3",
    "convnextv2_atto",
    "pvt_v2_b0",
    "poolformer_s12",
    "test_efficientnet",
)


def stand_in(config=SMALL, seed=0, **options) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(StandIn(**options), config).eval()


@pytest.fixture(scope="module", params=TINY)
def tiny(request) -> Segmenter:
    """A segmenter at 64 pixels with its norms and scales redrawn, so that no branch is hidden by a tiny scale."""
    segmenter = build(request.param, 64, head=SMALL)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    return segmenter


# shapes


@pytest.mark.parametrize("stride", [4, 8, 14, 16, 32, 64])
def test_masks_are_a_quarter_of_the_image_for_every_stride(stride):
    segmenter = stand_in(stride=stride)
    prediction = segmenter(images(side=stride * 8))
    assert prediction.class_logits.shape == (2, 6, 5)
    assert prediction.mask_logits.shape == (2, 6, stride * 2, stride * 2)


def test_512_gives_128_for_strides_16_and_32():
    for stride in (16, 32):
        segmenter = stand_in(stride=stride, resolution=512)
        assert segmenter(images(1, 512)).mask_logits.shape[2:] == (128, 128)


def test_images_need_not_be_square():
    prediction = stand_in()(torch.rand(1, 3, 64, 96))
    assert prediction.mask_logits.shape == (1, 6, 16, 24)


def test_tiny_models_predict(tiny):
    prediction = tiny(images())
    assert isinstance(prediction, HeadOutput)
    assert prediction.class_logits.shape == (2, 6, 5)
    assert prediction.mask_logits.shape == (2, 6, 16, 16)
    assert torch.isfinite(prediction.mask_logits).all()


def test_head_none_returns_the_features():
    segmenter = build("test_vit", 64, head="none")
    assert torch.equal(segmenter(images()), segmenter.backbone(images()))
    assert segmenter.head is None
    with pytest.raises(BuildError, match="head='luma'"):
        segmenter.decode(torch.zeros(1, 64, 4, 4), (64, 64))


# what the head may and may not do


def test_features_are_the_same_with_and_without_the_head(tiny):
    alone = copy.deepcopy(tiny.backbone)
    seen: list[torch.Tensor] = []
    handle = tiny.backbone.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    tiny(images())
    handle.remove()
    assert torch.equal(seen[0], alone(images()))


def test_queries_do_not_see_where_a_patch_is():
    segmenter = stand_in()
    tokens = torch.randn(2, 16, 32)
    shuffled = tokens[:, torch.randperm(16)]
    queries = segmenter.head.queries.weight
    torch.testing.assert_close(segmenter.head.attention(queries, tokens), segmenter.head.attention(queries, shuffled))


@pytest.mark.parametrize("training", [False, True])
def test_permuted_queries_permute_the_outputs(tiny, training):
    segmenter = copy.deepcopy(tiny)
    features = segmenter.backbone(images()).detach()
    segmenter.train(training)
    before = segmenter.decode(features, (64, 64))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        segmenter.head.queries.weight.copy_(segmenter.head.queries.weight[order])
    after = segmenter.decode(features, (64, 64))
    torch.testing.assert_close(after.class_logits, before.class_logits[:, order], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after.mask_logits, before.mask_logits[:, order], rtol=1e-4, atol=1e-3)


def test_a_query_does_not_depend_on_the_others(tiny):
    features = tiny.backbone(images()).detach()
    before = tiny.decode(features, (64, 64)).class_logits
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        other.head.queries.weight[1:] = torch.randn(5, other.head.plan.width)
    after = other.decode(features, (64, 64)).class_logits
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(after[:, 1], before[:, 1])


def test_images_of_a_batch_do_not_mix(tiny):
    both = tiny(images())
    alone = tiny(images()[1:])
    torch.testing.assert_close(both.class_logits[1:], alone.class_logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(both.mask_logits[1:], alone.mask_logits, rtol=1e-3, atol=1e-2)


# sharing


def test_the_reused_ffn_is_registered_once(tiny):
    segmenter = tiny
    parameters = list(segmenter.named_parameters(remove_duplicate=False))
    assert len({id(parameter) for _, parameter in parameters}) == len(parameters)
    groups = [{"params": segmenter.backbone.parameters()}, {"params": segmenter.head.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1)  # raises if a parameter stands in two groups
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(parameters)
    assert set(segmenter.state_dict()) == {
        *(f"backbone.{key}" for key in segmenter.backbone.state_dict()),
        *(f"head.{key}" for key in segmenter.head.state_dict()),
    }


def test_the_reused_ffn_learns_from_the_queries(tiny):
    if tiny.ffn == "fresh":
        assert tiny.head.ffn is not None
        return
    assert tiny.head.ffn is None
    segmenter = copy.deepcopy(tiny)
    features = segmenter.backbone(images()).detach()
    segmenter.decode(features, (64, 64)).class_logits.square().sum().backward()
    touched = [parameter for parameter in segmenter.backbone.parameters() if parameter.grad is not None]
    assert touched
    assert any(parameter.grad.abs().sum() > 0 for parameter in touched if parameter.dim() > 1)


def test_a_copy_borrows_from_its_own_backbone(tiny):
    copied = copy.deepcopy(tiny)
    with torch.no_grad():
        for parameter in copied.backbone.parameters():
            parameter.zero_()
    before = tiny(images()).class_logits
    copied(images())
    assert torch.equal(tiny(images()).class_logits, before)


def test_final_norm_is_shared_where_there_is_one():
    assert stand_in().head.norm_queries is None
    assert isinstance(stand_in(final_norm=False).head.norm_queries, nn.LayerNorm)
    capped = stand_in(HeadConfig(num_queries=6, ffn="fresh", width_cap=16))
    assert isinstance(capped.head.norm_pixels, nn.LayerNorm)


# plans


def test_a_fresh_ffn_is_possible_everywhere_and_reuse_is_not():
    assert stand_in(HeadConfig(ffn="fresh")).ffn == "fresh"
    assert stand_in(ffn=False).ffn == "fresh"
    with pytest.raises(
        BuildError, match=r"stand_in has no token-wise FFN to reuse \(a plain convolution\); use ffn='f"
    ):
        stand_in(HeadConfig(ffn="reused"), ffn=False)


def test_the_width_cap_holds_for_fresh_heads_only():
    tap = Tap(width=2048, stride=32, num_heads=0, has_ffn=False, has_final_norm=False)
    assert plan_head(tap, HeadConfig()).width == 768
    wide = Tap(width=2048, stride=32, num_heads=0, has_ffn=True, has_final_norm=False)
    assert plan_head(wide, HeadConfig()).width == 2048
    assert plan_head(wide, HeadConfig(ffn="fresh")).width == 768


def test_heads_follow_the_block_when_they_divide_the_width():
    assert plan_head(Tap(96, 32, 3, True, True), HeadConfig()).num_heads == 3
    assert plan_head(Tap(96, 32, 7, True, True), HeadConfig()).num_heads == 1
    assert plan_head(Tap(1024, 32, 0, True, True), HeadConfig()).num_heads == 16
    assert all(width % default_heads(width) == 0 for width in range(1, 2049))


def test_scale_blocks_come_nearest_to_a_quarter():
    assert [num_scale_blocks(stride) for stride in (1, 2, 4, 8, 14, 16, 28, 32, 64)] == [0, 0, 0, 1, 2, 2, 3, 3, 4]


# build


def test_build_is_deterministic_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    first, again, other = build("test_vit", 64), build("test_vit", 64), build("test_vit", 64, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.head.queries.weight, other.head.queries.weight)
    assert not first.training


def test_build_on_meta_has_no_data_and_dtype_is_honoured():
    assert all(tensor.is_meta for tensor in build("test_vit", 64, device="meta").state_dict().values())
    half = build("test_vit", 64, dtype=torch.bfloat16)
    assert half(images().bfloat16()).mask_logits.dtype == torch.bfloat16


def test_ones_own_module_needs_no_card_for_a_fresh_head():
    segmenter = build(nn.Sequential(nn.Conv2d(3, 24, 8, 8), nn.GELU()), 64, head=SMALL)
    assert (segmenter.ffn, tap_of(segmenter.backbone).width) == ("fresh", 24)
    assert segmenter(images()).mask_logits.shape == (2, 6, 16, 16)


def test_a_card_beside_a_name_is_refused():
    with pytest.raises(BuildError, match="leave card out"):
        build("test_vit", 64, card={"tap": "blocks.-1"})


def test_configuration_is_checked():
    with pytest.raises(UsageError, match="num_queries is 0"):
        HeadConfig(num_queries=0)
    with pytest.raises(UsageError, match="l2 is -1"):
        HeadConfig(l2=-1)


def test_a_segmenter_built_in_inference_mode_can_be_trained():
    with torch.inference_mode():
        segmenter = build("test_vit", 64, head=SMALL)
    segmenter.train()(images()).mask_logits.sum().backward()
    assert segmenter.backbone.pruned == build("test_vit", 64, head=SMALL).backbone.pruned


def test_weights_for_ones_own_module_are_refused():
    with pytest.raises(BuildError, match="keeps the weights that it has"):
        build(nn.Conv2d(3, 8, 16, 16), 64, weights="pretrained")
