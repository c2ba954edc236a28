"""Who owns a spelling: the tables from card spellings and timm architectures to cards and sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from luma_cli.catalogue.cards import Card, CardSize, load_cards, own_folder, spellings


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a card spelling without a dot means; `objective` only for aliases such as `dinov3_b`."""

    card: Card
    size: CardSize
    objective: str = ""


def meanings() -> Mapping[str, Meaning]:
    """Every card spelling without a dot, with what it means."""
    return _meanings(own_folder())


@cache
def _meanings(_own: str) -> Mapping[str, Meaning]:
    return {
        spelling: Meaning(card, card.sizes[size], objective)
        for card in load_cards().values()
        for spelling, size, objective in spellings(card)
    }


def owner(architecture: str) -> Meaning | None:
    """The card and size that a timm architecture belongs to, None when no card names it."""
    return _owners(own_folder()).get(architecture)


@cache
def _owners(_own: str) -> Mapping[str, Meaning]:
    """A base architecture counts before one listed for a pretraining, that before a variant."""
    owners: dict[str, Meaning] = {}
    every = [Meaning(card, size) for card in load_cards().values() for size in card.sizes.values()]
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
