"""From what a user types to a backbone: card spellings, timm names and tags, globs, sources, completion.

Order of meaning: a card's spelling (`vit_b`, `vit_b.dinov3`, `dinov3_b`), timm's `architecture.tag`, timm's
architecture, a card size with a timm tag (`vit_b.lvd142m`), `hf-hub:` and `local-dir:`. Whatever is left is unknown,
and gets up to five near names, cards first. A wrong name is never quietly taken for a near one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from luma_cli.catalogue.cards import Card, CardSize, describe, load_cards, spec_of, spellings
from luma_cli.catalogue.index import load_index
from luma_cli.catalogue.near import nearest
from luma_cli.catalogue.pretraining import objective_named, objective_of
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import UnknownName

_NUM_NEAR = 5
_WILDCARDS = frozenset("*?[")
_LIST = "luma list"


def resolve(name: str, *, imported: bool = False) -> BackboneSpec:
    """The backbone that `name` means.

    imported: names that neither cards nor timm know belong to the module given by `--import`, which registers them in
    the process that builds. Raises UnknownName with up to five near names.

    >>> resolve("vit_b.dinov3").timm_name
    'vit_base_patch16_dinov3.lvd1689m'
    """
    name = name.strip()
    for prefix in ("hf-hub:", "local-dir:"):
        if name.startswith(prefix):
            return _from_source(name, prefix)
    found = _from_card(name) or _from_timm(name) or _from_card_and_tag(name) or _from_loose_spelling(name)
    if found is not None:
        return found
    if imported and name and not _WILDCARDS & set(name):
        architecture, _, tag = name.partition(".")
        return BackboneSpec(name, name, architecture, tag, public_weights=False, source="import")
    raise UnknownName(_unknown(name))


def expand(patterns: Sequence[str], *, imported: bool = False) -> list[BackboneSpec]:
    """The backbones that names and globs mean, in the order given, each once; `len` says how many there are.

    A glob without a dot is matched with card sizes and timm architectures, and with `name.objective` where the part
    before the dot does not match already: `convnext*` is every ConvNeXt once, `*dinov3*` every DINOv3. A glob with a
    dot is matched with full names only. Where a card names an architecture, timm's own name for it is left out.
    Raises UnknownName for a pattern that means nothing.
    """
    found: dict[str, BackboneSpec] = {}
    for pattern in patterns:
        specs = _matching(pattern) if _WILDCARDS & set(pattern) else [resolve(pattern, imported=imported)]
        for spec in specs:
            found.setdefault(spec.timm_name, spec)
    return list(found.values())


def complete(prefix: str) -> list[str]:
    """Card spellings that start with `prefix`, sorted; with objectives once a size is typed out up to its dot."""
    names = (name for name in _card_names() if name.startswith(prefix))
    return sorted(name for name in names if "." not in name or "." in prefix)


@cache
def _sizes() -> Mapping[str, tuple[Card, CardSize, str]]:
    """Every dot-less card spelling with its card, size and, for aliases such as `dinov3_b`, objective."""
    return {
        spelling: (card, card.sizes[size], objective)
        for card in load_cards().values()
        for spelling, size, objective in spellings(card)
    }


@cache
def _owners() -> Mapping[str, tuple[Card, CardSize]]:
    """Which card and size a timm architecture belongs to; a base architecture before a listed one before a variant."""
    owners: dict[str, tuple[Card, CardSize]] = {}
    pairs = [(card, size) for card in load_cards().values() for size in card.sizes.values()]
    for card, size in pairs:
        owners.setdefault(size.timm, (card, size))
    for card, size in pairs:
        for architecture in size.architectures:
            owners.setdefault(architecture, (card, size))
    return owners


def _card_names() -> Iterator[str]:
    for spelling, (_, size, objective) in _sizes().items():
        yield spelling
        if not objective:
            yield from (f"{spelling}.{one}" for one in size.pretraining)


def _from_card(name: str) -> BackboneSpec | None:
    """A card's spelling, alone or with an objective of that size."""
    stem, dot, suffix = name.partition(".")
    if stem not in _sizes():
        return None
    card, size, objective = _sizes()[stem]
    if not dot:
        return spec_of(card, size, objective)
    wanted = objective_named(suffix)
    if objective or wanted is None or wanted.name not in size.pretraining:
        return None
    return spec_of(card, size, wanted.name)


def _from_timm(name: str) -> BackboneSpec | None:
    """An architecture of timm, alone or with one of its tags; a deprecated name means its successor."""
    index = load_index()
    name = index.replaced.get(name, name)
    return _timm_spec(name) if index.has(name) else None


def _timm_spec(timm_name: str) -> BackboneSpec:
    """The timm backbone with its card's facts where a card names its architecture, else with those of its class."""
    architecture, _, tag = timm_name.partition(".")
    objective = _objective(timm_name) if tag else ""
    entry = load_index().entries[architecture]
    owner = _owners().get(architecture)
    if owner is not None:
        return describe(*owner, timm_name, timm_name, objective, bool(entry.tags))
    return BackboneSpec(
        name=timm_name,
        timm_name=timm_name,
        architecture=architecture,
        tag=tag,
        pretraining=objective,
        licence=entry.tags.get(tag or entry.default_tag, ""),
        public_weights=bool(entry.tags),
    )


def _objective(timm_name: str) -> str:
    """Objective of `architecture.tag`: as a card lists it, else by the patterns of the objectives."""
    owner = _owners().get(timm_name.partition(".")[0])
    listed = owner[1].pretraining.items() if owner else ()
    return next((objective for objective, name in listed if name == timm_name), "") or objective_of(timm_name)


def _from_card_and_tag(name: str) -> BackboneSpec | None:
    """A card size with a timm tag instead of an objective. Raises UnknownName when several architectures have it."""
    stem, _, tag = name.partition(".")
    if not tag or stem not in _sizes() or _sizes()[stem][2]:
        return None
    card, size, _ = _sizes()[stem]
    names = _names_with_tag(size, tag)
    if len(names) > 1:
        raise UnknownName(f"{name!r} is ambiguous: tag {tag!r} belongs to {_listed(names)}; type one of these")
    if not names:
        return None
    spec = _timm_spec(names[0])
    return spec if spec.card == card.name else describe(card, size, names[0], names[0], spec.pretraining)


def _names_with_tag(size: CardSize, tag: str) -> list[str]:
    """timm names of this size that carry `tag`: those that the card lists, else its base, else any of its variants."""
    index = load_index()
    listed = [timm_name for timm_name in size.pretraining.values() if timm_name.partition(".")[2] == tag]
    if listed:
        return listed
    if index.has(f"{size.timm}.{tag}"):
        return [f"{size.timm}.{tag}"]
    return [f"{architecture}.{tag}" for architecture in size.architectures if index.has(f"{architecture}.{tag}")]


def _from_loose_spelling(name: str) -> BackboneSpec | None:
    """A card's spelling in capitals or with hyphens, as papers write it: `ViT-B`, `Swin-T`."""
    loose = name.lower().replace("-", "_")
    return _from_card(loose) if loose != name else None


def _from_source(name: str, prefix: str) -> BackboneSpec:
    """A backbone whose configuration and weights lie elsewhere; its architecture is known if that can be read here."""
    place = name.removeprefix(prefix)
    if not place:
        raise UnknownName(f"{name!r} names no place; try hf-hub:timm/vit_base_patch16_224.mae or local-dir:FOLDER")
    told = _architecture_in(Path(place)) if prefix == "local-dir:" else place.rpartition("/")[2].partition("@")[0]
    known = _from_timm(told)
    if known is None:
        base = BackboneSpec(name, name, "")
    else:
        base = replace(known, name=name, timm_name=name)
    return replace(base, source="hf-hub" if prefix == "hf-hub:" else "local-dir", public_weights=prefix == "hf-hub:")


def _architecture_in(folder: Path) -> str:
    """The architecture that the `config.json` of a local model folder names. Raises UnknownName without one."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(config.get("architecture", ""))
    except (OSError, ValueError, AttributeError) as error:
        wanted = "expected a folder with timm's config.json and model.safetensors"
        raise UnknownName(f"local-dir:{folder} cannot be read ({error}); {wanted}") from error


def _matching(pattern: str) -> list[BackboneSpec]:
    """Backbones whose name matches the glob, cards first. Raises UnknownName when none does."""
    cards = [resolve(name) for name in _card_matches(pattern)]
    taken = {spec.architecture for spec in cards} if "." not in pattern else set()
    names = {spec.timm_name for spec in cards}
    others = [name for name in _timm_matches(pattern) if name not in taken and name not in names]
    if not cards and not others:
        raise UnknownName(f"no card and no timm name matches {pattern!r}; {_near_hint(pattern.strip('*?'))}")
    return cards + [_timm_spec(name) for name in others]


def _card_matches(pattern: str) -> Iterator[str]:
    for card in load_cards().values():
        for size in card.sizes.values():
            stem = card.spelling(size.name)
            if "." not in pattern and fnmatchcase(stem, pattern):
                yield stem
                continue
            yield from (f"{stem}.{one}" for one in size.pretraining if fnmatchcase(f"{stem}.{one}", pattern))


def _timm_matches(pattern: str) -> Iterator[str]:
    for architecture, entry in load_index().entries.items():
        if "." not in pattern and fnmatchcase(architecture, pattern):
            yield architecture
            continue
        yield from (f"{architecture}.{tag}" for tag in entry.tags if fnmatchcase(f"{architecture}.{tag}", pattern))


def _unknown(name: str) -> str:
    """Why `name` means nothing and what to type instead."""
    stem, dot, suffix = name.partition(".")
    if not name:
        return f"a backbone has no name; try vit_b, convnext_b, swin_t or `{_LIST}`"
    if stem in load_cards():
        card = load_cards()[stem]
        return f"{name!r} is a family; choose a size: {_listed([card.spelling(size) for size in card.sizes], 12)}"
    if dot and stem in _sizes():
        return _no_such_pretraining(stem, suffix)
    entry = load_index().get(stem)
    if dot and entry is not None:
        has = f"it has {_listed([f'{stem}.{tag}' for tag in entry.tags], 12)}" if entry.tags else "it has none"
        return f"timm has no weights {suffix!r} for {stem}; {has}"
    return f"no card and no timm model is named {name!r}; {_near_hint(name)}"


def _no_such_pretraining(stem: str, suffix: str) -> str:
    card, size, _ = _sizes()[stem]
    here = _listed([f"{stem}.{objective}" for objective in size.pretraining], 20)
    wanted = objective_named(suffix)
    others = [card.spelling(one.name, wanted.name) for one in card.sizes.values() if wanted.name in one.pretraining] if wanted else []
    elsewhere = f"; {wanted.name} exists for {_listed(others, 12)}" if wanted and others else ""
    return f"{stem} has no pretraining or tag {suffix!r}; it has {here}{elsewhere}"


def _near_hint(name: str) -> str:
    near = near_names(name)
    return f"did you mean {_listed(near)}?" if near else f"see `{_LIST}`"


def near_names(name: str) -> list[str]:
    """At most five spellings near to `name`: cards first, then timm names."""
    cards = nearest(name, [one for one in _card_names() if "." in name or "." not in one], _NUM_NEAR)
    known = {_from_card(one).timm_name for one in cards}  # type: ignore[union-attr]
    index = load_index()
    pool: Iterator[str] = iter(index.entries)
    if "." in name:
        pool = (f"{architecture}.{tag}" for architecture, entry in index.entries.items() for tag in entry.tags)
    others = [one for one in nearest(name, pool, _NUM_NEAR) if one not in known]
    return (cards + others)[:_NUM_NEAR]


def _listed(names: Sequence[str], limit: int = _NUM_NEAR) -> str:
    shown = ", ".join(names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
