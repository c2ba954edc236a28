"""Queries in the backbone's own blocks: the rest of the sequence runs as the backbone runs it, and nothing is lost."""

from __future__ import annotations

import pytest
import torch
from head_stand_in import images
from joint_backbones import KINDS, SCALED, make, shared

from luma_cli.backbone.backbone import (
    Backbone,
    add_queries,
    joint_blocks,
    num_prefix_tokens,
    run_joint_block,
    tokens_before,
)
from luma_cli.backbone.create import create_backbone
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.rules import load_rules
from luma_cli.catalogue.timm_index import load_index
from luma_cli.errors import BuildError

NUM_QUERIES = 5


def joined(backbone: Backbone, num_joint: int, hidden: bool, queries: torch.Tensor | None = None) -> torch.Tensor:
    """The sequence [B, P + K + N, D] after all blocks; `hidden`: nothing but queries may attend to queries."""
    prefix = num_prefix_tokens(backbone)
    asked = torch.randn(NUM_QUERIES, backbone.width) if queries is None else queries
    sequence = add_queries(tokens_before(backbone, images(), num_joint), asked, prefix)
    num_tokens = sequence.tokens.shape[1]
    mask = torch.ones(1, 1, num_tokens, num_tokens, dtype=torch.bool)
    is_query = torch.zeros(num_tokens, dtype=torch.bool)
    is_query[prefix : prefix + NUM_QUERIES] = True
    mask[0, 0][~is_query] = ~is_query
    for number in range(num_joint):
        sequence = run_joint_block(backbone, sequence, number, mask if hidden else None)
    return sequence.tokens


def patches(backbone: Backbone, tokens: torch.Tensor) -> torch.Tensor:
    """The patch tokens as a map [B, D, h, w]."""
    first = num_prefix_tokens(backbone) + NUM_QUERIES
    return tokens[:, first:].transpose(1, 2).unflatten(2, (4, 4))


@pytest.mark.parametrize("num_joint", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_patches_that_do_not_see_queries_are_the_backbones_own(name, num_joint):
    """Rotations, gates, gammas, norms before and after: all as in the model's own forward."""
    backbone = shared(name)
    with torch.no_grad():
        found = patches(backbone, joined(backbone, num_joint, hidden=True))
        torch.testing.assert_close(found, backbone(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_patches_see_queries_and_queries_see_patches(name):
    backbone = shared(name)
    prefix = num_prefix_tokens(backbone)
    torch.manual_seed(0)
    queries = torch.randn(NUM_QUERIES, backbone.width)
    with torch.no_grad():
        tokens = joined(backbone, 2, hidden=False, queries=queries)
        assert not torch.allclose(patches(backbone, tokens), backbone(images()), atol=1e-3)
        asked = tokens[:, prefix : prefix + NUM_QUERIES]
        assert not torch.allclose(asked[0], asked[1], atol=1e-4)  # the two images differ


@pytest.mark.parametrize("name", KINDS)
def test_permuted_queries_permute(name):
    """No query has a place: neither a position nor a rotation of its own."""
    backbone = shared(name)
    prefix = num_prefix_tokens(backbone)
    torch.manual_seed(0)
    queries, order = torch.randn(NUM_QUERIES, backbone.width), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        before = joined(backbone, 3, hidden=False, queries=queries)[:, prefix : prefix + NUM_QUERIES]
        after = joined(backbone, 3, hidden=False, queries=queries[order])[:, prefix : prefix + NUM_QUERIES]
    torch.testing.assert_close(after, before[:, order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("name", SCALED)
def test_every_scale_of_every_joint_block_counts(name, block):
    backbone = make(name)
    torch.manual_seed(0)
    queries = torch.randn(NUM_QUERIES, backbone.width)
    scales = [parameter for key, parameter in joint_blocks(backbone)[block].named_parameters() if "gamma" in key]
    assert len(scales) == 2
    with torch.no_grad():
        before = joined(backbone, 3, hidden=False, queries=queries)
        for scale in scales:
            kept = scale.clone()
            scale.zero_()
            assert (joined(backbone, 3, hidden=False, queries=queries) - before).abs().max() > 1e-2
            scale.copy_(kept)


def test_kinds_cover_every_class_that_joins():
    rules = load_rules()
    classes = {cls for cls, rule in rules.models.items() if rule.get("joint")}
    assert {load_index().get(name).cls for name in KINDS} == classes


REFUSALS = {
    "swin_b": "attend within windows",
    "swinv2_tiny_window8_256": "attend within windows",
    "convnext_b": "global self-attention",
    "resnet50": "token mixer is convolution",
    "xcit_nano_12_p16_224": "cross-covariance",
    "cait_xxs24_224": "talking-heads attention takes none",
    "beit_base_patch16_224": "no entry for queries",
    "vit_relpos_small_patch16_rpn_224": "no entry for queries",
    "samvit_base_patch16_224": "within windows",
    "convit_tiny": "takes none",
    "hydra_vit_b": "token mixer is of another kind",
    "tome_vit_b": "merge tokens",
    "switch_vit_b": "places of patches at its experts",
    "pit_xs_224": "constant width",
    "hiera_tiny_224": "constant width",
    "crossvit_9_240": "keeps two",
    "tnt_s_patch16_224": "one token sequence",
    "naflexvit_base_patch16_gap": "access to the token sequence",
    "levit_128s": "no entry for queries",
    "maxvit_tiny_tf_224": "windows and grids",
    "pvt_v2_b0": "spatial-reduction",
    "mixer_s16_224": "token MLP",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_the_refusal_names_what_is_missing_and_proposes_luma(name):
    size = {"crossvit_9_240": 240, "swinv2_tiny_window8_256": 256, "levit_128s": 256}.get(name, 224)
    backbone = create_backbone(resolve(name), size, device="meta")
    with pytest.raises(BuildError, match=REFUSALS[name]) as caught:
        tokens_before(backbone, images(), 1)
    message = str(caught.value)
    assert message.startswith(f"{backbone.spec.name}: EoMT needs ")
    assert message.endswith("; use --head luma")
    assert "\n" not in message
    assert (joint_blocks(backbone), num_prefix_tokens(backbone)) == ([], 0)
