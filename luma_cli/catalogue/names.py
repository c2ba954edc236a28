"""From what a user types to a backbone: card spellings, timm names and tags, globs, sources, completion.

Order of meaning: a card's spelling (`vit_b`, `vit_b.dinov3`, `dinov3_b`), timm's `architecture.tag`, timm's
architecture, a card size with a timm tag (`vit_b.lvd142m`), `hf-hub:` and `local-dir:`. Whatever is left is unknown,
and gets up to five near names, cards first. A wrong name is never quietly taken for a near one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from luma_cli.catalogue import globs, hints
from luma_cli.catalogue.cards import describe, spec_of
from luma_cli.catalogue.index import load_index
from luma_cli.catalogue.pretraining import objective_named, objective_of
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.catalogue.spellings import card_names, meanings, owner
from luma_cli.errors import UnknownName

_HUB, _LOCAL = "hf-hub:", "local-dir:"
# The hub account whose repositories are named `architecture.tag`; elsewhere a name says nothing about the content.
_TIMM_ACCOUNT = "timm/"
_PATCH = re.compile(r"([^/.]+)/(\d+)(\..+)?")  # ViT-B/16.mae


def resolve(name: str, *, imported: bool = False) -> BackboneSpec:
    """The backbone that `name` means.

    imported: names that neither cards nor timm know belong to the module given by `--import`, which registers them in
    the process that builds. Raises UnknownName with up to five near names.

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
    if imported and name and not globs.is_glob(name):
        architecture, _, tag = name.partition(".")
        return BackboneSpec(name, name, architecture, tag, public_weights=False, source="import")
    raise UnknownName(hints.unknown(name))


def expand(patterns: Sequence[str], *, imported: bool = False) -> list[BackboneSpec]:
    """The backbones that names and globs mean, in the order given, each once; `len` says how many there are.

    Raises UnknownName for a name or glob that means nothing.
    """
    found: dict[tuple[str, str], BackboneSpec] = {}
    for pattern in patterns:
        specs = _matching(pattern) if globs.is_glob(pattern) else [resolve(pattern, imported=imported)]
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
    pretraining = meaning.size.pretraining if meaning else {}
    return next((one for one, name in pretraining.items() if name == timm_name), "") or objective_of(timm_name)


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
        raise UnknownName(f"{name!r} is ambiguous; type one of {hints.listed(names, 5)}")
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
    told = place.removeprefix(_TIMM_ACCOUNT).partition("@")[0] if place.startswith(_TIMM_ACCOUNT) else ""
    known = _from_timm(told) or BackboneSpec(name, name, "")
    return replace(known, name=name, timm_name=name, source="hf-hub", public_weights=True)


def _from_folder(name: str, folder: Path) -> BackboneSpec:
    """A local model folder; its architecture is the one that its `config.json` names."""
    known = _from_timm(_architecture_in(name, folder)) or BackboneSpec(name, name, "")
    return replace(known, name=name, timm_name=name, source="local-dir", public_weights=True)


def _architecture_in(name: str, folder: Path) -> str:
    """The architecture that a local model folder states. Raises UnknownName when it states none."""
    import json

    wanted = "expected a folder with the config.json and model.safetensors of a timm model"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownName(f"{name!r} cannot be read ({error}); {wanted}") from error
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise UnknownName(f"{name!r}: config.json names no architecture; {wanted}")
    return str(config["architecture"])


def _matching(pattern: str) -> list[BackboneSpec]:
    """Backbones whose name matches the glob, cards first. Raises UnknownName when none does."""
    cards = globs.card_matches(pattern)
    others = globs.timm_matches(pattern, cards)
    if not cards and not others:
        raise globs.no_match(pattern)
    return cards + [_timm_spec(name) for name in others]
