"""A list of backbones as a table and as JSON."""

from __future__ import annotations

from typing import Any

from luma_cli.catalogue.costs import BackboneFacts
from luma_cli.catalogue.head_cost import eomt_plan_from_facts, head_macs, head_params
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.listing import Listing, ListRow, PretrainingRow, Sheet
from luma_cli.report.profiles import cost_cell, head_text
from luma_cli.report.table import Table, columns, number, print_table
from luma_cli.units import FlopConvention, convention_caption, gflops, gmacs

_WEIGHTS = "pretraining with public weights~"


def print_listing(listing: Listing, convention: FlopConvention = "mac") -> None:
    """Print the rows, and how many each family has."""
    counts = ", ".join(f"{count} {family}" for family, count in listing.families.items())
    caption = f"cost of the backbone alone at {listing.resolution} px; {convention_caption(convention)}"
    if listing.num_without_cost:
        caption += f"; {listing.num_without_cost} left out: no cost in the shipped table (`luma cost NAME` counts it)"
    active = any(row.active_params != row.params for row in listing.rows)
    if active:
        caption += "; active: parameters that one token meets"
    headings = ("backbone", "family", "GFLOPs>", "params M>", *(["active M>"] if active else []), _WEIGHTS)
    print_table(
        Table(
            columns(*headings),
            tuple(_cells(row, convention, active) for row in listing.rows),
            title=f"{len(listing.rows)} backbones" + (f": {counts}" if counts else ""),
            caption=caption,
        )
    )


def _cells(row: ListRow, convention: FlopConvention, active: bool) -> tuple[str, ...]:
    unreleased = f"(not public: {', '.join(row.unreleased)})" if row.unreleased else ""
    return (
        row.spec.name,
        row.spec.family,
        number(None if row.macs is None else gflops(row.macs, convention)),
        _millions(row.params),
        *([_millions(row.active_params)] if active else []),
        " ".join(filter(None, (", ".join(row.pretraining), unreleased))) or "-",
    )


def _millions(params: int | None) -> str:
    return number(None if params is None else params / 1e6)


def listing_json(listing: Listing, convention: FlopConvention = "mac") -> dict[str, Any]:
    """Schema 1."""
    return {
        "schema": 1,
        "resolution": listing.resolution,
        "flop_convention": convention,
        "without_cost": listing.num_without_cost,
        "backbones": [
            {
                "backbone": row.spec.name,
                "timm_name": row.spec.timm_name,
                "family": row.spec.family,
                "token_mixer": row.spec.token_mixer or None,
                "pretraining": list(row.pretraining),
                "unreleased": list(row.unreleased),
                "backbone_macs": row.macs,
                "gmacs": None if row.macs is None else gmacs(row.macs),
                "gflops": None if row.macs is None else gflops(row.macs, convention),
                "backbone_params": row.params,
                "backbone_active_params": row.active_params,
            }
            for row in listing.rows
        ],
    }


def print_sheet(sheet: Sheet, convention: FlopConvention = "mac", head: HeadConfig | None = None) -> None:
    """Print facts, weights and costs with a head, LUMA where None is given. Raises BuildError as `head_macs` does."""
    head = head or HeadConfig()
    costs = _costs(sheet, convention, head)
    print_table(Table(columns("fact", "value~"), tuple(facts(sheet).items())))
    if sheet.tags:
        print_table(_weights(sheet))
    if sheet.costs:
        print_table(costs)
    else:
        print_table(Table(columns("costs~"), ((f"not in the shipped table; run: luma cost {sheet.spec.name}",),)))


def _weights(sheet: Sheet) -> Table:
    """The card's choice for every objective, or all weights of a timm model without a card."""
    shown = [tag for tag in sheet.tags if tag.listed] or sheet.tags
    more = len(sheet.tags) - len(shown)
    return Table(
        columns("weights in timm", "pretraining", "licence~"),
        tuple((tag.timm_name, tag.objective or "-", tag.licence or "-") for tag in shown),
        caption=f"{more} more in timm: see --json" if more else "",
    )


def facts(sheet: Sheet) -> dict[str, str]:
    """What is known, by name; what is not is left out."""
    spec, rule = sheet.spec, sheet.rule
    found = {
        "name": spec.name,
        "timm name": spec.timm_name,
        "family": spec.family,
        "token mixer": spec.token_mixer,
        "pretraining": spec.pretraining,
        "weights": "" if spec.public_weights else "no public weights: costed and profiled, never recommended",
        "licence": spec.licence,
        "aliases": ", ".join(sheet.size.aliases) if sheet.size else "",
        "class": sheet.model_class,
        "tap": _tap(rule.tap) if rule else "",
        "FFN": _ffn(sheet),
        "other resolutions": sheet.card.resizing if sheet.card else "",
        "note": sheet.card.note if sheet.card else "",
        "sources": " ".join(sheet.card.sources) if sheet.card else "",
    }
    return {name: value for name, value in found.items() if value}


def _ffn(sheet: Sheet) -> str:
    reason = f": {sheet.rule.reason}" if sheet.rule and sheet.rule.reason else ""
    return f"{sheet.ffn}{reason}" if sheet.ffn else f"known once built: luma doctor {sheet.spec.name}"


def _tap(tap: str | tuple[str, ...]) -> str:
    return tap if isinstance(tap, str) else " or ".join(tap)


_COSTS = ("px>", "GFLOPs>", "backbone GFLOPs>", "head GFLOPs>", "params M>", "channels>", "stride>", "tokens>", "FFN")


def _costs(sheet: Sheet, convention: FlopConvention, head: HeadConfig) -> Table:
    caption = f"{convention_caption(convention)}; {head_text(head, _num_blocks(sheet, head))}"
    rows = tuple(_cost_cells(row, convention, head) for row in sheet.costs)
    if all(row.met_params == row.params for row in sheet.costs):
        return Table(columns(*_COSTS), rows, caption=caption)
    met = (number((row.met_params + head_params(row, head)) / 1e6) for row in sheet.costs)
    rows = tuple((*row, active) for row, active in zip(rows, met, strict=True))
    return Table(columns(*_COSTS, "active M>"), rows, caption=f"{caption}; active: parameters that one token meets")


def _num_blocks(sheet: Sheet, head: HeadConfig) -> int:
    """Blocks that queries meet, which EoMT decides by depth."""
    return eomt_plan_from_facts(sheet.costs[0], head).num_joint if head.name == "eomt" and sheet.costs else head.l2


def _cost_cells(row: BackboneFacts, convention: FlopConvention, head: HeadConfig) -> tuple[str, ...]:
    macs, params = head_macs(row, head), head_params(row, head)
    return (
        str(row.resolution),
        cost_cell(row.macs + macs, row.complete, convention),
        cost_cell(row.macs, row.complete, convention),
        number(gflops(macs, convention)),
        number((row.params + params) / 1e6),
        str(row.width),
        str(row.stride),
        str(row.num_tokens),
        row.ffn,
    )


def print_pretraining(sheet: Sheet) -> None:
    """Print what the card's objectives are, and objective by size the timm weights or `no public weights`."""
    if not sheet.pretraining:
        print_table(Table(columns("weights~"), ((f"no card has {sheet.spec.name}; see luma list",),)))
        return
    print_table(_objectives(sheet))
    print_table(_by_size(sheet))


def _objectives(sheet: Sheet) -> Table:
    return Table(
        columns("pretraining", "dense", "what~", "data~"),
        tuple(
            (one.name, "yes" if one.dense else "no", one.title, one.data)
            for one in (row.objective for row in sheet.pretraining)
        ),
        title=f"card {sheet.spec.card}: {_counts(sheet)}",
        caption="dense: the objective itself acts on patches or pixels",
    )


def _counts(sheet: Sheet) -> str:
    """How many pretrainings the card has and how many of their sizes have public weights."""
    names = [name for row in sheet.pretraining for name in row.sizes.values()]
    return f"{sum(map(bool, names))} of {len(names)} pairs of pretraining and size have public weights"


def _by_size(sheet: Sheet) -> Table:
    return Table(
        columns("pretraining", "size", "weights in timm~", "more>"),
        tuple(
            (row.objective.name, size, name or "no public weights", str(len(row.others[size])) if name else "-")
            for row in sheet.pretraining
            for size, name in row.sizes.items()
        ),
        caption=f"more: other weights of the objective in timm, named by luma show {sheet.spec.name} --json",
        merge=1,
    )


def sheet_json(sheet: Sheet, convention: FlopConvention = "mac", head: HeadConfig | None = None) -> dict[str, Any]:
    """Schema 1; costs with a head, LUMA where None is given. Raises BuildError as `head_macs` does."""
    head = head or HeadConfig()
    return {
        "schema": 1,
        "facts": facts(sheet),
        "weights": [
            {
                "timm_name": t.timm_name,
                "pretraining": t.objective or None,
                "licence": t.licence or None,
                "card": t.listed,
            }
            for t in sheet.tags
        ],
        "pretraining": {row.objective.name: dict(row.sizes) for row in sheet.pretraining},
        "objectives": [_objective_json(row) for row in sheet.pretraining],
        "flop_convention": convention,
        "head": head.name,
        "costs": [
            {
                "resolution": row.resolution,
                "macs": row.macs + head_macs(row, head),
                "backbone_macs": row.macs,
                "head_macs": head_macs(row, head),
                "gflops": gflops(row.macs + head_macs(row, head), convention),
                "params": row.params + head_params(row, head),
                "active_params": row.met_params + head_params(row, head),
                "width": row.width,
                "stride": row.stride,
                "ffn": row.ffn,
                "flops_complete": row.complete,
            }
            for row in sheet.costs
        ],
    }


def _objective_json(row: PretrainingRow) -> dict[str, Any]:
    """An objective and, by size, all of its weights in timm, the card's choice first."""
    one = row.objective
    return {
        "name": one.name,
        "title": one.title,
        "data": one.data,
        "dense": one.dense,
        "source": one.source,
        "weights": {size: [name, *row.others[size]] if name else [] for size, name in row.sizes.items()},
    }
