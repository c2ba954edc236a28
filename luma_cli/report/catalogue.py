"""`luma list` and `luma show`: backbones as a list, and one backbone with facts, weights and costs."""

from __future__ import annotations

import math
from typing import Any

from luma_cli.catalogue.costs import BackboneFacts
from luma_cli.catalogue.head_cost import plan_from_facts
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.listing import Listing, ListRow, Sheet
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.measure.cost import cost_from_facts
from luma_cli.report.profiles import ACTIVE, head_text, millions, print_costs
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
    sheet: Sheet,
    convention: FlopConvention = "mac",
    head: HeadConfig | None = None,
    as_json: bool = False,
    *,
    equations: bool = False,
) -> None:
    """Print facts, weights and costs with a head (default: LUMA), and its equations if it is LUMA.

    Raises BuildError as `head_macs` does.
    """
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
        if equations and head.name == "luma":
            print_table(luma_equations(sheet.costs[-1], head))
    else:
        print_table(Table(columns("costs~"), ((f"not in the shipped table; run: luma cost {sheet.spec.name}",),)))


def luma_equations(facts: BackboneFacts, head: HeadConfig) -> Table:
    """What the LUMA head of these options computes on this backbone, step by step (arXiv 2607.00687).

    Raises BuildError as `plan_from_facts` does.
    """
    plan = plan_from_facts(facts, head)
    width, side = plan.width, math.isqrt(facts.num_tokens)
    finer = side * 2**plan.num_scale_blocks
    seen = ", with class and register tokens" if head.prefix and facts.num_prefix_tokens else ""
    norm = "the backbone's final norm" if plan.shares_final_norm else "LayerNorm"
    read = "n(x) the backbone's final norm" if plan.shares_read_norm else "n(x) a LayerNorm each"
    ffn = "the block's own FFN, shared" if plan.ffn == "reused" else "a fresh FFN"
    scale = "g * " if head.layer_scale else ""
    mask_side = int(facts.resolution / plan.mask_stride)
    resized = "" if finer == mask_side else f", resized to {mask_side} x {mask_side}"
    steps = [
        ("X", f"{head.tap} of the last block: {plan.num_tokens or facts.num_tokens} tokens{seen}"),
        ("Q", f"{head.num_queries} learned queries of {width} channels, the same for every image"),
        ("A", f"softmax(n(Q) Wq (n(X) Wk)' / sqrt({width // plan.num_heads})) n(X) Wv, {plan.num_heads} heads; {read}"),
        ("Q <-", f"Q + {scale}A Wo; {'biases on q, k, v and o' if head.qkv_bias else 'a bias on o alone'}"),
        ("Q <-", f"Q + FFN(norm(Q)): {ffn}"),
        ("Z", f"norm(Q): {norm}" if head.query_norm else "Q, not normed"),
        ("P", f"norm(last map, {side} x {side}): {norm}"),
        ("U", f"P doubled {plan.num_scale_blocks} x, to {finer} x {finer}"),
        ("classes", f"Z Wc: {head.num_classes} and 'no object'"),
        ("masks", f"MLP3(Z) U', at 1/{plan.mask_stride:g} of the image{resized}"),
    ]
    title = f"variant {head.variant}: {head_text(head, head.l2)}, at {facts.resolution} px"
    earlier = f"A and Q <- run at the {head.l2} last blocks in turn" if head.l2 > 1 else ""
    return Table(columns("", "LUMA (arXiv 2607.00687)~"), tuple(steps), title=title, caption=earlier)


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
