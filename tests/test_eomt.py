"""The EoMT head: what it predicts, when it masks, and what it must not own."""

from __future__ import annotations

import copy

import pytest
import torch
from head_stand_in import images
from joint_backbones import KINDS, shared
from torch._dynamo.testing import CompileCounter

from luma_cli.backbone.backbone import TokenSequence
from luma_cli.catalogue.heads import HeadConfig, JointBlocks, plan_eomt
from luma_cli.errors import BuildError, UsageError
from luma_cli.head import eomt
from luma_cli.head.parts import HeadOutput
from luma_cli.head.segmenter import Segmenter, build

SMALL = HeadConfig(name="eomt", num_queries=6, num_classes=4, l2=2)
PLAIN = "vit_base_patch16_224"


def segmenter(name: str = PLAIN, config: HeadConfig = SMALL) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(copy.deepcopy(shared(name)), config).eval()


def close(found: HeadOutput, expected: HeadOutput) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_shapes_on_every_kind(name):
    prediction = segmenter(name)(images())
    assert prediction.class_logits.shape == (2, 6, 5)
    assert prediction.mask_logits.shape == (2, 6, 16, 16)
    assert torch.isfinite(prediction.mask_logits).all()


@pytest.mark.parametrize("name", KINDS)
def test_without_masks_the_last_of_all_predictions_is_the_only_one(name):
    model = segmenter(name)
    model.head.anneal((0.0, 0.0))
    found = model.predictions(images())
    assert len(found) == 3
    close(found[-1], model(images()))


def test_images_of_a_batch_do_not_mix():
    model = segmenter()
    three = model(images(3))
    for index in range(3):
        close(HeadOutput(*(part[index : index + 1] for part in three)), model(images(3)[index : index + 1]))


def test_one_query_one_joint_block_and_all_of_them():
    for l2 in (1, 3):
        model = segmenter(config=HeadConfig(name="eomt", num_queries=1, num_classes=2, l2=l2))
        assert model(images()).mask_logits.shape == (2, 1, 16, 16)
        assert len(model.predictions(images())) == l2 + 1


def test_bfloat16_runs_on_plain_and_rotated_blocks():
    for name in (PLAIN, "vit_small_patch16_dinov3"):
        model = segmenter(name).bfloat16()
        for prediction in (model(images().bfloat16()), *model.predictions(images().bfloat16())):
            assert prediction.mask_logits.dtype == torch.bfloat16
            assert torch.isfinite(prediction.mask_logits.float()).all()


@pytest.mark.parametrize("name", [PLAIN, "vit_small_patch16_dinov3", "vit_small_patch16_rope_mixed_224"])
def test_inference_compiles_as_one_graph(name):
    model = segmenter(name)
    with torch.no_grad():
        close(torch.compile(model, backend="eager", fullgraph=True)(images()), model(images()))


def test_the_state_dict_holds_every_parameter_once():
    model = segmenter()
    parameters = list(model.named_parameters(remove_duplicate=False))
    assert len({id(parameter) for _, parameter in parameters}) == len(parameters)
    assert {key.split(".")[0] for key in model.head.state_dict()} == {"queries", "classify", "mask", "upscale"}
    assert set(model.state_dict()) == {
        *(f"backbone.{key}" for key in model.backbone.state_dict()),
        *(f"head.{key}" for key in model.head.state_dict()),
    }


@pytest.mark.parametrize("name", KINDS)
def test_gradients_reach_everything(name):
    model = segmenter(name).train()
    found = model.predictions(images())
    sum(part.square().mean() for prediction in found for part in prediction).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_fresh_norm_stands_in_where_the_backbone_has_none():
    assert segmenter().head.norm is None
    fresh = segmenter("eva02_base_patch14_224")
    assert not fresh.backbone.has_final_norm
    assert isinstance(fresh.head.norm, torch.nn.LayerNorm)


def test_in_inference_nothing_is_predicted_before_the_end(monkeypatch):
    model = segmenter()
    calls = []
    original = model.head.upscale.forward
    monkeypatch.setattr(model.head.upscale, "forward", lambda pixels: (calls.append(1), original(pixels))[1])
    model(images())
    assert len(calls) == 1
    model.predictions(images())
    assert len(calls) == 1 + 3


# masks


def masks_seen(model: Segmenter, draws: torch.Tensor | None = None) -> list[torch.Tensor | None]:
    """The mask that every joint block got while all predictions were made."""
    seen: list[torch.Tensor | None] = []
    original = eomt.run_joint_block

    def watch(
        backbone: object, sequence: TokenSequence, number: int, mask: torch.Tensor | None = None
    ) -> TokenSequence:
        seen.append(mask)
        return original(backbone, sequence, number, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eomt, "run_joint_block", watch)
        model.predictions(images(), draws)
    return seen


@pytest.mark.parametrize("name", [PLAIN, "vit_small_patch14_reg4_dinov2"])
def test_a_masked_query_sees_the_patches_of_its_own_mask_alone(name):
    model = segmenter(name)
    prefix = {PLAIN: 1, "vit_small_patch14_reg4_dinov2": 5}[name]
    before = model.predictions(images())[0].mask_logits
    mask = masks_seen(model)[0]
    inside = torch.nn.functional.interpolate(before, (4, 4), mode="bilinear").flatten(2) > 0
    rows = mask[:, 0, prefix : prefix + 6]
    assert torch.equal(rows[..., prefix + 6 :], inside)
    assert 0 < inside.float().mean() < 1
    assert rows[..., : prefix + 6].all()
    others = torch.ones(mask.shape[-1], dtype=torch.bool)
    others[prefix : prefix + 6] = False
    assert mask[:, 0, others].all()


def test_a_query_with_an_empty_mask_still_sees_queries_and_prefix():
    model = segmenter()
    with torch.no_grad():
        for parameter in model.head.mask.parameters():
            parameter.zero_()
    mask = masks_seen(model)[0]
    assert not mask[:, 0, 1:7, 7:].any()
    assert mask[:, 0, 1:7, :7].all()
    assert all(torch.isfinite(part).all() for prediction in model.predictions(images()) for part in prediction)


def test_blocks_without_masks_run_unmasked():
    model = segmenter()
    model.head.anneal((0.0, 1.0))
    first, second = masks_seen(model)
    assert first is None
    assert second is not None


def test_masks_change_what_is_predicted():
    model = segmenter()
    assert not torch.allclose(model.predictions(images())[-1].mask_logits, model(images()).mask_logits, atol=1e-3)


def test_queries_are_freed_as_often_as_said_by_the_numbers_given():
    model = segmenter(config=HeadConfig(name="eomt", num_queries=200, num_classes=4, l2=1))
    with torch.no_grad():
        for parameter in model.head.mask.parameters():
            parameter.zero_()  # no patch is in any mask: a query that sees patches was freed
    model.head.anneal((0.3,))
    state = torch.get_rng_state()
    draws = torch.rand(2, 1, 200, generator=torch.Generator().manual_seed(1))
    (mask,) = masks_seen(model, draws)
    freed = mask[:, 0, 1:201, 201:]
    assert torch.equal(freed.all(-1), freed.any(-1))
    assert abs(freed.all(-1).float().mean() - 0.7) < 0.07
    assert not torch.equal(freed[0].all(-1), freed[1].all(-1))
    assert torch.equal(freed.all(-1), draws[:, 0] >= 0.3)
    (other,) = masks_seen(model, draws.flip(0))
    assert not torch.equal(mask, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_missing_draws_are_refused():
    model = segmenter()
    model.head.anneal((1.0, 0.5))
    with pytest.raises(UsageError, match="pass numbers"):
        model.predictions(images())


@pytest.mark.parametrize("probabilities", [(1.0,), (0.5, 1.5), (-0.1, 0.0), (float("nan"), 0.0)])
def test_impossible_probabilities_are_refused(probabilities):
    with pytest.raises(UsageError, match="expected 2 from 0 to 1"):
        segmenter().head.anneal(probabilities)


# other heads under the same interface


def test_other_heads_give_one_prediction():
    luma = build("test_vit", 64, head=HeadConfig(num_queries=6))
    (only,) = luma.predictions(images())
    close(only, luma(images()))
    with pytest.raises(BuildError, match="head 'none'"):
        build("test_vit", 64, head="none").predictions(images())


# plans


@pytest.mark.parametrize(("depth", "expected"), [(1, 1), (2, 2), (6, 3), (12, 3), (24, 4), (27, 5), (40, 5)])
def test_joint_blocks_by_depth(depth, expected):
    plan = plan_eomt(JointBlocks(64, 16, depth, has_final_norm=True), HeadConfig(name="eomt"))
    assert plan.num_joint == expected


def test_more_joint_blocks_than_blocks_are_refused():
    with pytest.raises(BuildError, match="test_vit has 6 blocks, got l2 7"):
        build("test_vit", 64, head=HeadConfig(name="eomt", l2=7))


@pytest.mark.parametrize(("stride", "blocks"), [(4, 1), (8, 1), (14, 1), (16, 2), (32, 3)])
def test_doublings_follow_the_patch_side(stride, blocks):
    plan = plan_eomt(JointBlocks(64, stride, 12, has_final_norm=True), HeadConfig(name="eomt"))
    assert plan.num_scale_blocks == blocks


def test_a_refused_backbone_is_refused_when_built():
    with pytest.raises(BuildError, match="attend within windows; use --head luma"):
        build("swin_t", 224, head="eomt", device="meta")


def test_annealing_does_not_compile_at_every_step():
    model = segmenter().train()
    counter = CompileCounter()
    compiled = torch.compile(model.predictions, backend=counter)
    draws = torch.rand(2, 2, 6)
    for probability in (0.9, 0.6, 0.3):
        model.head.anneal((probability, probability))
        with torch.no_grad():
            close(compiled(images(), draws)[-1], model.predictions(images(), draws)[-1])
    assert counter.frame_count == 1
