"""The user's profiles of one device, kept apart by conditions, so that only equal conditions are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from luma_cli.findings.finding import EvidenceRow
from luma_cli.speed.bench import is_device
from luma_cli.store.profiles import Conditions, Measured

# Attention that writes the N x N weights to memory: what a GPU without FlashAttention does.
_UNFUSED = ("math", "unfused")


def of_device(rows: Iterable[Measured], device: str | None) -> tuple[str, list[Measured]]:
    """Sound rows of the device named, or of the one with most rows; its name, empty when there is none."""
    sound = [row for row in rows if not row.flags and (not device or is_device(row.conditions, device))]
    counts = Counter(row.conditions.device_name for row in sound)
    name = max(counts, key=lambda each: (counts[each], each), default="")
    return name, [row for row in sound if row.conditions.device_name == name]


def device_option(device: str | None) -> str:
    """` --device cuda` for a `luma profile` line; empty where the user named a model, which only its machine can run.

    >>> device_option("cuda:1"), device_option("RTX 4090")
    (' --device cuda:1', '')
    """
    return f" --device {device}" if device and device.split(":")[0] in ("cpu", "cuda") else ""


def is_fused(conditions: Conditions) -> bool:
    """Whether attention was fused (FlashAttention): `auto` takes a fused kernel wherever there is one."""
    return conditions.attention not in _UNFUSED


def latest(rows: Sequence[Measured]) -> list[Measured]:
    """The last row of every model and size under each set of conditions."""
    ordered = sorted(rows, key=lambda row: (row.started_at, row.fingerprint))
    found = {(row.conditions, row.architecture, row.resolution): row for row in ordered if not row.own_module}
    return list(found.values())


def profile_row(row: Measured) -> EvidenceRow:
    """A profile as a row behind a claim."""
    speed = "no throughput" if row.images_per_second is None else f"{row.images_per_second:.1f} img/s"
    memory = "no memory" if row.memory_bytes is None else f"{row.memory_bytes / 2**30:.2f} GiB"
    says = f"{row.architecture} at {row.resolution} px: {speed}, {memory}; {row.conditions.label}"
    return EvidenceRow(row.fingerprint[:12], says, f"your profile of {row.started_at}")
