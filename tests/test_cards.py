"""Cards: all shipped ones hold against timm, and a wrong one is refused with what to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import timm

from luma_cli import files
from luma_cli.catalogue import cards
from luma_cli.catalogue.pretraining import load_objectives
from luma_cli.catalogue.rules import load_rules, multiple_of, parse_model_rule
from luma_cli.catalogue.spec import Family
from luma_cli.catalogue.timm_index import load_index
from luma_cli.errors import BadCard

SHIPPED = cards.read_cards(files.root() / "models")
EVERY_CARD = pytest.mark.parametrize("card", SHIPPED.values(), ids=SHIPPED.keys())
BENCHMARK = {"supervised_in1k", "supervised_in21k", "deit3", "mae", "beitv2", "dino", "dinov2", "dinov3", "eva02"}
BENCHMARK |= {"clip", "siglip2", "sam", "ijepa"}
GOOD = """
name = "mine"
title = "Mine"
family = "isotropic"
token_mixer = "attention"
licence = "mit"
sources = ["https://example.org/paper"]

[aliases]
mae_mine = "b.mae"

[sizes.b]
timm = "vit_base_patch16_224"
aliases = ["mine_base"]
variants = ["vit_base_patch16_384"]
[sizes.b.pretraining]
mae = "mae"
dinov3 = "vit_base_patch16_dinov3.lvd1689m"
ijepa = "none"
"""


def write_card(folder: Path, text: str = GOOD, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


@EVERY_CARD
def test_every_tag_of_a_shipped_card_is_in_timm(card: cards.Card) -> None:
    cards.check_against(card, load_index())


@EVERY_CARD
def test_a_shipped_card_says_where_it_comes_from(card: cards.Card) -> None:
    assert card.title
    assert card.licence
    assert card.token_mixer
    assert len(card.sources) >= 2
    assert all(re.fullmatch(r"https://[^\s]+", source) for source in card.sources)
    assert any("arxiv.org" in source for source in card.sources)
    parse_model_rule(card.rule, card.name)


@EVERY_CARD
def test_a_shipped_card_says_what_happens_at_other_resolutions(card: cards.Card) -> None:
    assert re.fullmatch(r"[A-Z].{20,}\.", card.resizing), f"models/{card.name}.toml: write a sentence in `resizing`"


@pytest.mark.parametrize("card", [card for card in SHIPPED.values() if not card.rule], ids=lambda card: card.name)
def test_the_sides_that_a_card_states_are_those_of_the_rules(card: cards.Card) -> None:
    stated = set(map(int, re.findall(r"\d+", (re.findall(r"multiples of ([^.;]+)", card.resizing) or [""])[-1])))
    for architecture in (one for size in card.sizes.values() for one in size.chosen):
        entry = load_index().entries[architecture]
        rule = load_rules().build_rule(entry.module, architecture, {})
        assert not stated or multiple_of(rule, architecture) in stated, architecture


@EVERY_CARD
def test_a_tag_that_timm_lacks_is_caught_in_every_card(card: cards.Card) -> None:
    for size in card.sizes.values():
        for objective, timm_name in size.pretraining.items():
            wrong = replace(size, pretraining={**size.pretraining, objective: f"{timm_name or size.timm}_x"})
            with pytest.raises(BadCard, match=f"card {card.name}: timm .* has no (tag|architecture)"):
                cards.check_against(replace(card, sizes={**card.sizes, size.name: wrong}), load_index())


@EVERY_CARD
def test_timms_own_registry_has_every_tag_of_a_shipped_card(card: cards.Card) -> None:
    for timm_name in filter(None, (name for size in card.sizes.values() for name in size.pretraining.values())):
        config = timm.get_pretrained_cfg(timm_name, allow_unregistered=False)
        assert config is not None, timm_name
        assert config.has_weights, timm_name


@EVERY_CARD
def test_every_size_of_a_shipped_card_has_a_pretraining(card: cards.Card) -> None:
    assert all(size.pretraining for size in card.sizes.values())


@EVERY_CARD
def test_a_spelling_that_timm_has_too_means_the_same_architecture(card: cards.Card) -> None:
    for spelling, size, objective in cards.spellings(card):
        if load_index().has(spelling):
            assert card.sizes[size].timm == spelling
            assert not objective


def test_no_two_shipped_cards_share_a_spelling_or_a_base_architecture() -> None:
    cards.check_spellings(SHIPPED.values())
    bases = [size.timm for card in SHIPPED.values() for size in card.sizes.values()]
    assert len(bases) == len(set(bases))


def test_no_architecture_belongs_to_two_sizes() -> None:
    owned = [one for card in SHIPPED.values() for size in card.sizes.values() for one in size.architectures]
    assert sorted(owned) == sorted(set(owned))


def test_the_cards_cover_what_the_benchmark_holds() -> None:
    assert len(SHIPPED) >= 30
    assert {card.family for card in SHIPPED.values()} == set(get_args(Family)) - {"unknown"}
    released = {spec.pretraining for spec in cards.candidates() if spec.public_weights}
    assert released >= BENCHMARK
    assert {spec.pretraining for spec in cards.candidates()} <= set(load_objectives())


def test_candidates_without_public_weights_say_so() -> None:
    by_name = {spec.name: spec for spec in cards.candidates()}
    assert not by_name["vit_b.ijepa"].public_weights
    assert by_name["vit_b.ijepa"].timm_name == "vit_base_patch16_224"
    assert by_name["vit_b.mae"].public_weights
    assert by_name["vit_b.mae"].licence == "cc-by-nc-4.0"
    assert all(bool(spec.tag) == spec.public_weights for spec in by_name.values())


def test_a_card_is_read_as_written(tmp_path: Path) -> None:
    card = cards.read_card(write_card(tmp_path))
    size = card.sizes["b"]
    assert card.aliases == {"mae_mine": "b.mae"}
    assert size.pretraining == {
        "mae": "vit_base_patch16_224.mae",
        "dinov3": "vit_base_patch16_dinov3.lvd1689m",
        "ijepa": "",
    }
    assert size.chosen == ("vit_base_patch16_224", "vit_base_patch16_dinov3")
    assert size.architectures == ("vit_base_patch16_224", "vit_base_patch16_dinov3", "vit_base_patch16_384")
    cards.check_against(card, load_index())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_mixer": "token_mixr"}, "unknown key 'token_mixr'; did you mean 'token_mixer'"),
        ({"variants": "varients"}, r"\[sizes.b\]: unknown key 'varients'; did you mean 'variants'"),
        ({'"isotropic"': '"isotropc"'}, "unknown family 'isotropc'; did you mean 'isotropic'"),
        ({"mae = ": "mea = "}, "unknown objective 'mea'; did you mean 'mae'"),
        ({'name = "mine"': 'name = "other"'}, "expected 'mine'"),
        ({'family = "isotropic"\n': ""}, "family is missing"),
        ({'timm = "vit_base_patch16_224"\n': ""}, "timm is missing"),
        ({'["mine_base"]': '"mine_base"'}, "expected a list of texts"),
        ({'["mine_base"]': "[1]"}, "expected a list of texts"),
        ({'mae = "mae"': "mae = 3"}, "tag 3 is not text"),
        ({'"b.mae"': '"b.clip"'}, "alias 'mae_mine' means 'b.clip'"),
        ({'"b.mae"': '"l"'}, "alias 'mae_mine' means 'l'"),
        ({"[aliases]": '[rule]\ntapp = "blocks.-1"\n\n[aliases]'}, r"\[rule\]: unknown key 'tapp'; did you mean 'tap'"),
        ({"[sizes.b]": "[sizes.b"}, "mine.toml: .*line"),
    ],
)
def test_a_wrong_card_is_refused_in_one_line(tmp_path: Path, change: Mapping[str, str], message: str) -> None:
    text = GOOD
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new, 1)
    with pytest.raises(BadCard, match=message) as caught:
        cards.read_card(write_card(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"vit_base_patch16_224"', '"vit_base_patch16_225"', "no architecture 'vit_base_patch16_225'; did you mean"),
        ('mae = "mae"', 'mae = "mea"', "no tag 'mea' for vit_base_patch16_224; did you mean 'mae'"),
        ('"vit_base_patch16_384"', '"vit_base_patch16_38"', "no architecture 'vit_base_patch16_38'"),
    ],
)
def test_a_users_card_is_checked_against_timm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    write_card(tmp_path, GOOD.replace(old, new, 1))
    monkeypatch.setenv("LUMA_MODELS", str(tmp_path))
    with pytest.raises(BadCard, match=message):
        cards.load_cards()


def test_a_users_card_of_models_that_timm_lacks_is_taken_when_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GOOD.replace('licence = "mit"', 'licence = "mit"\nregistered = true').replace(
        "vit_base_patch16_224", "own_net"
    )
    write_card(tmp_path, text)
    monkeypatch.setenv("LUMA_MODELS", str(tmp_path))
    spec = next(spec for spec in cards.candidates() if spec.name == "mine_b.mae")
    assert (spec.source, spec.architecture, spec.tag) == ("import", "own_net", "mae")


def test_a_users_card_needs_no_resizing_and_its_pretraining_without_weights_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_card(tmp_path, GOOD.replace("[sizes.b.pretraining]", '[sizes.b.pretraining]\ndino = "none"'))
    monkeypatch.setenv("LUMA_MODELS", str(tmp_path))
    assert cards.load_cards()["mine"].resizing == ""
    public = {spec.pretraining: spec.public_weights for spec in cards.candidates() if spec.card == "mine"}
    assert public == {"mae": True, "dinov3": True, "ijepa": False, "dino": False}


@pytest.mark.parametrize("alias", ["vit_b", "vit_base", "dinov3_b"])
def test_an_alias_that_another_card_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alias: str) -> None:
    write_card(tmp_path, GOOD.replace("mine_base", alias))
    monkeypatch.setenv("LUMA_MODELS", str(tmp_path))
    with pytest.raises(BadCard, match=f"'{alias}' .* choose another"):
        cards.load_cards()


def test_a_folder_of_cards_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMA_MODELS", str(tmp_path / "nowhere"))
    with pytest.raises(BadCard, match="no folder of cards; set LUMA_MODELS"):
        cards.load_cards()
