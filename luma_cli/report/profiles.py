"""One profile as the public JSON row (schema 1) and as the CSV row. Numbers that were not measured are null."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from luma_cli.catalogue.heads import HAS, HeadConfig
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.measure.cost import Cost
from luma_cli.report.table import Table, columns, number, print_table
from luma_cli.store.records import Configuration, Environment, Metric, Profile
from luma_cli.units import FlopConvention, convention_caption, gflops, gibibytes, gmacs

if TYPE_CHECKING:
    from luma_cli.measure.facts import ModuleCost

SCHEMA = 1


def profile_row(profile: Profile, convention: FlopConvention = "mac") -> dict[str, Any]:
    """The JSON row of `profile`. `macs` are multiply-adds per image; `gflops` follow `flop_convention`."""
    configuration, facts = profile.configuration, profile.facts
    macs = facts.get("macs")
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
        **_measured(profile.metrics),
        "status": profile.status,
        "reason": profile.reason,
        "fingerprint": profile.fingerprint,
    }


def head_fields(head: HeadConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the head was built with; null what it does not have. `l2` is the number of blocks that queries met."""
    has = HAS[head.name]
    return {
        "ffn": facts.get("ffn") if "ffn" in has else None,
        "tap": head.tap if "tap" in has else None,
        "queries": head.num_queries if "num_queries" in has else None,
        "l2": facts.get("l2", head.l2 or None) if "l2" in has else None,
        "classes": head.num_classes if "num_classes" in has else None,
        "prefix": head.prefix if "prefix" in has else None,
    }


_FACTS = ("params", "active_params", "backbone_params", "head_params", "backbone_macs", "head_macs")


def _measured(metrics: dict[str, Metric]) -> dict[str, Any]:
    throughput = metrics.get("throughput")
    energy = metrics.get("energy")
    return {
        "throughput": throughput
        and {
            "median": throughput.median,
            "ci_low": throughput.ci_low,
            "ci_high": throughput.ci_high,
            "unit": throughput.unit,
            "n": throughput.n,
        },
        "latency_ms": {
            "eager": _latency(metrics.get("latency_eager")),
            "cuda_graph": _latency(metrics.get("latency_cuda_graph")),
        },
        "memory_bytes": {name: _median(metrics.get(f"memory_{name}")) for name in ("allocated", "reserved", "device")},
        "energy_j_per_image": energy.median if energy else None,
    }


def _latency(metric: Metric | None) -> dict[str, float | int | None] | None:
    return None if metric is None else {"p50": metric.median, "p90": metric.p90, "n": metric.n}


def _median(metric: Metric | None) -> int | None:
    return None if metric is None else round(metric.median)


def write_json(profiles: Sequence[Profile], file: TextIO, convention: FlopConvention = "mac") -> None:
    """Write `{"schema": 1, "profiles": [...]}`."""
    rows = [profile_row(profile, convention) for profile in profiles]
    json.dump({"schema": SCHEMA, "profiles": rows}, file, indent=1, allow_nan=False)
    file.write("\n")


def write_csv(profiles: Sequence[Profile], file: TextIO, convention: FlopConvention = "mac") -> None:
    """Write one CSV row per profile; the first columns are named as in timm's published results."""
    rows = [flat_row(profile_row(profile, convention)) for profile in profiles]
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["model"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """The JSON row with nested numbers flattened, timm's column names first."""
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
    for kind, value in row["memory_bytes"].items():
        flat[f"memory_{kind}_bytes"] = value
    for key in ("ci_low", "ci_high", "n"):
        flat[f"throughput_{key}"] = throughput.get(key)
    return timm | flat


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


_SPLIT = ("backbone GFLOPs>", "head GFLOPs>", "params M>", "backbone M>", "head M>")


@dataclass(frozen=True, slots=True)
class Misfit:
    """A size, in pixels, at which a backbone cannot be built, and why."""

    resolution: int
    head: HeadConfig
    reason: str


Counted = Sequence[tuple[BackboneSpec, Cost | Misfit]]
_NOT_RUN = ("weights", "device", "device_name", "dtype", "attention", "compile", "batch", "fingerprint")


def cost_row(spec: BackboneSpec, cost: Cost | Misfit, convention: FlopConvention = "mac") -> dict[str, Any]:
    """The JSON row of a cost: `profile_row` with nothing run."""
    configuration = Configuration(spec.name, spec.timm_name, cost.resolution, cost.head, spec.family, spec.pretraining)
    counted = (
        Profile(configuration, Environment({}), "ok", facts=cost.as_facts())
        if isinstance(cost, Cost)
        else Profile(configuration, Environment({}), "not_applicable", cost.reason)
    )
    return profile_row(counted, convention) | dict.fromkeys(_NOT_RUN)


def write_cost_json(counted: Counted, file: TextIO, convention: FlopConvention = "mac") -> None:
    """Write `{"schema": 1, "profiles": [...]}`."""
    rows = [cost_row(spec, cost, convention) for spec, cost in counted]
    json.dump({"schema": SCHEMA, "profiles": rows}, file, indent=1, allow_nan=False)
    file.write("\n")


def write_cost_csv(counted: Counted, file: TextIO, convention: FlopConvention = "mac") -> None:
    """Write one CSV row per cost, columns as in `profile --csv`."""
    rows = [flat_row(cost_row(spec, cost, convention)) for spec, cost in counted]
    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def print_cost_table(counted: Counted, convention: FlopConvention = "mac") -> None:
    """Print backbone, head and sum, one row per size."""
    rows = [_cells(spec, cost, convention) for spec, cost in counted]
    known = [cost for _, cost in counted if isinstance(cost, Cost)]
    unknown = sorted({name for cost in known for name in cost.unknown_ops})
    said = [*dict.fromkeys(head_text(cost.head, cost.l2) for cost in known if cost.head.name != "none")]
    said += [f">=: no formula for {', '.join(unknown)}"] if unknown else []
    misfits = [cost.reason for _, cost in counted if isinstance(cost, Misfit)]
    headings = ["backbone", "px>", "GFLOPs>", *_SPLIT, "FFN"]
    if any(cost.active_params < cost.params for cost in known):
        headings.append("active M>")
        rows = [(*row, _active_cell(cost)) for row, (_, cost) in zip(rows, counted, strict=True)]
        said += ["active: parameters that one token meets"]
    caption = "\n".join(["; ".join([convention_caption(convention), *said]), *misfits])
    print_table(Table(columns(*headings), tuple(rows), caption=caption, merge=1))


def _active_cell(cost: Cost | Misfit) -> str:
    return "-" if isinstance(cost, Misfit) else number(cost.active_params / 1e6)


def _cells(spec: BackboneSpec, cost: Cost | Misfit, convention: FlopConvention) -> tuple[str, ...]:
    if isinstance(cost, Misfit):
        return (spec.name, str(cost.resolution), *["-"] * (1 + len(_SPLIT)), "cannot be built")
    return (
        spec.name,
        str(cost.resolution),
        cost_cell(cost.macs, cost.complete, convention),
        cost_cell(cost.backbone_macs, cost.complete, convention),
        number(gflops(cost.head_macs, convention)),
        number(cost.params / 1e6),
        number(cost.backbone_params / 1e6),
        number(cost.head_params / 1e6),
        cost.ffn,
    )


def print_modules(title: str, modules: Sequence[ModuleCost]) -> None:
    """Print one row per module; the first is the whole."""
    whole = modules[0]
    rows = tuple(
        (
            module.path or "segmenter",
            number(module.macs / 1e9, 3),
            number(None if module.fvcore_macs is None else module.fvcore_macs / 1e9, 3),
            f"{module.macs / whole.macs:.1%}",
            number(module.params / 1e6, 3),
        )
        for module in modules
    )
    table = Table(
        columns("module", "GMACs>", "fvcore>", "share>", "params M>"),
        rows,
        title=title,
        caption="GMACs: multiply-adds / 10^9; `caller > name`: borrowed by the caller, which fvcore cannot tell",
    )
    print_table(table)


def head_text(head: HeadConfig, l2: int) -> str:
    """The head in words, options that differ from the default among them; l2: the blocks that queries meet."""
    has = HAS[head.name]
    said = [f"{head.num_queries} queries"] if "num_queries" in has else []
    said += [f"{head.num_classes} classes"] if "num_classes" in has else []
    said += [f"{l2} blocks"] if "l2" in has and l2 != 1 else []
    said += [f"tap {head.tap}"] if head.tap != "output" else []
    said += ["prefix tokens seen"] if head.prefix else []
    return ", ".join([f"head {head.name}", *said])
