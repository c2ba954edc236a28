"""One profile as the public JSON row (schema 1) and as the CSV row. Numbers that were not measured are null."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from luma_cli.catalogue.heads import HAS, HeadConfig
from luma_cli.store.records import Metric, Profile
from luma_cli.units import FlopConvention, gflops, gmacs

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
