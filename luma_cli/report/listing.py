"""A list of backbones as a table and as JSON."""

from __future__ import annotations

from typing import Any

from luma_cli.catalogue.listing import Listing, ListRow
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
