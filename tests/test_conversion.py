"""What is told of a checkpoint's way into a model: sizes before and after, names, values, and what stayed out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from luma_cli.backbone.weights import conversions


def told(file: dict[str, Tensor], loaded: dict[str, Tensor]) -> tuple[str, ...]:
    return conversions(file, loaded, "bicubic")


@pytest.mark.parametrize(
    ("key", "old", "new", "text"),
    [
        ("patch_embed.proj.weight", (8, 3, 14, 14), (8, 3, 16, 16), "patch 14 -> 16 by resampling"),
        ("pos_embed", (1, 197, 8), (1, 1025, 8), "position embedding 14 x 14 -> 32 x 32 by bicubic resampling"),
        ("pos_embed", (1, 1369, 8), (1, 1024, 8), "position embedding 37 x 37 -> 32 x 32 by bicubic resampling"),
        ("pos_embed", (1, 64, 64, 8), (1, 32, 32, 8), "position embedding 64 x 64 -> 32 x 32 by bicubic resampling"),
        ("pos_embed", (1, 1374, 8), (1, 1024, 8), "position embedding 1374 -> 1024 tokens by bicubic resampling"),
        (
            "blocks.0.attn.relative_position_bias_table",
            (732, 2),
            (3972, 2),
            "1 table of relative positions resampled, 27 x 27 -> 63 x 63",
        ),
        (
            "blocks.0.attn.rel_pos.relative_position_bias_table",
            (2, 13, 13),
            (2, 31, 31),
            "1 table of relative positions resampled, 13 x 13 -> 31 x 31",
        ),
        ("blocks.0.attn.rel_pos_h", (127, 8), (63, 8), "1 table of relative positions resampled, 127 -> 63"),
        ("gate.weight", (8, 4), (8, 5), "gate.weight [8, 4] -> [8, 5]"),
    ],
)
def test_a_size_is_told_before_and_after(key: str, old: tuple[int, ...], new: tuple[int, ...], text: str) -> None:
    assert told({key: torch.ones(old)}, {key: torch.ones(new)}) == (text,)


def test_tables_of_many_sizes_are_one_text() -> None:
    file = {f"blocks.{i}.attn.rel_pos_h": torch.ones(10 + i, 2) for i in range(6)}
    loaded = {f"blocks.{i}.attn.rel_pos_h": torch.ones(20 + i, 2) for i in range(6)}
    (text,) = told(file, loaded)
    assert text == "6 tables of relative positions resampled, 10 -> 20, 11 -> 21, 12 -> 22, 13 -> 23 and 2 more"


def test_a_renamed_tensor_is_found_by_its_memory_and_by_its_tail() -> None:
    tokens, positions = torch.randn(1, 4, 8), torch.randn(1, 5, 8)
    file = {"register_tokens": tokens, "visual.pos_embed": positions}
    assert told(file, {"reg_token": tokens, "pos_embed": torch.randn(1, 10, 8)}) == (
        "position embedding 2 x 2 -> 3 x 3 by bicubic resampling",
        "keys renamed: register_tokens -> reg_token, visual.pos_embed -> pos_embed",
    )


def test_other_values_under_the_same_name_are_told() -> None:
    token = torch.randn(1, 1, 8)
    assert told({"cls_token": token}, {"cls_token": token + 1}) == ("values converted: cls_token",)
    assert told({"cls_token": token}, {"cls_token": token.clone()}) == ()


def test_what_stays_out_is_told_by_its_part_and_index_tables_are_not() -> None:
    file = {
        "head.weight": torch.ones(2),
        "head.bias": torch.ones(2),
        "mask_token": torch.ones(1),
        "relative_position_index": torch.ones(4, dtype=torch.int64),
    }
    assert told(file, {}) == ("left out, as the map needs none of it: head, mask_token",)


def test_a_linear_layer_written_as_a_convolution_is_no_change() -> None:
    weight = torch.randn(4, 3)
    assert told({"fc.weight": weight}, {"fc.weight": weight.reshape(4, 3, 1, 1)}) == ()
