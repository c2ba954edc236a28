"""The text of blocks in the cost table: what is written is read back, and equal neighbours share a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.catalogue.costs import Block, format_blocks, parse_blocks

NUMBERS = st.integers(1, 10**9)


@st.composite
def blocks(draw) -> Block:
    width, num_tokens, ffn_macs = draw(NUMBERS), draw(NUMBERS), draw(st.integers(0, 10**9))
    width_in, num_tokens_in = draw(st.sampled_from([(width, num_tokens), (0, 0), (draw(NUMBERS), draw(NUMBERS))]))
    return Block(width, num_tokens, width_in, num_tokens_in, ffn_macs, lends_ffn=ffn_macs > 0)


@given(st.lists(blocks(), max_size=6), st.integers(1, 3))
def test_what_is_written_is_read_back(found, repeats):
    wanted = tuple(block for block in found for _ in range(repeats))
    assert parse_blocks(format_blocks(wanted)) == wanted


def test_the_text_is_the_documented_one():
    last, before = Block(1024, 256, 1024, 256, 8, True), Block(512, 1024, 256, 4096)
    assert format_blocks([last, last, before]) == "1024x256x8*2 512x1024x0<256x4096*1"


def test_no_block_is_told_from_no_answer():
    assert format_blocks([]) == "none"
    assert parse_blocks("none") == parse_blocks("") == ()


@pytest.mark.parametrize("text", ["64", "64x16*2", "axbxc*1", "64x16x8<3*1", "64x16x8"])
def test_another_text_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_blocks(text)
