"""Names: every spelling means what it says, and nothing is ever taken for something near it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luma_cli.catalogue import cards, names
from luma_cli.catalogue.cards import card_names, meanings
from luma_cli.catalogue.names import expand, near_names
from luma_cli.catalogue.pretraining import objective_named
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.catalogue.timm_index import load_index
from luma_cli.errors import UnknownName

TIMM_NAMES = sorted(load_index().entries)
CARD_NAMES = sorted(card_names())


@pytest.mark.parametrize(
    ("name", "shown", "timm_name", "pretraining"),
    [
        ("vit_b", "vit_b", "vit_base_patch16_224", ""),
        ("vit_base", "vit_b", "vit_base_patch16_224", ""),
        ("ViT-B", "vit_b", "vit_base_patch16_224", ""),
        ("ViT-B/16", "vit_b", "vit_base_patch16_224", ""),
        ("ViT-Ti/16", "vit_t", "vit_tiny_patch16_224", ""),
        ("ViT-L/14.clip", "vit_l.clip", "vit_large_patch14_clip_quickgelu_224.openai", "clip"),
        (" swin_t ", "swin_t", "swin_tiny_patch4_window7_224", ""),
        ("convnext_b", "convnext_b", "convnext_base", ""),
        ("vit_b.dinov3", "vit_b.dinov3", "vit_base_patch16_dinov3.lvd1689m", "dinov3"),
        ("dinov3_b", "vit_b.dinov3", "vit_base_patch16_dinov3.lvd1689m", "dinov3"),
        ("vit_b.in1k", "vit_b.supervised_in1k", "vit_base_patch16_224.augreg_in1k", "supervised_in1k"),
        ("vit_b.lvd142m", "vit_b.dinov2", "vit_base_patch14_reg4_dinov2.lvd142m", "dinov2"),
        ("convnext_b.fb_in22k", "convnext_b.supervised_in21k", "convnext_base.fb_in22k", "supervised_in21k"),
        ("vit_b.sam_in1k", "vit_base_patch16_224.sam_in1k", "vit_base_patch16_224.sam_in1k", "supervised_in1k"),
        ("vit_b.datacompxl", "vit_base_patch16_clip_224.datacompxl", "vit_base_patch16_clip_224.datacompxl", "clip"),
        ("convnext_base", "convnext_base", "convnext_base", ""),
        ("convnext_base.fb_in22k", "convnext_base.fb_in22k", "convnext_base.fb_in22k", "supervised_in21k"),
        ("efficientvit_b1", "efficientvit_b1", "efficientvit_b1", ""),
    ],
)
def test_a_name_means(name: str, shown: str, timm_name: str, pretraining: str) -> None:
    spec = names.resolve(name)
    assert (spec.name, spec.timm_name, spec.pretraining) == (shown, timm_name, pretraining)
    assert f"{spec.architecture}.{spec.tag}".rstrip(".") == timm_name
    assert spec.card


def test_a_tag_listed_by_a_card_brings_the_facts_of_its_card() -> None:
    by_tag = names.resolve("vit_base_patch16_dinov3.lvd1689m")
    by_card = names.resolve("vit_b.dinov3")
    assert (by_tag.card, by_tag.size, by_tag.family) == ("vit", "b", "isotropic")
    assert by_tag.pretraining == by_card.pretraining
    assert by_tag.licence == by_card.licence == "dinov3-license"


def test_a_variant_belongs_to_its_card_size() -> None:
    spec = names.resolve("swin_base_patch4_window12_384.ms_in22k")
    assert (spec.card, spec.size, spec.pretraining) == ("swin", "b", "supervised_in21k")


def test_a_timm_model_without_card_takes_its_family_from_the_rules() -> None:
    spec = names.resolve("test_vit")
    assert (spec.card, spec.family, spec.source) == ("", "isotropic", "timm")


def test_a_deprecated_name_means_its_successor() -> None:
    spec = names.resolve("vit_base_patch16_224_in21k")
    assert spec.name == spec.timm_name == "vit_base_patch16_224.augreg_in21k"


def test_every_card_name_resolves_to_its_card() -> None:
    for name in CARD_NAMES:
        stem, _, objective = name.partition(".")
        meaning, spec = meanings()[stem], names.resolve(name)
        assert (spec.card, spec.size) == (meaning.card.name, meaning.size.name)
        assert spec.pretraining == (objective or meaning.objective)


def test_every_candidate_resolves_from_its_own_name_to_itself() -> None:
    for spec in cards.candidates():
        assert names.resolve(spec.name) == spec


def test_every_timm_name_and_tag_resolves_to_itself() -> None:
    for architecture, entry in load_index().entries.items():
        assert names.resolve(architecture).architecture == architecture
        for tag, licence in entry.tags.items():
            spec = names.resolve(f"{architecture}.{tag}")
            assert spec.timm_name == f"{architecture}.{tag}"
            assert not licence or spec.licence == licence


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_b16", "did you mean vit_b, "),
        ("convnext_bse", "did you mean convnext_b, "),
        ("swn_t", "did you mean swin_t"),
        ("vit_bb.dinov3", "vit_b.dinov3"),
        ("timm/vit_base_patch16_224", "did you mean vit_base_patch16_224"),
        ("vit_base_patch16_24", "did you mean vit_base_patch16_224"),
        ("nonsense", "see `luma list`"),
        ("vit_b.dinov9", "no pretraining or tag 'dinov9'; it has vit_b.dinov2, vit_b.dinov3, vit_b.dino, .*vit_b.clip"),
        ("vit_s.sam", "sam exists for vit_b.sam, vit_l.sam, vit_h.sam"),
        ("vit_s.ijepa", "ijepa exists for vit_h.ijepa, vit_g.ijepa$"),
        ("vit_b.", "needs a pretraining after its dot"),
        ("dinov3_b.mae", "already means vit_b.dinov3; for another pretraining type vit_b.PRETRAINING"),
        ("vit", "is a family; choose a size: vit_t, vit_s"),
        ("", "needs a name"),
        ("   ", "needs a name"),
        ("vit_base_patch16_224.mea", "no weights 'mea' .* vit_base_patch16_224.mae"),
        ("coatnet_0_224.untrained", "it has none, type coatnet_0_224 alone"),
        ("hf-hub:", "names no repository"),
        ("hf-hub:somebody", "names no repository"),
    ],
)
def test_an_unknown_name_gets_one_line_with_what_to_type(name: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message) as caught:
        names.resolve(name)
    assert "\n" not in str(caught.value)


def test_a_tag_of_several_variants_is_ambiguous() -> None:
    with pytest.raises(UnknownName, match=r"ambiguous; type one of .*_tipsv2.webli, .*siglip_224.webli, "):
        names.resolve("vit_b.webli")


def test_at_most_five_near_names_cards_first() -> None:
    near = near_names("convnext_bas")
    assert len(near) == 5
    assert near[0] == "convnext_b"
    kinds = [name in CARD_NAMES for name in near]
    assert kinds == sorted(kinds, reverse=True)


def test_hub_and_folder_sources(tmp_path: Path) -> None:
    hub = names.resolve("hf-hub:timm/vit_base_patch16_224.mae")
    assert (hub.timm_name, hub.architecture, hub.source) == (
        "hf-hub:timm/vit_base_patch16_224.mae",
        "vit_base_patch16_224",
        "hf-hub",
    )
    assert names.resolve("hf-hub:somebody/vit_base_patch16_224.mae").pretraining == ""
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit"}), encoding="utf-8")
    local = names.resolve(f"local-dir:{tmp_path}")
    assert (local.architecture, local.source, local.family) == ("test_vit", "local-dir", "isotropic")


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"architecture": 3}'])
def test_a_folder_without_architecture_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(UnknownName, match=r"expected a folder with the config.json and model.safetensors"):
        names.resolve(f"local-dir:{tmp_path}")


def test_names_registered_by_imported_code() -> None:
    spec = names.resolve("own_net", imported=True)
    assert spec == BackboneSpec("own_net", "own_net", "own_net", public_weights=False, source="import")
    assert names.resolve("vit_b", imported=True).source == "timm"
    with pytest.raises(UnknownName):
        names.resolve("own_*", imported=True)


def test_globs_keep_the_order_and_drop_duplicates() -> None:
    specs = names.expand(["swin_t", "convnext_?", "swin_*", "swin_t"])
    shown = [spec.name for spec in specs]
    assert shown[:5] == ["swin_t", "convnext_t", "convnext_s", "convnext_b", "convnext_l"]
    assert len(shown) == len(set(shown))
    assert "swin_tiny_patch4_window7_224" not in shown
    assert "swin_s3_tiny_224" in shown


def test_a_glob_for_a_pretraining_finds_it_in_every_card() -> None:
    shown = [spec.name for spec in names.expand(["*dinov3*"])]
    assert {"vit_b.dinov3", "convnext_b.dinov3", "vit_base_patch16_dinov3_qkvb"} <= set(shown)
    assert "vit_base_patch16_dinov3" not in shown


def test_a_glob_with_a_dot_matches_full_names_only() -> None:
    specs = names.expand(["vit_?.mae"])
    assert [spec.name for spec in specs] == ["vit_s.mae", "vit_b.mae", "vit_l.mae", "vit_h.mae"]
    tags = [spec.name for spec in names.expand(["*.lvd1689m"])]
    assert "vit_base_patch16_dinov3.lvd1689m" in tags


def test_a_star_is_all_of_timm_once() -> None:
    specs = names.expand(["*"])
    assert {spec.architecture for spec in specs} == set(TIMM_NAMES)
    assert len(specs) == len(TIMM_NAMES)


def test_a_glob_that_matches_nothing_is_unknown() -> None:
    with pytest.raises(UnknownName, match=r"no card and no timm name matches 'convnxt\*'; did you mean convnext_b"):
        names.expand(["vit_b", "convnxt*"])


def test_completion_comes_from_cards() -> None:
    assert names.complete("convnextv2_") == [
        f"convnextv2_{s}" for s in ("atto", "b", "femto", "h", "l", "nano", "pico", "s", "t")
    ]
    assert "vit_b.dinov3" in names.complete("vit_b.")
    assert names.complete("vit_b.dinov") == ["vit_b.dinov2", "vit_b.dinov3"]
    assert names.complete("xyz") == []


known = st.sampled_from(CARD_NAMES + TIMM_NAMES)


@given(st.sampled_from(["hf-hub:", "local-dir:"]), st.text(max_size=20))
def test_any_source_resolves_to_itself_or_is_unknown_in_one_line(prefix: str, place: str) -> None:
    try:
        spec = names.resolve(prefix + place)
    except UnknownName as error:
        told = str(error)
    else:
        told = ""
        assert spec.timm_name == (prefix + place).strip()
        assert spec.source == prefix.rstrip(":")
    assert len(told.splitlines()) <= 1


def assert_exact(typed: str, spec: BackboneSpec) -> None:
    """`spec` is what `typed` spells, letter by letter: its stem is a known one, its suffix a tag or objective there."""
    typed = load_index().replaced.get(typed, typed)
    stem, _, suffix = typed.partition(".")
    if spec.source != "timm":
        assert typed == spec.timm_name
    elif load_index().has(typed) and stem not in meanings():
        assert spec.timm_name == typed
    else:
        meaning = meanings()[stem if stem in meanings() else stem.lower().replace("-", "_")]
        assert (spec.card, spec.size) == (meaning.card.name, meaning.size.name)
        wanted = objective_named(suffix.lower().replace("-", "_"))
        assert not suffix or (wanted.name if wanted else suffix) in (spec.pretraining, spec.tag)
        assert suffix or spec.pretraining == meaning.objective


@given(st.one_of(st.text(max_size=40), st.from_regex(r"[a-z0-9_.\-*:/]{1,30}", fullmatch=True)))
def test_any_text_resolves_exactly_or_is_unknown(text: str) -> None:
    try:
        spec = names.resolve(text)
    except UnknownName:
        return
    assert_exact(text.strip(), spec)


@settings(max_examples=40)
@given(known, st.integers(0, 60), st.sampled_from("abxz019_.-B"), st.sampled_from(["replace", "drop", "insert"]))
def test_a_misspelt_name_means_exactly_what_it_spells_or_nothing(name: str, place: int, letter: str, how: str) -> None:
    place %= len(name)
    typed = name[:place] + ("" if how == "drop" else letter) + name[place + (how != "insert") :]
    try:
        spec = names.resolve(typed)
    except UnknownName:
        return
    assert_exact(typed, spec)


@given(st.lists(known, max_size=6))
def test_expanding_names_is_resolving_each_once(chosen: list[str]) -> None:
    specs = names.expand(chosen)
    keys = [(spec.timm_name, spec.pretraining) for spec in specs]
    assert len(keys) == len(set(keys))
    assert {spec.timm_name for spec in specs} == {names.resolve(name).timm_name for name in chosen}


def test_an_unknown_name_is_answered_quickly() -> None:
    start = time.perf_counter()
    near_names("vit_base_patch16_siglip_224.v3_webli")
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("name", ["ViT-L/14", "vit_b/32", "ViT-B/", "ViT/16"])
def test_a_patch_that_the_size_has_not_is_unknown(name: str) -> None:
    with pytest.raises(UnknownName):
        names.resolve(name)


def test_a_pattern_longer_than_any_name() -> None:
    with pytest.raises(UnknownName, match="a pattern of 3,000 characters, expected at most 100"):
        expand(["[" * 3000])
