"""Peak memory of inference at batch 1: weights, a share of the activations, and what the device takes for itself.

    bytes = weights + share x activations + base + noise,   share, base ~ Normal

in closed form. Before anything was measured the interval is wide: how much of the activations is alive at once depends
on the allocator and the kernels. The memory column of the WTF benchmark is not used: it holds what a training in the
same process left over (a median of 9.9 times the weights).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from luma_cli.catalogue.costs import load_costs
from luma_cli.speed import shipped
from luma_cli.speed.bench import Bench
from luma_cli.speed.features import stem_of
from luma_cli.speed.measured import Measured
from luma_cli.speed.quantity import Z80, Quantity, Workload
from luma_cli.speed.shipped import Classifier
from luma_cli.speed.times import LARGE_SIDE, workload_of

if TYPE_CHECKING:
    from luma_cli.speed.features import Floats

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Before any measurement: a process takes 0.2 to 0.9 GiB (CUDA context or interpreter), and a hundredth to all of the
# activations are alive at once.
_BASE_BYTES, _BASE_SD = 0.6 * 2**30, 0.3 * 2**30
_SHARE, _SHARE_SD = 0.4, 0.3
_NOISE, _LEAST_NOISE_BYTES = 0.06, 32 * 2**20
_QUERIES, _MASK_STRIDE, _USUAL_WIDTH = 100, 4, 768
_MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class Size:
    """A segmenter's bytes: of its weights, and of all activations of one image."""

    weights: float
    activations: float


def predict(bench: Bench, workloads: Sequence[Workload], dtype: str) -> list[Quantity | None]:
    """Peak bytes at batch 1 with weights in `dtype`; None where parameters or activations were never counted.

    What was measured on the bench moves share and base, also where heads and environments differ.
    """
    import numpy as np

    sizes = [size_of(each, dtype) for each in workloads]
    known = [size for size in sizes if size is not None]
    seen = _evidence(bench, dtype)
    mean, cov = _posterior(*seen)
    if not known:
        return [None] * len(sizes)
    terms = np.array([[1.0, size.activations] for size in known])
    weights = np.array([size.weights for size in known])
    value = np.maximum(weights + terms @ mean, weights)
    sd = np.sqrt(((terms @ cov) * terms).sum(1) + _noise(value) ** 2)
    low, high = np.maximum(value - Z80 * sd, weights), value + Z80 * sd
    numbers = iter(zip(value.tolist(), low.tolist(), high.tolist(), strict=True))
    largest = max((row.resolution for row in _rows(bench)), default=0)
    return [
        None if size is None else _quantity(next(numbers), each, len(seen[0]), largest, _place(bench, dtype))
        for each, size in zip(workloads, sizes, strict=True)
    ]


def size_of(workload: Workload, dtype: str) -> Size | None:
    """Bytes of weights and activations in the number format; activations of the head by its map and masks."""
    activations = activations_of(workload)
    if workload.params is None or activations is None or dtype not in _BYTES:
        return None
    return Size(float(workload.params * _BYTES[dtype]), float(activations * _BYTES[dtype]))


def activations_of(workload: Workload) -> int | None:
    """Counted outputs of backbone and head; where only the backbone's are known, the head's masks are added."""
    if workload.activations is not None:
        return workload.activations
    facts = load_costs().get((workload.architecture, workload.resolution))
    width = min(facts.width, _USUAL_WIDTH) if facts else _USUAL_WIDTH
    backbone = facts.activations if facts else _shipped_activations(workload.architecture, workload.resolution)
    side = workload.resolution // _MASK_STRIDE
    head = 0 if workload.head == "none" else side**2 * (_QUERIES + width)
    return None if backbone is None else backbone + head


def _shipped_activations(architecture: str, resolution: int) -> int | None:
    """Those of timm's classifier at its nearest size, in proportion to the area; None for a network it has not."""
    rows = _shipped_rows().get(stem_of(architecture))
    if not rows:
        return None
    row = min(rows, key=lambda each: abs(each.resolution - resolution))
    return int(row.activations * (resolution / row.resolution) ** 2)


@cache
def _shipped_rows() -> dict[str, list[Classifier]]:
    found = defaultdict(list)
    for row in shipped.load().rows:
        found[stem_of(row.architecture)].append(row)
    return dict(found)


def _quantity(
    numbers: tuple[float, float, float], workload: Workload, num_rows: int, largest: int, place: str
) -> Quantity:
    value, low, high = numbers
    extrapolated = workload.head != "none" and workload.resolution >= LARGE_SIDE > largest
    notes = [] if num_rows else [f"no memory was measured on {place}: from weights and counts alone"]
    notes += (
        [f"extrapolated: nothing at {LARGE_SIDE} px or more was measured here"] if extrapolated and num_rows else []
    )
    return Quantity("bytes", value, low, high, "predicted", extrapolated or not num_rows, "; ".join(notes))


def _place(bench: Bench, dtype: str) -> str:
    return f"{bench.device_name or 'any device'}{'' if bench.conditions else f', {dtype} weights assumed'}"


def _rows(bench: Bench) -> list[Measured]:
    return [row for row in (*bench.rows, *bench.related) if row.memory_bytes and not row.own_module][:_MOST_ROWS]


def _evidence(bench: Bench, dtype: str) -> tuple[Floats, Floats, Floats]:
    """(m, 2) terms, (m,) bytes beyond weights, (m,) noise of the measured rows."""
    import numpy as np

    found = [(size_of(workload_of(row), dtype), float(row.memory_bytes or 0)) for row in _rows(bench)]
    usable = [(size, measured) for size, measured in found if size is not None]
    terms = np.array([[1.0, size.activations] for size, _ in usable]).reshape(-1, 2)
    beyond = np.array([measured - size.weights for size, measured in usable])
    return terms, beyond, _noise(np.array([measured for _, measured in usable]))


def _posterior(terms: Floats, beyond: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Mean (2,) and covariance (2, 2) of base and share."""
    import numpy as np

    prior_mean, prior_sd = np.array([_BASE_BYTES, _SHARE]), np.array([_BASE_SD, _SHARE_SD])
    # In units of the prior's deviations: bytes and shares differ by 9 orders of magnitude.
    scaled = terms * prior_sd / noise[:, None]
    inverse = np.linalg.inv(np.eye(2) + scaled.T @ scaled)
    shift = inverse @ scaled.T @ ((beyond - terms @ prior_mean) / noise)
    mean: Floats = prior_mean + prior_sd * shift
    cov: Floats = inverse * np.outer(prior_sd, prior_sd)
    return mean, cov


def _noise(measured: Floats) -> Floats:
    import numpy as np

    total: Floats = np.maximum(_NOISE * measured, _LEAST_NOISE_BYTES)
    return total
