"""The closed form of EoMT's and the linear probe's cost against what exists and what is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from joint_backbones import KINDS, SIZE, shared

from luma_cli.backbone.create import create_backbone
from luma_cli.catalogue.head_cost import head_macs, head_params
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.names import resolve
from luma_cli.errors import BuildError, UsageError
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.measure.cost import CostSources, cost, cost_from_facts
from luma_cli.measure.facts import backbone_facts, segmenter_cost
from luma_cli.measure.sweep import plan, template

CONFIGS = (
    HeadConfig(name="eomt"),
    HeadConfig(name="eomt", num_queries=1, num_classes=1, l2=1),
    HeadConfig(name="eomt", num_queries=7, num_classes=19, l2=3),
    HeadConfig(name="linear"),
    HeadConfig(name="linear", num_classes=19),
)
REAL = (
    ("vit_base_patch16_224", 512),
    ("vit_large_patch14_reg4_dinov2", 512),
    ("vit_base_patch32_224", 256),
    ("vit_base_patch16_dinov3", 256),
    ("vit_tiny_r_s16_p8_224", 224),
)
NO_JOINT = (("swin_t", 224), ("resnet50", 224), ("levit_128s", 256), ("hydra_vit_s", 224))


def agrees(backbone, config) -> None:
    found = backbone_facts(backbone)
    with torch.device("meta"):
        counted = segmenter_cost(Segmenter(backbone, config))
    assert (head_macs(found, config), head_params(found, config)) == (counted.head_macs, counted.head_params)
    assert (found.macs, counted.ffn, counted.complete) == (counted.backbone_macs, "none", True)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_that_joins(name):
    for config in CONFIGS:
        agrees(shared(name), config)


@pytest.mark.parametrize(("name", "size"), REAL)
def test_models_as_they_are(name, size):
    backbone = create_backbone(resolve(name), size, device="meta")
    for config in CONFIGS:
        agrees(backbone, config)


@pytest.mark.parametrize(("name", "size"), NO_JOINT)
def test_the_probe_goes_everywhere_and_eomt_is_refused_from_facts_alone(name, size):
    backbone = create_backbone(resolve(name), size, device="meta")
    agrees(backbone, HeadConfig(name="linear"))
    facts = backbone_facts(backbone)
    assert (facts.joint_blocks, facts.no_joint) == ("", backbone.rule.joint_refusal)
    with pytest.raises(BuildError, match="EoMT needs .*; use --head luma"):
        cost_from_facts(backbone.spec, facts, HeadConfig(name="eomt"))


def test_vit_b_at_512_by_hand():
    facts = backbone_facts(create_backbone(resolve("vit_base_patch16_224"), 512, device="meta"))
    assert (facts.joint_blocks, facts.num_prefix_tokens) == (f"{12 * 768**2}x{2 * 768}*12", 1)
    k, n, d, c = 100, 1024, 768, 150
    joint = 3 * (12 * k * d * d + 2 * d * ((n + 1 + k) ** 2 - (n + 1) ** 2))
    upscale = sum(n * 4**i * (4 * d * d + 36 * d) for i in range(2))
    by_hand = joint + k * d * (c + 1) + 3 * k * d * d + upscale + k * d * 128 * 128
    assert head_macs(facts, HeadConfig(name="eomt")) == by_hand == 16_782_074_880
    assert head_macs(facts, HeadConfig(name="linear")) == n * d * c


def test_blocks_that_differ_are_counted_one_by_one():
    """A backbone with fewer keys in one block: joining two blocks or three costs what these very blocks cost."""
    facts = backbone_facts(shared("vit_base_patch16_sapiens2"))
    assert len(facts.joint_blocks.split()) == 3


def test_too_many_joint_blocks_are_refused_from_facts_alone():
    facts = backbone_facts(shared("vit_base_patch16_224"))
    with pytest.raises(BuildError, match="vit_base_patch16_224 has 3 blocks, got l2 4"):
        head_macs(facts, HeadConfig(name="eomt", l2=4))


def test_facts_that_do_not_say_their_blocks_are_counted_again(tmp_path):
    known = backbone_facts(create_backbone(resolve("vit_base_patch16_224"), SIZE, device="meta"))
    unknown = replace(known, joint_blocks="")
    table = {(known.architecture, SIZE): unknown}
    sources = CostSources(table=table, cache=tmp_path, counter=lambda requests, imports: [known])
    spec = resolve("vit_base_patch16_224")
    assert cost(spec, SIZE, HeadConfig(name="eomt"), sources=sources).source == "counted"
    assert cost(spec, SIZE, HeadConfig(name="eomt"), sources=sources).source == "cache"
    assert cost(spec, SIZE, HeadConfig(), sources=sources).source == "table"
    with pytest.raises(BuildError, match="do not say its blocks"):
        head_macs(unknown, HeadConfig(name="eomt"))


def test_an_eomt_head_has_no_part_of_its_own():
    with pytest.raises(UsageError, match="--part head does not apply to --head eomt"):
        plan([resolve("test_vit")], [64], template(HeadConfig(name="eomt"), part="head"))


def test_counting_leaves_the_model_with_its_data():
    segmenter = build("test_vit", 64, head="eomt")
    before = {key: value.clone() for key, value in segmenter.state_dict().items()}
    segmenter_cost(segmenter)
    assert all(torch.equal(value, before[key]) for key, value in segmenter.state_dict().items())
