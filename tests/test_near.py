"""Near spellings: the distance against its definition, and the misspellings that people type."""

from __future__ import annotations

import time
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.catalogue.reading import distance, nearest

SIZES = [
    "vit_t",
    "vit_s",
    "vit_b",
    "vit_l",
    "swin_t",
    "swinv2_t",
    "convnext_b",
    "convnextv2_b",
    "gcvit_base",
    "davit_b",
]
short = st.text(alphabet="ab_1", max_size=6)


def by_definition(left: str, right: str) -> int:
    """Optimal string alignment, straight from its recursion."""

    @cache
    def edits(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        best = min(edits(i - 1, j) + 1, edits(i, j - 1) + 1, edits(i - 1, j - 1) + (left[i - 1] != right[j - 1]))
        if i > 1 and j > 1 and left[i - 1] == right[j - 2] and left[i - 2] == right[j - 1]:
            best = min(best, edits(i - 2, j - 2) + 1)
        return best

    return edits(len(left), len(right))


@given(short, short)
def test_distance_is_that_of_the_definition(left: str, right: str) -> None:
    assert distance(left, right) == by_definition(left, right) == distance(right, left)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("vit_bb", "vit_b"), ("vti_b", "vit_b"), ("swn_t", "swin_t"), ("convnet_b", "convnext_b"), ("VIT_B16", "vit_b")],
)
def test_the_nearest_is_what_was_meant(typed: str, meant: str) -> None:
    assert nearest(typed, SIZES)[0] == meant


def test_another_family_is_not_near() -> None:
    assert "gcvit_base" not in nearest("vit_b", SIZES)
    assert nearest("qqqq", SIZES) == []
    assert nearest("", SIZES) == []


@given(st.text(max_size=12), st.lists(st.text(min_size=1, max_size=8), max_size=8, unique=True), st.integers(0, 5))
def test_nearest_is_bounded_and_finds_the_spelling_itself(typed: str, known: list[str], limit: int) -> None:
    found = nearest(typed, known, limit)
    assert len(found) <= limit
    assert set(found) <= set(known)
    if typed in known and typed == typed.lower() and limit:
        assert typed in nearest(typed, known, len(known))


def test_an_owner_before_a_slash_hides_no_name():
    known = ["tome_vit_base_patch16_224", "vit_base_patch16_224"]
    assert nearest("timm/vit_base_patch16_224", known)[0] == "vit_base_patch16_224"
    assert nearest("vit_b/32", SIZES)[0] == "vit_b"


def test_what_is_no_name_costs_nothing() -> None:
    """Bounded: thousands of characters took a minute."""
    start = time.process_time()
    for text in ("x" * 5000, "vit_" * 1200, "v" * 99, "swin_" * 19):
        nearest(text, SIZES * 200)
    assert time.process_time() - start < 2
