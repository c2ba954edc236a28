"""`luma list` and `luma show`: backbones as a list, and one backbone with facts, weights and costs."""

from __future__ import annotations

from typing import Any

from luma_cli.catalogue.costs import BackboneFacts
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.listing import Listing, ListRow, Sheet
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.measure.cost import cost_from_facts
from luma_cli.report.profiles import ACTIVE, millions, print_costs
from luma_cli.report.table import Table, columns, number, print_json, print_table
from luma_cli.units import FlopConvention, convention_caption, gflops, gmacs


def print_listing(listing: Listing, convention: FlopConvention = "mac", as_json: bool = False) -> None:
    """Print the rows, and the number of each family, to stdout."""
    if as_json:
        print_json(listing_json(listing, convention))
        return
    counts = ", ".join(f"{count} {family}" for family, count in listing.families.items())
    caption = f"cost of the backbone alone at {listing.resolution} px; {convention_caption(convention)}"
    if listing.num_without_cost:
        caption += f"; {listing.num_without_cost} left out without a shipped cost (`luma cost NAME` counts it)"
    active = any(row.active_params != row.params for row in listing.rows)
    headings = ["backbone", "family", "GFLOPs>", "params M>", *(["active M>"] if active else [])]
    rows = []
    for row in listing.rows:
        numbers = [number(None if row.macs is None else gflops(row.macs, convention)), millions(row.params)]
        numbers += [millions(row.active_params)] if active else []
        rows.append((row.spec.name, row.spec.family, *numbers, _pretraining(row)))
    print_table(
        Table(
            columns(*headings, "pretraining with public weights~"),
            tuple(rows),
            title=f"{len(listing.rows)} backbones" + (f": {counts}" if counts else ""),
            caption=f"{caption}; {ACTIVE}" if active else caption,
        )
    )


def _pretraining(row: ListRow) -> str:
    unreleased = f"(not public: {', '.join(row.unreleased)})" if row.unreleased else ""
    return f"{', '.join(row.pretraining)} {unreleased}".strip() or "-"


def listing_json(listing: Listing, convention: FlopConvention = "mac") -> dict[str, Any]:
    """Schema 1 of `luma list`."""
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
                "pretraining": row.pretraining,
                "unreleased": row.unreleased,
                "backbone_macs": row.macs,
                "gmacs": None if row.macs is None else gmacs(row.macs),
                "gflops": None if row.macs is None else gflops(row.macs, convention),
                "backbone_params": row.params,
                "backbone_active_params": row.active_params,
            }
            for row in listing.rows
        ],
    }


def print_sheet(
    sheet: Sheet, convention: FlopConvention = "mac", head: HeadConfig | None = None, as_json: bool = False
) -> None:
    """Print facts, weights and costs with a head (default: LUMA). Raises BuildError as `head_macs` does."""
    head = head or HeadConfig()
    if as_json:
        print_json(sheet_json(sheet, convention, head))
        return
    costs = [(sheet.spec, cost_from_facts(sheet.spec, row, head)) for row in sheet.costs]
    print_table(Table(columns("fact", "value~"), tuple(facts(sheet).items())))
    if sheet.tags:
        print_table(_weights(sheet))
    if costs:
        print_costs(costs, convention)
    else:
        print_table(Table(columns("costs~"), ((f"not in the shipped table; run: luma cost {sheet.spec.name}",),)))


def _weights(sheet: Sheet) -> Table:
    # The card's choice for every objective, or all weights of a timm model without a card.
    shown = [tag for tag in sheet.tags if tag.listed] or sheet.tags
    more = len(sheet.tags) - len(shown)
    return Table(
        columns("weights in timm", "pretraining", "licence~"),
        tuple((tag.timm_name, tag.objective or "-", tag.licence or "-") for tag in shown),
        caption=f"{more} more in timm: see --json" if more else "",
    )


def facts(sheet: Sheet) -> dict[str, str]:
    """The known facts, by name."""
    spec, rule, card = sheet.spec, sheet.rule, sheet.card
    ffn = f"{sheet.ffn}{f': {rule.reason}' if rule and rule.reason else ''}"
    tap = rule.tap if rule else ""
    found = {
        "name": spec.name,
        "timm name": spec.timm_name,
        "family": spec.family,
        "token mixer": spec.token_mixer,
        "pretraining": spec.pretraining,
        "weights": "" if spec.public_weights else "no public weights: has costs and profiles, is never recommended",
        "licence": spec.licence,
        "aliases": ", ".join(sheet.size.aliases) if sheet.size else "",
        "class": sheet.model_class,
        "tap": tap if isinstance(tap, str) else " or ".join(tap),
        "FFN": ffn if sheet.ffn else f"not known before it is built: luma doctor {spec.name}",
        "other resolutions": card.resizing if card else "",
        "note": card.note if card else "",
        "sources": " ".join(card.sources) if card else "",
    }
    return {name: value for name, value in found.items() if value}


def print_pretraining(sheet: Sheet) -> None:
    """Print the card's objectives, and the timm weights of each objective and size."""
    if not sheet.pretraining:
        print_table(Table(columns("weights~"), ((f"no card has {sheet.spec.name}; see luma list",),)))
        return
    names = [name for row in sheet.pretraining for name in row.sizes.values()]
    objectives = [row.objective for row in sheet.pretraining]
    public = f"{sum(map(bool, names))} of {len(names)} pairs of pretraining and size have public weights"
    print_table(
        Table(
            columns("pretraining", "dense", "what~", "data~"),
            tuple((one.name, "yes" if one.dense else "no", one.title, one.data) for one in objectives),
            title=f"card {sheet.spec.card}: {public}",
            caption="dense: the loss acts on patches or pixels",
        )
    )
    print_table(
        Table(
            columns("pretraining", "size", "weights in timm~", "more>"),
            tuple(
                (row.objective.name, size, name or "no public weights", str(len(row.others[size])) if name else "-")
                for row in sheet.pretraining
                for size, name in row.sizes.items()
            ),
            caption=f"more: other weights of the objective in timm; luma show {sheet.spec.name} --json lists them",
            merge=1,
        )
    )


def sheet_json(sheet: Sheet, convention: FlopConvention = "mac", head: HeadConfig | None = None) -> dict[str, Any]:
    """Schema 1 of `luma show`; costs with a head (default: LUMA). Raises BuildError as `head_macs` does."""
    head = head or HeadConfig()
    weights = [
        {"timm_name": t.timm_name, "pretraining": t.objective or None, "licence": t.licence or None, "card": t.listed}
        for t in sheet.tags
    ]
    return {
        "schema": 1,
        "facts": facts(sheet),
        "weights": weights,
        "pretraining": {row.objective.name: row.sizes for row in sheet.pretraining},
        "objectives": [
            # By size all weights of the objective in timm, the card's choice first.
            {name: getattr(row.objective, name) for name in ("name", "title", "data", "dense", "source")}
            | {"weights": {size: [name, *row.others[size]] if name else [] for size, name in row.sizes.items()}}
            for row in sheet.pretraining
        ],
        "flop_convention": convention,
        "head": head.name,
        "costs": [_cost_json(sheet.spec, row, head, convention) for row in sheet.costs],
    }


def _cost_json(spec: BackboneSpec, row: BackboneFacts, head: HeadConfig, convention: FlopConvention) -> dict[str, Any]:
    cost = cost_from_facts(spec, row, head)
    names = ("resolution", "macs", "backbone_macs", "head_macs", "params", "active_params", "width", "stride")
    found = {name: getattr(cost, name) for name in names}
    return found | {"gflops": gflops(cost.macs, convention), "ffn": row.ffn, "flops_complete": cost.complete}
