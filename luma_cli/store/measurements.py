"""The numbers that a recommendation reads, as light tuples: many times faster than Profiles."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from luma_cli.store.database import file_of
from luma_cli.store.faults import translated

_QUERY = """
SELECT p.fingerprint, p.started_at, p.backbone, p.timm_name, p.family, p.pretraining, p.backbone_hash <> '',
    p.resolution_pixels, p.head, p.queries, p.classes, p.l2_requested, p.tap_requested, p.ffn_requested, p.prefix,
    p.device, p.environment, p.device_name, p.dtype, p.attention,
    p.compile, p.channels_last, p.batch_requested, p.macs, p.flops_complete IS NOT 0, p.params,
    p.latency_eager_p50_ms, p.latency_eager_noisy, p.throughput_images_per_second, p.throughput_noisy,
    p.energy_j_per_image, p.energy_noisy, p.memory_device_bytes, p.memory_allocated_bytes,
    ifnull(p.throttled, 0), ifnull(p.shared, 0)
FROM profiles p
WHERE p.status = 'ok' AND p.head <> 'none' AND p.part = 'all'
"""


class Measurement(NamedTuple):
    """Numbers of one whole segmenter, from its latest attempt if that ended well.

    batch_requested: 0 where throughput is at the plateau batch. latency_ms: batch 1, eager, median. memory: bytes,
    peak at batch 1. energy: J per image. identity: JSON of what must be equal for two rows to be compared, besides
    the columns from `head` to `channels_last`. None means not measured; flags are 0 or 1, None without the number.
    """

    fingerprint: str
    started_at: str
    backbone: str
    timm_name: str
    family: str
    pretraining: str
    own_module: int
    resolution: int
    head: str
    queries: int
    classes: int
    l2: int
    tap: str
    ffn: str
    prefix: int
    device: str
    identity: str
    device_name: str
    dtype: str
    attention: str
    compile: str
    channels_last: str
    batch_requested: int
    macs: int | None
    macs_complete: int
    params: int | None
    latency_ms: float | None
    latency_noisy: int | None
    images_per_second: float | None
    images_per_second_noisy: int | None
    energy_joules: float | None
    energy_noisy: int | None
    memory_device_bytes: float | None
    memory_allocated_bytes: float | None
    throttled: int
    shared: int


def measurements(connection: sqlite3.Connection | None, device_name: str | None = None) -> list[Measurement]:
    """Measured segmenters, of one device or of all. Empty without a database."""
    if connection is None:
        return []
    query, values = (_QUERY, []) if device_name is None else (f"{_QUERY} AND p.device_name = ?", [device_name])
    with translated(file_of(connection)):
        return [Measurement._make(row) for row in connection.execute(query, values)]


def device_names(connection: sqlite3.Connection) -> list[str]:
    """Names of the devices that anything was measured on, in alphabetical order."""
    with translated(file_of(connection)):
        rows = connection.execute("SELECT DISTINCT device_name FROM environment WHERE device_name <> '' ORDER BY 1")
        return [name for (name,) in rows]
