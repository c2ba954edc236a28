"""Profiles and exact costs as a table, JSON (schema 1) or CSV; a number that was not measured is null."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luma_cli.catalogue.heads import HAS, HeadConfig
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.measure.cost import Cost
from luma_cli.report.table import Table, columns, number, print_csv, print_json, print_table
from luma_cli.store.records import Configuration, Environment, Metric, Profile
from luma_cli.units import FlopConvention, convention_caption, gflops, gibibytes, gmacs

if TYPE_CHECKING:
    from luma_cli.measure.facts import ModuleCost


SCHEMA = 1
ACTIVE = "active M: parameters that one token uses"
_FACTS = ("params", "active_params", "backbone_params", "head_params", "backbone_macs", "head_macs")
_NOT_RUN = ("weights", "device", "device_name", "dtype", "attention", "compile", "batch", "fingerprint")


def print_profiles(
    profiles: Sequence[Profile], convention: FlopConvention = "mac", as_json: bool = False, as_csv: bool = False
) -> None:
    """Print to stdout. The first columns of CSV have the names of timm's published results."""
    if as_json or as_csv:
        _print_rows([profile_row(profile, convention) for profile in profiles], as_csv)
    else:
        print_table(profile_table(profiles, convention))


def _print_rows(rows: Sequence[dict[str, Any]], as_csv: bool) -> None:
    if as_csv:
        flat = [flat_row(row) for row in rows]
        print_csv(list(flat[0]) if flat else ["model"], [list(row.values()) for row in flat])
    else:
        print_json({"schema": SCHEMA, "profiles": rows})


def profile_row(profile: Profile, convention: FlopConvention = "mac") -> dict[str, Any]:
    """The JSON row of `profile`. `macs` are multiply-adds per image; `gflops` follow `flop_convention`."""
    configuration, facts, metrics = profile.configuration, profile.facts, profile.metrics
    macs = facts.get("macs")
    throughput, energy = metrics.get("throughput"), metrics.get("energy")
    return {
        "backbone": configuration.backbone,
        "timm_name": configuration.timm_name,
        "weights": configuration.weights,
        "family": configuration.family,
        "head": configuration.head.name,
        **head_fields(configuration.head, facts),
        "resolution": configuration.resolution,
        "device": configuration.device,
        "device_name": profile.environment.identity.get("device_name"),
        "dtype": configuration.dtype,
        "attention": configuration.attention,
        "compile": configuration.compile,
        "batch": profile.batch,
        "macs": macs,
        "gmacs": None if macs is None else gmacs(macs),
        "gflops": None if macs is None else gflops(macs, convention),
        "flop_convention": convention,
        "flops_complete": facts.get("flops_complete"),
        **{key: facts.get(key) for key in _FACTS},
        "throughput": throughput
        and {name: getattr(throughput, name) for name in ("median", "ci_low", "ci_high", "unit", "n")},
        "latency_ms": {
            mode: (found := metrics.get(f"latency_{mode}")) and {"p50": found.median, "p90": found.p90, "n": found.n}
            for mode in ("eager", "cuda_graph")
        },
        "memory_bytes": {
            kind: round(metrics[f"memory_{kind}"].median) if f"memory_{kind}" in metrics else None
            for kind in ("allocated", "reserved", "device")
        },
        "energy_j_per_image": energy.median if energy else None,
        "status": profile.status,
        "reason": profile.reason,
        "fingerprint": profile.fingerprint,
    }


def head_fields(head: HeadConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the head, null where it has no such option. `l2` is the number of blocks with queries."""
    values = {
        "ffn": ("ffn", facts.get("ffn")),
        "tap": ("tap", head.tap),
        "queries": ("num_queries", head.num_queries),
        "l2": ("l2", facts.get("l2", head.l2 or None)),
        "classes": ("num_classes", head.num_classes),
        "prefix": ("prefix", head.prefix),
        "variant": ("variant", head.variant if head.name == "luma" else head.design or None),
        "design": ("variant", head.design if head.name == "luma" else head.design or None),
    }
    return {name: value if option in HAS[head.name] else None for name, (option, value) in values.items()}


def flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """The CSV row: timm's column names first, nested numbers flattened."""
    throughput = row["throughput"] or {}
    timm = {
        "model": row["timm_name"],
        "infer_img_size": row["resolution"],
        "infer_samples_per_sec": throughput.get("median"),
        "infer_batch_size": row["batch"],
        "infer_gmacs": row["gmacs"],
        "param_count": None if row["params"] is None else row["params"] / 1e6,
    }
    nested = {"throughput", "latency_ms", "memory_bytes"}
    flat = {key: value for key, value in row.items() if key not in nested}
    for mode, latency in row["latency_ms"].items():
        for key in ("p50", "p90", "n"):
            flat[f"latency_{mode}_{key}" + ("" if key == "n" else "_ms")] = (latency or {}).get(key)
    flat |= {f"memory_{kind}_bytes": value for kind, value in row["memory_bytes"].items()}
    return timm | flat | {f"throughput_{key}": throughput.get(key) for key in ("ci_low", "ci_high", "n")}


def profile_table(profiles: Sequence[Profile], convention: FlopConvention = "mac") -> Table:
    """Exact cost, speed and memory, one row per configuration."""
    noisy = any(metric.noisy for profile in profiles for metric in profile.metrics.values())
    reasons = [
        f"{profile.configuration.backbone} at {profile.configuration.resolution} px, {profile.status}: {profile.reason}"
        for profile in profiles
        if profile.reason
    ]
    said = [convention_caption(convention), *dict.fromkeys(map(_conditions, profiles))]
    said += sorted({f"energy {note}" for profile in profiles if (note := profile.notes.get("energy"))})
    said += ["noisy: the 95% interval was still wider than 1% at --max-seconds" if noisy else "", *reasons]
    return Table(
        columns("backbone", "px>", "GFLOPs>", "params M>", "batch>", "img/s>", "ms p50>", "p90>", "GiB>", "status~"),
        tuple(_row(profile, convention) for profile in profiles),
        caption="\n".join(said).strip(),
    )


def _row(profile: Profile, convention: FlopConvention) -> tuple[str, ...]:
    facts, metrics = profile.facts, profile.metrics
    memory = metrics.get("memory_device") or metrics.get("memory_allocated")
    latency = metrics.get("latency_eager")
    noisy = any(metric.noisy for metric in metrics.values())
    return (
        profile.configuration.backbone,
        str(profile.configuration.resolution),
        cost_cell(facts.get("macs"), bool(facts.get("flops_complete", True)), convention),
        millions(facts.get("params")),
        "-" if profile.batch is None else str(profile.batch),
        _interval(metrics.get("throughput")),
        number(latency.median if latency else None),
        number(latency.p90 if latency else None),
        number(gibibytes(memory.median) if memory else None, 2),
        profile.status + (" noisy" if noisy else "") + (" throttled" if profile.notes.get("throttled") else ""),
    )


def cost_cell(macs: int | None, complete: bool, convention: FlopConvention) -> str:
    """GFLOPs of `macs` multiply-adds, with `>=` when an operation had no formula."""
    return "-" if macs is None else ("" if complete else ">= ") + number(gflops(macs, convention))


def millions(params: int | None) -> str:
    """Millions of parameters."""
    return number(None if params is None else params / 1e6)


def _interval(metric: Metric | None) -> str:
    """Median and half of the 95% interval, rounded to the first digit of the latter; a wide one by its ends."""
    if metric is None:
        return "-"
    half = max(metric.ci_high - metric.median, metric.median - metric.ci_low)
    if half > metric.median / 2:
        median, low, high = (
            f"{float(f'{value:.2g}'):,.6g}" for value in (metric.median, metric.ci_low, metric.ci_high)
        )
        return f"{median} ({low} to {high})"
    place = math.floor(math.log10(half)) if half > 0 else -1
    return " ±".join(f"{round(value, -place):,.{max(0, -place)}f}" for value in (metric.median, half))


def _conditions(profile: Profile) -> str:
    one = profile.configuration
    return (
        f"{profile.environment.identity.get('device_name', one.device)}, {one.dtype}, attention {one.attention}, "
        f"compile {one.compile}, head {' '.join(filter(None, (one.head.name, one.head.design)))}, weights {one.weights}"
        + (f", {one.part} alone" if one.part != "all" else "")
    )


@dataclass(frozen=True, slots=True)
class Misfit:
    """A size, in pixels, that a backbone does not support, and why."""

    resolution: int
    head: HeadConfig
    reason: str


Counted = Sequence[tuple[BackboneSpec, Cost | Misfit]]


def print_costs(
    counted: Counted, convention: FlopConvention = "mac", as_json: bool = False, as_csv: bool = False
) -> None:
    """Print exact costs to stdout; JSON and CSV have the keys of `print_profiles`, null where nothing was run."""
    if as_json or as_csv:
        _print_rows([cost_row(spec, cost, convention) for spec, cost in counted], as_csv)
    else:
        print_table(_cost_table(counted, convention))


def cost_row(spec: BackboneSpec, cost: Cost | Misfit, convention: FlopConvention = "mac") -> dict[str, Any]:
    """The JSON row of a cost: `profile_row`, null where nothing was run."""
    configuration = Configuration(spec.name, spec.timm_name, cost.resolution, cost.head, spec.family, spec.pretraining)
    counted = (
        Profile(configuration, Environment({}), "ok", facts=cost.as_facts())
        if isinstance(cost, Cost)
        else Profile(configuration, Environment({}), "not_applicable", cost.reason)
    )
    return profile_row(counted, convention) | dict.fromkeys(_NOT_RUN)


def _cost_table(counted: Counted, convention: FlopConvention) -> Table:
    known = [cost for _, cost in counted if isinstance(cost, Cost)]
    unknown = sorted({name for cost in known for name in cost.unknown_ops})
    active = any(cost.active_params < cost.params for cost in known)
    headings = ["backbone", "px>", "GFLOPs>", "backbone GFLOPs>", "head GFLOPs>", "params M>", "backbone M>", "head M>"]
    headings += ["FFN", *(["active M>"] if active else [])]
    rows = []
    for spec, cost in counted:
        if isinstance(cost, Misfit):
            cells = [*["-"] * 6, "cannot be built", "-"]
        else:
            cells = [cost_cell(macs, cost.complete, convention) for macs in (cost.macs, cost.backbone_macs)]
            cells += [number(gflops(cost.head_macs, convention))]
            cells += [millions(params) for params in (cost.params, cost.backbone_params, cost.head_params)]
            cells += [cost.ffn, millions(cost.active_params)]
        rows.append((spec.name, str(cost.resolution), *cells)[: len(headings)])
    said = [*dict.fromkeys(head_text(cost.head, cost.l2) for cost in known if cost.head.name != "none")]
    said += [f">=: no formula for {', '.join(unknown)}"] if unknown else []
    said += [ACTIVE] if active else []
    misfits = [cost.reason for _, cost in counted if isinstance(cost, Misfit)]
    caption = "\n".join(["; ".join([convention_caption(convention), *said]), *misfits])
    return Table(columns(*headings), tuple(rows), caption=caption, merge=1)


def print_modules(title: str, modules: Sequence[ModuleCost]) -> None:
    """Print multiply-adds per module, our count and fvcore's; the first row is the whole."""
    rows = [
        (
            module.path or "segmenter",
            number(module.macs / 1e9, 3),
            number(None if module.fvcore_macs is None else module.fvcore_macs / 1e9, 3),
            f"{module.macs / modules[0].macs:.1%}",
            number(module.params / 1e6, 3),
        )
        for module in modules
    ]
    caption = "GMACs: multiply-adds / 10^9; `caller > name`: called by another module, which fvcore does not count"
    print_table(Table(columns("module", "GMACs>", "fvcore>", "share>", "params M>"), tuple(rows), title, caption))


def head_text(head: HeadConfig, l2: int) -> str:
    """The head in words, with options that differ from the default; l2: the number of blocks with queries."""
    has = HAS[head.name]
    said = [f"{head.num_queries} queries"] if "num_queries" in has else []
    said += [f"{head.num_classes} classes"] if "num_classes" in has else []
    said += [f"{l2} blocks"] if "l2" in has and l2 != 1 else []
    said += [f"tap {head.tap}"] if head.tap != "output" and head.variant == "paper-page" else []
    said += ["with prefix tokens"] if head.prefix and head.variant == "paper-page" else []
    said += [head.design] if head.design else []
    return ", ".join([f"head {head.name}", *said])
