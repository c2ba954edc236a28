"""The answers of `luma list` and `luma show` as plain values: cards, timm's tags and the cost table, without torch.

Costs are the backbone's own, without head, as counted. A backbone that the table lacks has none (None), and never fits
under a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from luma_cli.catalogue.cards import Card, CardSize, candidates, card_sizes, load_cards
from luma_cli.catalogue.costs import BackboneFacts, load_costs
from luma_cli.catalogue.names import expand, resolve
from luma_cli.catalogue.pretraining import Objective, load_objectives, objective_named, objective_of
from luma_cli.catalogue.reading import nearest
from luma_cli.catalogue.rules import ModelRule, load_rules
from luma_cli.catalogue.spec import BackboneSpec, Family
from luma_cli.catalogue.timm_index import load_index
from luma_cli.errors import UnknownName

DEFAULT_RESOLUTION = 512


@dataclass(frozen=True, slots=True)
class ListRow:
    """One backbone of a list.

    pretraining: objectives with public weights; unreleased: those without. macs: multiply-adds of the backbone at the
    list's resolution, params: its parameters, active_params: those that one token meets; None without a cost row.
    """

    spec: BackboneSpec
    pretraining: tuple[str, ...]
    unreleased: tuple[str, ...]
    macs: int | None
    params: int | None
    active_params: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """The rows that passed, the side in pixels that their costs are for, and how many a bound could not judge."""

    rows: tuple[ListRow, ...]
    resolution: int
    num_without_cost: int = 0

    @property
    def families(self) -> Mapping[str, int]:
        """How many rows each family has, in the order of the families."""
        counts = Counter(row.spec.family for row in self.rows)
        return {family: counts[family] for family in get_args(Family) if counts[family]}


def list_backbones(
    patterns: Sequence[str] = (),
    *,
    family: str = "",
    pretraining: str = "",
    max_macs: float | None = None,
    resolution: int = DEFAULT_RESOLUTION,
) -> Listing:
    """Card sizes, or what `patterns` name, that pass every filter, in the order of the cards.

    pretraining: an objective, also by its alias; rows are then `size.objective`. max_macs: multiply-adds of the
    backbone on one `resolution` x `resolution` image. Raises UnknownName for a family or objective that does not exist.
    """
    families = get_args(Family)
    if family and family not in families:
        raise UnknownName(f"no family {family!r}; choose one of {', '.join(families)}")
    wanted = _objective(pretraining) if pretraining else ""
    rows = [_row(spec, resolution) for spec in _listed(patterns, wanted) if family in ("", spec.family)]
    if max_macs is None:
        return Listing(tuple(rows), resolution)
    known = [(row.macs, row) for row in rows if row.macs is not None]
    return Listing(tuple(row for macs, row in known if macs <= max_macs), resolution, len(rows) - len(known))


def _listed(patterns: Sequence[str], wanted: str) -> Iterable[BackboneSpec]:
    """What the patterns name, all card sizes without any, narrowed to one objective when one is wanted."""
    if not wanted:
        return expand(patterns) if patterns else card_sizes()
    with_it = [spec for spec in candidates() if spec.pretraining == wanted]
    if not patterns:
        return with_it
    named = expand(patterns)
    sizes = {(spec.card, spec.size) for spec in named if spec.card and not spec.pretraining}
    chosen = [spec for spec in with_it if (spec.card, spec.size) in sizes]
    return chosen + [spec for spec in named if spec.pretraining == wanted]


def _row(spec: BackboneSpec, resolution: int) -> ListRow:
    facts = load_costs().get((spec.architecture, resolution))
    costs = (None, None, None) if facts is None else (facts.macs, facts.params, facts.met_params)
    return ListRow(spec, *_pretraining(spec), *costs)


def _pretraining(spec: BackboneSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Objectives with and without public weights: of the spec when it has one, else of its card size or its tags."""
    if spec.pretraining:
        return ((spec.pretraining,), ()) if spec.public_weights else ((), (spec.pretraining,))
    if spec.card:
        listed = load_cards()[spec.card].sizes[spec.size].pretraining
        return tuple(o for o, name in listed.items() if name), tuple(o for o, name in listed.items() if not name)
    entry = load_index().get(spec.architecture)
    objectives = (objective_of(f"{spec.architecture}.{tag}") for tag in entry.tags) if entry and not spec.tag else ()
    return tuple(dict.fromkeys(filter(None, objectives))), ()


def _objective(name: str) -> str:
    if found := objective_named(name):
        return found.name
    near = nearest(name, load_objectives(), 5) or list(load_objectives())
    raise UnknownName(f"no pretraining {name!r}; did you mean {', '.join(near)}?")


@dataclass(frozen=True, slots=True)
class TagRow:
    """One set of weights in timm; `listed`: the card's choice for its objective."""

    timm_name: str
    objective: str
    licence: str
    listed: bool


@dataclass(frozen=True, slots=True)
class PretrainingRow:
    """One objective of a card.

    sizes: size -> the card's choice, a timm name, empty text without public weights. others: size -> further weights.
    """

    objective: Objective
    sizes: Mapping[str, str]
    others: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that is known about one backbone.

    card, size: None for a timm model without a card. rule: how its model class is built and tapped, None for a
    backbone that timm's index lacks. tags: all weights in timm for this size. costs: by resolution.
    """

    spec: BackboneSpec
    card: Card | None
    size: CardSize | None
    module: str
    model_class: str
    rule: ModelRule | None
    tags: tuple[TagRow, ...]
    pretraining: tuple[PretrainingRow, ...]
    costs: tuple[BackboneFacts, ...]

    @property
    def ffn(self) -> str:
        """`reused` or `fresh` as the cost table found it, empty where it has no row: only building tells the block."""
        return self.costs[0].ffn if self.costs else ""


def show(name: str) -> Sheet:
    """The sheet of the backbone that `name` means. Raises UnknownName."""
    spec = resolve(name)
    card = load_cards().get(spec.card)
    size = card.sizes[spec.size] if card else None
    entry = load_index().get(spec.architecture)
    return Sheet(
        spec=spec,
        card=card,
        size=size,
        module=entry.module if entry else "",
        model_class=entry.cls if entry else "",
        rule=load_rules().model_rule(entry.module, entry.cls, spec.architecture, spec.rule) if entry else None,
        tags=tuple(_tag_rows(size.architectures if size else (spec.architecture,), size)),
        pretraining=tuple(_pretraining_rows(card)) if card else (),
        costs=tuple(facts for (arch, _), facts in sorted(load_costs().items()) if arch == spec.architecture),
    )


def _tag_rows(architectures: Iterable[str], size: CardSize | None) -> Iterable[TagRow]:
    listed = {name: objective for objective, name in size.pretraining.items()} if size else {}
    for architecture in architectures:
        entry = load_index().get(architecture)
        for tag, licence in entry.tags.items() if entry else ():
            name = f"{architecture}.{tag}"
            yield TagRow(name, listed.get(name) or objective_of(name), licence, name in listed)


def _pretraining_rows(card: Card) -> Iterable[PretrainingRow]:
    tags = {size.name: list(_tag_rows(size.architectures, size)) for size in card.sizes.values()}
    for objective in load_objectives().values():
        name = objective.name
        sizes = {size.name: size.pretraining[name] for size in card.sizes.values() if name in size.pretraining}
        others = {
            size: tuple(tag.timm_name for tag in tags[size] if tag.objective == name and not tag.listed)
            for size in sizes
        }
        if sizes:
            yield PretrainingRow(objective, sizes, others)
