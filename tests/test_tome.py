"""Token merging against loops over tokens, against timm's ViT where nothing merges, and its cost."""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention

from luma_cli.isotropic.entrypoints import register
from luma_cli.isotropic.merging import MergingBlock, ProportionalAttention, ToMeViT, match, merge, spread
from luma_cli.isotropic.vit import Sequence
from luma_cli.measure.count import count

SMALL = {"embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 5, "init_values": None}


def block(num_merged: int, num_prefix: int = 1, width: int = 16) -> MergingBlock:
    torch.manual_seed(0)
    return MergingBlock(
        dim=width, num_heads=2, mixer=ProportionalAttention, sequence=Sequence((4, 4), num_prefix), mlp_ratio=4.0,
        init_values=None, proj_drop=0.0, drop_path=0.0, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        act_layer=torch.nn.GELU, mlp_layer=timm.layers.Mlp, num_merged=num_merged,
    )  # fmt: skip


def slow_places(keys: Tensor, num_merged: int, num_prefix: int) -> list[int]:
    """Places of the tokens of one image [N, d], by loops and lists."""
    tokens = range(num_prefix, len(keys))
    half_a, half_b = [t for t in tokens if t % 2 == 0], [t for t in tokens if t % 2]
    best: list[tuple[float, int, int]] = []
    for a in half_a:
        scores = [float(cosine_similarity(keys[a], keys[b], dim=0)) for b in half_b]
        best.append((max(scores), a, half_b[scores.index(max(scores))]))
    merged = {a: b for _, a, b in sorted(best, key=lambda entry: -entry[0])[:num_merged]}
    left = [*range(num_prefix), *(a for a in half_a if a not in merged), *half_b]
    return [left.index(merged.get(token, token)) for token in range(len(keys))]


@pytest.mark.parametrize("num_prefix", [0, 1, 2])
@pytest.mark.parametrize(("num_patches", "num_merged"), [(16, 1), (16, 8), (15, 7), (9, 3)])
def test_matching_is_that_of_loops(num_prefix, num_patches, num_merged):
    generator = torch.Generator().manual_seed(num_patches)
    keys = torch.randn(3, num_prefix + num_patches, 4, generator=generator, dtype=torch.float64)
    expected = [slow_places(image, num_merged, num_prefix) for image in keys]
    assert match(keys, num_merged, num_prefix).tolist() == expected


def test_equal_tokens_are_settled_by_position():
    places = match(torch.ones(1, 9, 4), 2, 1)
    assert places.tolist() == [slow_places(torch.ones(9, 4), 2, 1)]


def test_merged_tokens_are_means_weighted_by_size():
    tokens, sizes = torch.randn(1, 4, 3), torch.tensor([[1.0, 3.0, 2.0, 1.0]])
    merged, totals = merge(tokens, sizes, torch.tensor([[0, 1, 1, 2]]), 3)
    expected = (3 * tokens[0, 1] + 2 * tokens[0, 2]) / 5
    torch.testing.assert_close(merged[0], torch.stack([tokens[0, 0], expected, tokens[0, 3]]))
    assert totals.tolist() == [[1.0, 5.0, 1.0]]


def test_proportional_attention_counts_a_key_once_per_patch_behind_it():
    """Three equal tokens as one of size 3 give what the three give one by one."""
    torch.manual_seed(0)
    attention = ProportionalAttention(8, 2, Sequence((3, 3)))
    tokens = torch.randn(1, 4, 8)
    repeated = tokens[:, [0, 1, 1, 1, 2, 3, 3]]
    mixed, _ = attention(tokens, torch.tensor([[1.0, 3.0, 1.0, 2.0]]))
    expected, _ = attention(repeated)
    torch.testing.assert_close(mixed, expected[:, [0, 1, 4, 5]])


def test_a_block_without_merging_is_timms():
    ours, theirs = block(0), Block(16, 2, qkv_bias=True)
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(2, 17, 16)
    mixed, sizes, places = ours(tokens)
    torch.testing.assert_close(mixed, theirs(tokens))
    assert (sizes, places) == (None, None)


def test_a_model_without_merging_is_timms():
    torch.manual_seed(0)
    ours = ToMeViT(64, kept=1.0, **SMALL).eval()
    theirs = VisionTransformer(64, no_embed_class=True, **SMALL).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))
    options = {"indices": [0, 2], "norm": True, "return_prefix_tokens": True}
    torch.testing.assert_close(
        ours.forward_intermediates(images, **options), theirs.forward_intermediates(images, **options)
    )


@pytest.mark.parametrize("num_prefix", [0, 1, 2])
def test_patches_are_conserved_and_prefix_tokens_stay_first(num_prefix):
    tokens, sizes, places = torch.randn(2, 16 + num_prefix, 16), None, None
    for left in (13, 10, 7, 4, 2, 1):
        tokens, sizes, places = block(3, num_prefix)(tokens, sizes, places)
        assert tokens.shape[1] == left + num_prefix
        assert sizes.sum(1).tolist() == [16.0 + num_prefix] * 2
        assert sizes[:, :num_prefix].eq(1).all()
        assert places[:, :num_prefix].tolist() == [list(range(num_prefix))] * 2


def test_the_way_back_to_the_grid_is_that_of_sets_of_patches():
    """Every block's merging followed with sets of original tokens, one image at a time."""
    torch.manual_seed(0)
    model = ToMeViT(128, kept=0.3, **SMALL).eval()
    images = torch.randn(2, 3, 128, 128)
    found: list[list[list[int]]] = []
    with torch.no_grad():
        maps = model.forward_intermediates(images, intermediates_only=True)
        states = list(model.states(images, model.blocks))
        inputs = [model._pos_embed(model.patch_embed(images)), *(state.tokens for state in states[:-1])]
        sizes = [None, *(state.sizes for state in states[:-1])]
        for unit, tokens, size in zip(model.blocks, inputs, sizes, strict=True):
            keys = unit.attn(unit.norm1(tokens), size)[1]
            found.append([slow_places(image, unit.num_merged, 1) for image in keys])
    for image in range(2):
        groups: list[set[int]] = [{token} for token in range(65)]
        for depth, state in enumerate(states):
            places = found[depth][image]
            groups = [set().union(*(g for g, p in zip(groups, places, strict=True) if p == new)) for new in range(max(places) + 1)]  # fmt: skip  # noqa: E501
            assert state.sizes[image].tolist() == [len(group) for group in groups]
            for patch in range(64):
                token = next(index for index, group in enumerate(groups) if patch + 1 in group)
                assert torch.equal(maps[depth][image, :, patch // 8, patch % 8], state.tokens[image, token])


def test_spread_without_merging_is_the_tokens_themselves():
    tokens = torch.randn(1, 3, 2)
    assert spread(tokens, None) is tokens
    assert torch.equal(spread(tokens, torch.tensor([[0, 2, 2, 1]])), tokens[:, [0, 2, 2, 1]])


def closed_form(tokens: int, merged: int, depth: int, width: int, num_heads: int) -> int:
    """Multiply-adds of the blocks, from the number of tokens (with class token) that each has."""
    total = 0
    for _ in range(depth):
        half_a, patches = (tokens - 1) // 2, tokens - 1
        pairs = min(merged, patches // 2)
        total += 4 * tokens * width**2 + 2 * tokens**2 * width
        total += half_a * (patches - half_a) * width // num_heads
        tokens -= pairs
        total += 8 * tokens * width**2
    return total


@pytest.mark.parametrize("side", [224, 512, 1024])
@pytest.mark.parametrize("kept", [0.5, 0.25])
def test_cost_in_closed_form_with_static_shapes(side, kept):
    with torch.device("meta"):
        model = ToMeViT(side, embed_dim=192, num_heads=3, num_classes=0, kept=kept).eval()
    patches = (side // 16) ** 2
    merged = round((1 - kept) * patches / 12)
    counted = count(model.forward_features, torch.empty(1, 3, side, side, device="meta"))
    assert counted.macs == patches * 3 * 256 * 192 + closed_form(patches + 1, merged, 12, 192, 3)
    assert counted.complete
    assert not {"aten.nonzero", "aten.masked_select", "aten.item"} & counted.ops_seen.keys()


def test_the_papers_number_at_224_and_the_same_share_at_every_resolution():
    register()
    for name, expected in (("tiny", 8), ("large", 4)):
        with torch.device("meta"):
            model = timm.create_model(f"tome_vit_{name}_patch16_224")
        assert {unit.num_merged for unit in model.blocks} == {expected}
    with torch.device("meta"):
        thirteen = timm.create_model("tome_vit_small_patch16_224", kept=0.2)
        model = ToMeViT(1024, **SMALL | {"depth": 12})
    assert {unit.num_merged for unit in thirteen.blocks} == {13}
    assert {unit.num_merged for unit in model.blocks} == {171}


def test_sizes_survive_bfloat16():
    """Above 256 bfloat16 cannot count patches one by one."""
    tokens = torch.zeros(1, 1024, 8, dtype=torch.bfloat16)
    merged, sizes = merge(tokens, torch.ones(1, 1024), torch.arange(1024).clamp_max(1)[None], 2)
    assert sizes.tolist() == [[1.0, 1023.0]]
    assert merged.dtype == torch.bfloat16


def test_masks_are_refused():
    with pytest.raises(ValueError, match="merged tokens take no attention mask"):
        ToMeViT(64, **SMALL)(torch.zeros(1, 3, 64, 64), is_causal=True)


def test_attention_without_sizes_is_softmax_attention():
    attention = ProportionalAttention(8, 2, Sequence((3, 3)))
    tokens = torch.randn(2, 9, 8)
    queries, keys, values = (part.reshape(2, 9, 2, 4).transpose(1, 2) for part in attention.qkv(tokens).chunk(3, -1))
    mixed = scaled_dot_product_attention(queries, keys, values).transpose(1, 2).reshape(2, 9, 8)
    torch.testing.assert_close(attention(tokens)[0], attention.proj(mixed))
    torch.testing.assert_close(attention(tokens)[1], keys.mean(1))
