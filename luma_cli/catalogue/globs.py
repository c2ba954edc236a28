"""Globs over card and timm names.

A glob without a dot is matched with card sizes and timm architectures, and with full names where the part before the
dot does not match already: `convnext*` is every ConvNeXt once, `*dinov3*` every DINOv3. A glob with a dot is matched
with full names only. Where a card names an architecture, timm's own spelling of it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from luma_cli.catalogue.cards import load_cards, spec_of
from luma_cli.catalogue.hints import near_hint
from luma_cli.catalogue.index import load_index
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import UnknownName

WILDCARDS = frozenset("*?[")


def is_glob(pattern: str) -> bool:
    """Whether `pattern` is a glob rather than a name; a source such as `local-dir:` is always a name."""
    return ":" not in pattern and bool(WILDCARDS & set(pattern))


def card_matches(pattern: str) -> list[BackboneSpec]:
    """Card backbones whose name matches, in the order of the cards."""
    found = []
    for card in load_cards().values():
        for size in card.sizes.values():
            for name in _matches(pattern, card.spelling(size.name), size.pretraining):
                found.append(spec_of(card, size, name.partition(".")[2]))
    return found


def timm_matches(pattern: str, cards: Iterable[BackboneSpec]) -> list[str]:
    """Names of timm that match, without those that `cards` stand for already."""
    taken = {spec.timm_name for spec in cards}
    if "." not in pattern:
        taken |= {spec.architecture for spec in cards}
    entries = load_index().entries.items()
    names = (name for architecture, entry in entries for name in _matches(pattern, architecture, entry.tags))
    return [name for name in names if name not in taken]


def no_match(pattern: str) -> UnknownName:
    """The error for a glob that matches nothing."""
    return UnknownName(f"no card and no timm name matches {pattern!r}; {near_hint(pattern.strip('*?'))}")


def _matches(pattern: str, stem: str, suffixes: Iterable[str]) -> Iterator[str]:
    if "." not in pattern and fnmatchcase(stem, pattern):
        yield stem
    else:
        yield from (f"{stem}.{suffix}" for suffix in suffixes if fnmatchcase(f"{stem}.{suffix}", pattern))
