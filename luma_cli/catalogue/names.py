"""From what a user types to a backbone: card spellings, timm names and tags, globs, sources, completion.

Order of meaning: a card's spelling (`vit_b`, `vit_b.dinov3`, `dinov3_b`), timm's `architecture.tag`, timm's
architecture, a card size with a timm tag (`vit_b.lvd142m`), `hf-hub:` and `local-dir:`. Any other name is unknown and
gets up to five near names, cards first; a wrong name is never taken for a near one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from luma_cli.catalogue.cards import Meaning, card_names, describe, load_cards, meanings, owner, spec_of
from luma_cli.catalogue.pretraining import objective_named, objective_of
from luma_cli.catalogue.reading import nearest
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.catalogue.timm_index import load_index
from luma_cli.errors import UnknownName

_HUB, _LOCAL = "hf-hub:", "local-dir:"
# The hub account whose repositories are named `architecture.tag`.
_TIMM_ACCOUNT = "timm/"
_PATCH = re.compile(r"([^/.]+)/(\d+)(\..+)?")  # ViT-B/16.mae


def resolve(name: str, *, imported: bool = False) -> BackboneSpec:
    """The backbone that `name` means. Raises UnknownName with up to five near names.

    imported: unknown names belong to the module given by `--import`, which registers them in the process that builds.

    >>> resolve("vit_b.dinov3").timm_name
    'vit_base_patch16_dinov3.lvd1689m'
    """
    name = name.strip()
    if name.startswith(_HUB):
        return _from_hub(name, name.removeprefix(_HUB))
    if name.startswith(_LOCAL):
        return _from_folder(name, Path(name.removeprefix(_LOCAL)))
    found = _from_card(name) or _from_timm(name) or _from_card_and_tag(name) or _from_loose_spelling(name)
    if found is not None:
        return found
    if imported and name and not _is_glob(name):
        architecture, _, tag = name.partition(".")
        return BackboneSpec(name, name, architecture, tag, public_weights=False, source="import")
    raise UnknownName(_unknown(name))


def expand(patterns: Sequence[str], *, imported: bool = False) -> list[BackboneSpec]:
    """The backbones that names and globs mean, in the order given, each once; `len` says how many there are.

    Raises UnknownName for a name or glob that means nothing.
    """
    found: dict[tuple[str, str], BackboneSpec] = {}
    for pattern in patterns:
        specs = _matching(pattern) if _is_glob(pattern) else [resolve(pattern, imported=imported)]
        for spec in specs:
            # Pretrainings without weights share the bare architecture's timm name.
            key = spec.timm_name, "" if spec.tag else spec.pretraining
            found.setdefault(key, spec)
    return list(found.values())


def complete(prefix: str) -> list[str]:
    """Card spellings that start with `prefix`, sorted; with objectives once a size is typed out up to its dot."""
    return sorted(name for name in card_names() if name.startswith(prefix) and ("." in prefix or "." not in name))


def _from_card(name: str) -> BackboneSpec | None:
    """A card's spelling, alone or with an objective of that size."""
    stem, dot, suffix = name.partition(".")
    meaning = meanings().get(stem)
    if meaning is None:
        return None
    if not dot:
        return spec_of(meaning.card, meaning.size, meaning.objective)
    wanted = objective_named(suffix)
    if meaning.objective or wanted is None or wanted.name not in meaning.size.pretraining:
        return None
    return spec_of(meaning.card, meaning.size, wanted.name)


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
    meaning = owner(architecture)
    if meaning is not None:
        return describe(meaning.card, meaning.size, timm_name, timm_name, objective, bool(entry.tags))
    from luma_cli.catalogue.rules import load_rules  # 15 ms that names of cards do without

    rule = load_rules().model_rule(entry.module, entry.cls, architecture, {})
    return BackboneSpec(
        name=timm_name,
        timm_name=timm_name,
        architecture=architecture,
        tag=tag,
        family=rule.family,
        token_mixer=rule.token_mixer,
        pretraining=objective,
        licence=entry.tags.get(tag or entry.default_tag, ""),
        public_weights=bool(entry.tags),
    )


def _objective(timm_name: str) -> str:
    """Objective of `architecture.tag`: as a card lists it, else by the patterns of the objectives."""
    meaning = owner(timm_name.partition(".")[0])
    listed = meaning.size.pretraining if meaning else {}
    return next((one for one, name in listed.items() if name == timm_name), "") or objective_of(timm_name)


def _from_card_and_tag(name: str) -> BackboneSpec | None:
    """A card size with a timm tag instead of an objective.

    The tag may occur in several architectures of the size as long as all mean one objective: then the card's own
    choice is taken, else its base architecture. Raises UnknownName otherwise.
    """
    stem, _, tag = name.partition(".")
    meaning = meanings().get(stem)
    if not tag or meaning is None or meaning.objective:
        return None
    size = meaning.size
    names = [f"{one}.{tag}" for one in size.architectures if load_index().has(f"{one}.{tag}")]
    listed = {timm_name: objective for objective, timm_name in size.pretraining.items()}
    chosen = [one for one in names if one in listed] or [one for one in names if one == f"{size.timm}.{tag}"] or names
    if len(chosen) > 1 or len({_objective(one) for one in names}) > 1:
        raise UnknownName(f"{name!r} is ambiguous; type one of {_listed(names, 5)}")
    if not chosen:
        return None
    if chosen[0] in listed:
        return spec_of(meaning.card, size, listed[chosen[0]])
    return describe(meaning.card, size, chosen[0], chosen[0], _objective(chosen[0]))


def _from_loose_spelling(name: str) -> BackboneSpec | None:
    """A card's spelling in capitals, with hyphens or its patch, as papers write it: `ViT-B`, `Swin-T`, `ViT-B/16`."""
    loose = name.lower().replace("-", "_")
    with_patch = _PATCH.fullmatch(loose)
    if with_patch is None:
        return _from_card(loose) if loose != name else None
    stem, patch, rest = with_patch.groups(default="")
    found = _from_card(stem + rest)
    from luma_cli.catalogue.rules import patch_size  # 15 ms that names of cards do without

    return found if found and patch_size(found.architecture) == int(patch) else None


def _from_hub(name: str, place: str) -> BackboneSpec:
    """A repository of the hub; its architecture is known where timm's own account names it."""
    if "/" not in place.strip("/"):
        raise UnknownName(
            f"{name!r} names no repository; type hf-hub:OWNER/NAME, e.g. hf-hub:timm/convnext_base.fb_in22k"
        )
    # Elsewhere on the hub a name says nothing about the content.
    told = place.removeprefix(_TIMM_ACCOUNT).partition("@")[0] if place.startswith(_TIMM_ACCOUNT) else ""
    known = _from_timm(told) or BackboneSpec(name, name, "")
    return replace(known, name=name, timm_name=name, source="hf-hub", public_weights=True)


def _from_folder(name: str, folder: Path) -> BackboneSpec:
    """A local model folder; its architecture is the one that its `config.json` names."""
    import json

    wanted = "expected a folder with the config.json and model.safetensors of a timm model"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownName(f"{name!r} cannot be read ({error}); {wanted}") from error
    architecture = config.get("architecture") if isinstance(config, dict) else None
    if not isinstance(architecture, str):
        raise UnknownName(f"{name!r}: config.json names no architecture; {wanted}")
    known = _from_timm(architecture) or BackboneSpec(name, name, "")
    return replace(known, name=name, timm_name=name, source="local-dir", public_weights=True)


_LONGEST_GLOB = 100  # longer than any name; what some patterns cost grows with the square


def _is_glob(pattern: str) -> bool:
    """Whether `pattern` is a glob rather than a name; a source such as `local-dir:` is always a name."""
    return ":" not in pattern and bool(set("*?[") & set(pattern))


def _matching(pattern: str) -> list[BackboneSpec]:
    """Backbones whose name matches the glob, cards first. Raises UnknownName when none does.

    A glob without a dot is matched with card sizes and timm architectures, and with full names where the part before
    the dot does not match already: `convnext*` is every ConvNeXt once, `*dinov3*` every DINOv3. A glob with a dot is
    matched with full names only. Where a card names an architecture, timm's own spelling of it is left out.
    """
    if len(pattern) > _LONGEST_GLOB:
        raise UnknownName(f"a pattern of {len(pattern):,} characters, expected at most {_LONGEST_GLOB}")
    cards = [
        spec_of(card, size, name.partition(".")[2])
        for card in load_cards().values()
        for size in card.sizes.values()
        for name in _matches(pattern, card.spelling(size.name), size.pretraining)
    ]
    taken = {spec.timm_name for spec in cards}
    if "." not in pattern:
        taken |= {spec.architecture for spec in cards}
    entries = load_index().entries.items()
    names = (name for architecture, entry in entries for name in _matches(pattern, architecture, entry.tags))
    others = [_timm_spec(name) for name in names if name not in taken]
    if not cards and not others:
        raise UnknownName(f"no card and no timm name matches {pattern!r}; {_near_hint(pattern.strip('*?'))}")
    return cards + others


def _matches(pattern: str, stem: str, suffixes: Iterable[str]) -> Iterator[str]:
    if "." not in pattern and fnmatchcase(stem, pattern):
        yield stem
    else:
        yield from (f"{stem}.{suffix}" for suffix in suffixes if fnmatchcase(f"{stem}.{suffix}", pattern))


_NUM_NEAR = 5
_NUM_LISTED = 20


def _unknown(name: str) -> str:
    """One line: what was given, what was expected, what to type next."""
    stem, dot, suffix = name.partition(".")
    if not name:
        return "a backbone needs a name; try vit_b, convnext_b, swin_t or see `luma list`"
    if card := load_cards().get(stem):
        return (
            f"{name!r} is a family; choose a size: {_listed([card.spelling(size) for size in card.sizes], _NUM_NEAR)}"
        )
    if dot and stem in meanings():
        return _no_such_pretraining(stem, suffix, meanings()[stem])
    if dot and load_index().has(stem):
        return _no_such_tag(stem, suffix)
    return f"no card and no timm model is named {name!r}; {_near_hint(name)}"


def _near_hint(name: str) -> str:
    """The question that names what is near, or where to look when nothing is."""
    near = near_names(name)
    return f"did you mean {_listed(near)}?" if near else "see `luma list`"


def near_names(name: str) -> list[str]:
    """At most five spellings near to `name`, cards first, then timm; one spelling for each thing meant."""
    cards: dict[tuple[str, str, str], str] = {}
    sizes = {spelling: each.size.pretraining for spelling, each in meanings().items() if not each.objective}
    for spelling in nearest(name, _spellings(name, meanings(), sizes, 2 * _NUM_NEAR), 4 * _NUM_NEAR):
        stem, _, objective = spelling.partition(".")
        meaning = meanings()[stem]
        cards.setdefault((meaning.card.name, meaning.size.name, objective or meaning.objective), spelling)
    tags = {architecture: entry.tags for architecture, entry in load_index().entries.items()}
    return [*cards.values(), *nearest(name, _spellings(name, tags, tags, 4 * _NUM_NEAR), _NUM_NEAR)][:_NUM_NEAR]


def _listed(names: Sequence[str], limit: int = _NUM_LISTED) -> str:
    """The names with commas, and how many more there are beyond `limit`."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _spellings(name: str, stems: Iterable[str], suffixes: Mapping[str, Iterable[str]], limit: int) -> Iterable[str]:
    """The names worth comparing: all stems or, for a name with a dot, those near to its stem with their suffixes."""
    stem, dot, _ = name.partition(".")
    return [f"{near}.{one}" for near in nearest(stem, suffixes, limit) for one in suffixes[near]] if dot else stems


def _no_such_pretraining(stem: str, suffix: str, meaning: Meaning) -> str:
    card, size = meaning.card, meaning.size
    if meaning.objective:
        means = card.spelling(size.name, meaning.objective)
        return f"{stem} already means {means}; for another pretraining type {card.spelling(size.name)}.PRETRAINING"
    near = nearest(suffix, size.pretraining, len(size.pretraining))
    here = [f"{stem}.{objective}" for objective in dict.fromkeys((*near, *size.pretraining))]
    if not suffix:
        return f"{stem}. needs a pretraining after its dot; it has {_listed(here)}"
    told = f"{stem} has no pretraining or tag {suffix!r}; it has {_listed(here)}"
    wanted = objective_named(suffix)
    if wanted is None:
        return told
    others = [card.spelling(one.name, wanted.name) for one in card.sizes.values() if one.pretraining.get(wanted.name)]
    return f"{told}; {wanted.name} exists for {_listed(others)}" if others else told


def _no_such_tag(architecture: str, tag: str) -> str:
    tags = [f"{architecture}.{one}" for one in load_index().entries[architecture].tags]
    has = f"it has {_listed(tags)}" if tags else f"it has none, type {architecture} alone"
    return f"timm has no weights {tag!r} for {architecture}; {has}"
