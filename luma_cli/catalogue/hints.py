"""What to tell a user whose backbone name means nothing: why, and what to type instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from luma_cli.catalogue.cards import Card, load_cards
from luma_cli.catalogue.index import load_index
from luma_cli.catalogue.near import nearest
from luma_cli.catalogue.pretraining import objective_named
from luma_cli.catalogue.spellings import Meaning, meanings

_NUM_NEAR = 5
_NUM_LISTED = 20


def unknown(name: str) -> str:
    """One line: what was given, what was expected, what to type next."""
    stem, dot, suffix = name.partition(".")
    if not name:
        return "a backbone needs a name; try vit_b, convnext_b, swin_t or see `luma list`"
    if stem in load_cards():
        return f"{name!r} is a family; choose a size: {listed(_sizes(load_cards()[stem]), _NUM_NEAR)}"
    if dot and stem in meanings():
        return _no_such_pretraining(stem, suffix, meanings()[stem])
    if dot and load_index().has(stem):
        return _no_such_tag(stem, suffix)
    return f"no card and no timm model is named {name!r}; {near_hint(name)}"


def near_hint(name: str) -> str:
    """The question that names what is near, or where to look when nothing is."""
    near = near_names(name)
    return f"did you mean {listed(near)}?" if near else "see `luma list`"


def near_names(name: str) -> list[str]:
    """At most five spellings near to `name`, cards first, then timm; one spelling for each thing meant."""
    cards: dict[tuple[str, str, str], str] = {}
    for spelling in nearest(name, _spellings(name), 4 * _NUM_NEAR):
        cards.setdefault(_target(spelling), spelling)
    return [*cards.values(), *nearest(name, _timm_names(name), _NUM_NEAR)][:_NUM_NEAR]


def listed(names: Sequence[str], limit: int = _NUM_LISTED) -> str:
    """The names with commas, and how many more there are beyond `limit`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _target(spelling: str) -> tuple[str, str, str]:
    stem, _, objective = spelling.partition(".")
    meaning = meanings()[stem]
    return meaning.card.name, meaning.size.name, objective or meaning.objective


def _spellings(name: str) -> Iterable[str]:
    """The card names worth comparing: all sizes or, for a name with a dot, the objectives of those near to its stem."""
    stem, dot, _ = name.partition(".")
    if not dot:
        return meanings()
    sizes = {spelling: meaning.size for spelling, meaning in meanings().items() if not meaning.objective}
    near = nearest(stem, sizes, 2 * _NUM_NEAR)
    return [f"{spelling}.{objective}" for spelling in near for objective in sizes[spelling].pretraining]


def _timm_names(name: str) -> Iterable[str]:
    """The timm names worth comparing: all architectures or, with a dot, the tags of those near to the stem."""
    entries = load_index().entries
    stem, dot, _ = name.partition(".")
    if not dot:
        return entries
    near = nearest(stem, entries, 4 * _NUM_NEAR)
    return [f"{architecture}.{tag}" for architecture in near for tag in entries[architecture].tags]


def _sizes(card: Card) -> list[str]:
    return [card.spelling(size) for size in card.sizes]


def _no_such_pretraining(stem: str, suffix: str, meaning: Meaning) -> str:
    card, size = meaning.card, meaning.size
    if meaning.objective:
        means = card.spelling(size.name, meaning.objective)
        return f"{stem} already means {means}; for another pretraining type {card.spelling(size.name)}.PRETRAINING"
    near = nearest(suffix, size.pretraining, len(size.pretraining))
    here = [f"{stem}.{objective}" for objective in dict.fromkeys((*near, *size.pretraining))]
    if not suffix:
        return f"{stem}. needs a pretraining after its dot; it has {listed(here)}"
    told = f"{stem} has no pretraining or tag {suffix!r}; it has {listed(here)}"
    wanted = objective_named(suffix)
    if wanted is None:
        return told
    others = [card.spelling(one.name, wanted.name) for one in card.sizes.values() if one.pretraining.get(wanted.name)]
    return f"{told}; {wanted.name} exists for {listed(others)}" if others else told


def _no_such_tag(architecture: str, tag: str) -> str:
    tags = [f"{architecture}.{one}" for one in load_index().entries[architecture].tags]
    has = f"it has {listed(tags)}" if tags else f"it has none, type {architecture} alone"
    return f"timm has no weights {tag!r} for {architecture}; {has}"
