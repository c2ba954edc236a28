"""Cards: one TOML file per backbone family in `models/`; docs/reference/cards.md describes the format.

A user's own cards lie in the folder named by `$LUMA_MODELS` and may replace shipped ones of the same name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar, get_args

from luma_cli import files
from luma_cli.catalogue.pretraining import check_objective
from luma_cli.catalogue.reading import nearest, one_of, require
from luma_cli.catalogue.spec import BackboneSpec, Family
from luma_cli.catalogue.timm_index import TimmIndex, load_index
from luma_cli.errors import BadCard

NOT_CARDS = frozenset({"pretraining.toml", "timm_rules.toml"})
NO_WEIGHTS = "none"
_CARD_KEYS: dict[str, type] = {
    **dict.fromkeys(("name", "title", "family", "token_mixer", "licence", "note", "resizing"), str),
    **dict.fromkeys(("aliases", "sizes", "rule"), dict),
    "sources": list,
    "registered": bool,
}
_SIZE_KEYS: dict[str, type] = {"timm": str, "aliases": list, "variants": list, "pretraining": dict}
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class CardSize:
    """One size of a card.

    timm: base architecture, which the bare name means. variants: other timm architectures that differ from it only in
    window, image size, position embedding or pooling, so that their tags count as this size's. pretraining: objective
    -> `architecture.tag` of timm, empty text where no public weights exist.
    """

    name: str
    timm: str
    aliases: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    pretraining: Mapping[str, str] = field(default_factory=dict)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The timm architectures that the card's own names stand for, the base first: what a cost table must hold."""
        listed = (timm_name.partition(".")[0] for timm_name in self.pretraining.values() if timm_name)
        return tuple(dict.fromkeys((self.timm, *listed)))

    @property
    def architectures(self) -> tuple[str, ...]:
        """Every timm architecture of this size, variants last, without duplicates."""
        return tuple(dict.fromkeys((*self.chosen, *self.variants)))


@dataclass(frozen=True, slots=True)
class Card:
    """One backbone family as its file describes it.

    aliases: short spelling -> `size.objective`. rule: overrides of the rule table. resizing: how weights change at
    another resolution. registered: the architectures come from the user's own module (`--import`), not from timm.
    """

    name: str
    title: str
    family: Family
    token_mixer: str
    licence: str
    sources: tuple[str, ...]
    sizes: Mapping[str, CardSize]
    aliases: Mapping[str, str] = field(default_factory=dict)
    rule: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    resizing: str = ""
    registered: bool = False

    def spelling(self, size: str, objective: str = "") -> str:
        """The card's own name of a size, e.g. `vit_b` or `vit_b.dinov3`."""
        return f"{self.name}_{size}" + (f".{objective}" if objective else "")


def _once_per_folder(read: Callable[[], Value]) -> Callable[[], Value]:
    """`read`, called once for each value of `$LUMA_MODELS`."""
    kept = cache(lambda _own: read())
    return wraps(read)(lambda: kept(os.environ.get("LUMA_MODELS", "")))


@_once_per_folder
def load_cards() -> Mapping[str, Card]:
    """Every card by name: the shipped ones and those in `$LUMA_MODELS`. Raises BadCard on the first that is wrong."""
    cards = read_cards(files.root() / "models")
    if own := os.environ.get("LUMA_MODELS"):
        added = read_cards(Path(own))
        for card in added.values():
            check_against(card, load_index())
        cards |= added
    check_spellings(cards.values())
    return dict(sorted(cards.items()))


def read_cards(folder: Path) -> dict[str, Card]:
    """The cards in `folder` by name, one per file. Raises BadCard when there is no such folder."""
    if not os.path.isdir(folder):  # unlike Path.is_dir, no error for a name that is too long
        raise BadCard(f"{folder} is no folder of cards; set LUMA_MODELS to a folder of .toml files, or unset it")
    cards = (read_card(path) for path in sorted(folder.glob("*.toml")) if path.name not in NOT_CARDS)
    return {card.name: card for card in cards}


def read_card(path: Path) -> Card:
    """The card in the file at `path`. Raises BadCard naming the file, the table and the nearest valid spelling."""
    values = require(str(path), files.read_toml(path), _CARD_KEYS, ("name", "family", "token_mixer", "sizes"))
    if values["name"] != path.stem:
        raise BadCard(f"{path}: name is {values['name']!r}, expected {path.stem!r}; name the card as its file")
    one_of(str(path), "family", values["family"], get_args(Family))
    if "rule" in values:
        from luma_cli.catalogue.rules import parse_model_rule  # 15 ms that cards without a rule do without

        parse_model_rule(values["rule"], f"{path}: [rule]")
    sizes = {size: _size(f"{path}: [sizes.{size}]", size, table) for size, table in values.pop("sizes").items()}
    if not sizes:
        raise BadCard(f"{path}: no size; add a table [sizes.b] with timm = ...")
    values["sources"] = tuple(values.get("sources", ()))
    card = Card(**{"title": values["name"], "licence": "", **values}, sizes=sizes)
    for alias, target in card.aliases.items():
        size, _, objective = str(target).partition(".")
        if size not in sizes or (objective and objective not in sizes[size].pretraining):
            raise BadCard(
                f"{path}: alias {alias!r} means {target!r}, which this card lacks; write size or size.objective"
            )
    return card


def _size(where: str, size: str, table: Any) -> CardSize:
    values = require(where, table, _SIZE_KEYS, ("timm",))
    pretraining = {
        check_objective(where, objective): _timm_name(where, values["timm"], tag)
        for objective, tag in values.pop("pretraining", {}).items()
    }
    rest: dict[str, Any] = {key: value if key == "timm" else tuple(value) for key, value in values.items()}
    return CardSize(size, **rest, pretraining=pretraining)


def _timm_name(where: str, architecture: str, tag: Any) -> str:
    """`architecture.tag` of a tag, which may bring its own architecture; empty for `none`."""
    if not isinstance(tag, str) or not tag:
        raise BadCard(f"{where}: tag {tag!r} is not text; write a timm tag, architecture.tag or {NO_WEIGHTS!r}")
    if tag == NO_WEIGHTS:
        return ""
    return tag if "." in tag else f"{architecture}.{tag}"


def spellings(card: Card) -> Iterator[tuple[str, str, str]]:
    """Every spelling without a dot that a card gives: (spelling, size, objective or empty)."""
    for size in card.sizes.values():
        for spelling in (card.spelling(size.name), *size.aliases):
            yield spelling, size.name, ""
    for alias, target in card.aliases.items():
        size_name, _, objective = target.partition(".")
        yield alias, size_name, objective


def check_spellings(cards: Iterable[Card]) -> None:
    """Raises BadCard when two cards, sizes or aliases share a spelling."""
    seen: dict[str, str] = {}
    for card in cards:
        for spelling, size, _ in spellings(card):
            here = card.spelling(size)
            if spelling in seen:
                raise BadCard(f"card {card.name}: {spelling!r} ({here}) already means {seen[spelling]}; choose another")
            seen[spelling] = here


def check_against(card: Card, index: TimmIndex) -> None:
    """Raises BadCard when the card names an architecture or tag that timm lacks, with the nearest that it has."""
    for size in () if card.registered else card.sizes.values():
        for timm_name in (size.timm, *size.variants, *filter(None, size.pretraining.values())):
            if index.has(timm_name):
                continue
            architecture, _, tag = timm_name.partition(".")
            if entry := index.get(architecture):
                what, near = f"tag {tag!r} for {architecture}", nearest(tag, entry.tags, 1) or list(entry.tags)
            else:
                what, near = f"architecture {architecture!r}", nearest(architecture, index.entries, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise BadCard(f"card {card.name}: timm {index.version} has no {what}{hint}")


def candidates() -> list[BackboneSpec]:
    """Every card, size and pretraining, in that order, also those without public weights (`public_weights` False)."""
    return [
        spec_of(card, size, objective)
        for card in load_cards().values()
        for size in card.sizes.values()
        for objective in size.pretraining
    ]


def card_sizes() -> list[BackboneSpec]:
    """Every card at every one of its sizes, without a pretraining."""
    return [spec_of(card, size) for card in load_cards().values() for size in card.sizes.values()]


def spec_of(card: Card, size: CardSize, objective: str = "") -> BackboneSpec:
    """The backbone that a card, a size and one of its objectives name; without objective, the bare architecture."""
    timm_name = size.pretraining[objective] if objective else ""
    public = bool(timm_name) if objective else any(size.pretraining.values())
    return describe(card, size, timm_name or size.timm, card.spelling(size.name, objective), objective, public)


def describe(
    card: Card, size: CardSize, timm_name: str, name: str, objective: str = "", public: bool = True
) -> BackboneSpec:
    """The backbone `timm_name` with the facts of the card that it belongs to."""
    architecture, _, tag = timm_name.partition(".")
    entry = load_index().get(architecture) if tag else None
    return BackboneSpec(
        name=name,
        timm_name=timm_name,
        architecture=architecture,
        tag=tag,
        card=card.name,
        size=size.name,
        family=card.family,
        token_mixer=card.token_mixer,
        pretraining=objective,
        licence=(entry.tags.get(tag, "") if entry else "") or card.licence,
        public_weights=public,
        source="import" if card.registered else "timm",
        rule=dict(card.rule),
    )


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a card spelling without a dot means; `objective` only for aliases such as `dinov3_b`."""

    card: Card
    size: CardSize
    objective: str = ""


@_once_per_folder
def meanings() -> Mapping[str, Meaning]:
    """Every card spelling without a dot, with its meaning."""
    return {
        spelling: Meaning(card, card.sizes[size], objective)
        for card in load_cards().values()
        for spelling, size, objective in spellings(card)
    }


def owner(architecture: str) -> Meaning | None:
    """The card and size that a timm architecture belongs to, None when no card names it."""
    return _owners().get(architecture)


@_once_per_folder
def _owners() -> Mapping[str, Meaning]:
    """By architecture: a base architecture counts before one listed for a pretraining, that before a variant."""
    every = [Meaning(card, size) for card in load_cards().values() for size in card.sizes.values()]
    owners: dict[str, Meaning] = {}
    for meaning in every:
        owners.setdefault(meaning.size.timm, meaning)
    for meaning in every:
        for architecture in meaning.size.architectures:
            owners.setdefault(architecture, meaning)
    return owners


def card_names() -> Iterator[str]:
    """Every name that cards give: sizes and aliases, then each of them with each objective of its size."""
    for spelling, meaning in meanings().items():
        yield spelling
        if not meaning.objective:
            yield from (f"{spelling}.{objective}" for objective in meaning.size.pretraining)
