"""Profiles as a table, JSON or CSV."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from luma_cli.report.profile_row import write_csv, write_json
from luma_cli.report.table import Table, columns, number, print_table
from luma_cli.store.records import Metric, Profile
from luma_cli.units import FlopConvention, convention_caption, gflops, gibibytes


def print_profiles(
    profiles: Sequence[Profile], convention: FlopConvention = "mac", as_json: bool = False, as_csv: bool = False
) -> None:
    """Print to stdout."""
    if as_json:
        write_json(profiles, sys.stdout, convention)
    elif as_csv:
        write_csv(profiles, sys.stdout, convention)
    else:
        print_table(profile_table(profiles, convention))


def profile_table(profiles: Sequence[Profile], convention: FlopConvention = "mac") -> Table:
    """Speed and memory beside exact cost, one row per configuration."""
    rows = tuple(_row(profile, convention) for profile in profiles)
    return Table(
        columns("backbone", "px>", "GFLOPs>", "params M>", "batch>", "img/s>", "ms p50>", "p90>", "GiB>", "status~"),
        rows,
        caption="\n".join(
            [convention_caption(convention), *_conditions(profiles), _legend(profiles), *_reasons(profiles)]
        ).strip(),
    )


def _row(profile: Profile, convention: FlopConvention) -> tuple[str, ...]:
    facts, metrics = profile.facts, profile.metrics
    memory = metrics.get("memory_device") or metrics.get("memory_allocated")
    latency = metrics.get("latency_eager")
    return (
        profile.configuration.backbone,
        str(profile.configuration.resolution),
        cost_cell(facts.get("macs"), bool(facts.get("flops_complete", True)), convention),
        number(None if facts.get("params") is None else facts["params"] / 1e6),
        "-" if profile.batch is None else str(profile.batch),
        _interval(metrics.get("throughput")),
        number(latency.median if latency else None),
        number(latency.p90 if latency else None),
        number(gibibytes(memory.median) if memory else None, 2),
        _status(profile),
    )


def cost_cell(macs: int | None, complete: bool, convention: FlopConvention) -> str:
    """GFLOPs, with `>=` when an operation had no formula."""
    if macs is None:
        return "-"
    return ("" if complete else ">= ") + number(gflops(macs, convention))


def _interval(metric: Metric | None) -> str:
    """Median and half of the 95% interval, in digits that the interval supports."""
    if metric is None:
        return "-"
    half = max(metric.ci_high - metric.median, metric.median - metric.ci_low)
    place = math.floor(math.log10(half)) if half > 0 else -1
    rounded = [f"{round(value, -place):,.{max(0, -place)}f}" for value in (metric.median, half)]
    return " ±".join(rounded)


def _status(profile: Profile) -> str:
    noisy = any(metric.noisy for metric in profile.metrics.values())
    return profile.status + (" noisy" if noisy else "") + (" throttled" if profile.notes.get("throttled") else "")


def _reasons(profiles: Sequence[Profile]) -> list[str]:
    """Why rows have no numbers: below the table, where a sentence has room."""
    return [
        f"{profile.configuration.backbone} at {profile.configuration.resolution} px, {profile.status}: {profile.reason}"
        for profile in profiles
        if profile.reason
    ]


def _conditions(profiles: Sequence[Profile]) -> list[str]:
    """What all rows were measured under, one line per set of conditions."""
    lines: dict[str, None] = {}
    for profile in profiles:
        configuration = profile.configuration
        device = profile.environment.identity.get("device_name", configuration.device)
        lines[
            f"{device}, {configuration.dtype}, attention {configuration.attention}, compile {configuration.compile}, "
            f"head {configuration.head.name}, weights {configuration.weights}"
            + (f", {configuration.part} alone" if configuration.part != "all" else "")
        ] = None
    return list(lines)


def _legend(profiles: Sequence[Profile]) -> str:
    noisy = any(metric.noisy for profile in profiles for metric in profile.metrics.values())
    return "noisy: the 95% interval was still wider than 1% at --max-seconds" if noisy else ""
