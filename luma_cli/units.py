"""Units, their conversion, and budgets such as `200gflops`, `20ms`, `8GiB`, `24gpuh`.

What is stored is multiply-adds (`macs`). What is shown and parsed as GFLOPs counts one multiply-add as one FLOP, as
fvcore, EoMT and the segmentation papers do; the convention `2x` doubles display and budgets alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from luma_cli.errors import BadBudget, UsageError

FlopConvention = Literal["mac", "2x"]
BudgetKind = Literal[
    "macs", "params", "ms", "fps", "images_per_second", "bytes", "joules", "gpu_hours", "training_bytes",
    "macs_image", "ms_image", "fps_image", "images_per_second_image", "joules_image",
]  # fmt: skip

# Kinds where more is better: the budget is a floor, not a ceiling.
FLOORS: frozenset[str] = frozenset({"fps", "images_per_second", "fps_image", "images_per_second_image"})
# Of a whole image, all its windows together -> the kind of one crop.
PER_CROP: Mapping[BudgetKind, BudgetKind] = {
    "macs_image": "macs",
    "ms_image": "ms",
    "fps_image": "fps",
    "images_per_second_image": "images_per_second",
    "joules_image": "joules",
}
_PER_IMAGE: Mapping[BudgetKind, BudgetKind] = {crop: image for image, crop in PER_CROP.items()}

_FLOPS_PER_MAC: dict[str, int] = {"mac": 1, "2x": 2}
_SI = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}

# unit as typed (lower case) -> kind, factor to the kind's own unit; flops are divided by the convention afterwards.
_UNITS: dict[str, tuple[BudgetKind, float]] = {
    **{f"{p}flops": ("macs", f) for p, f in _SI.items() if p},
    **{f"{p}flop": ("macs", f) for p, f in _SI.items() if p},
    **{f"{p}macs": ("macs", f) for p, f in _SI.items() if p},
    **{f"{p}mac": ("macs", f) for p, f in _SI.items() if p},
    "t": ("macs", 1e12),
    **{f"{p}params": ("params", f) for p, f in _SI.items()},
    "ms": ("ms", 1.0),
    "us": ("ms", 1e-3),
    "s": ("ms", 1e3),
    "fps": ("fps", 1.0),
    "img/s": ("images_per_second", 1.0),
    "images/s": ("images_per_second", 1.0),
    **{f"{p}b": ("bytes", f) for p, f in _SI.items() if p in ("m", "g", "t")},
    **{f"{p}ib": ("bytes", float(1024**n)) for p, n in (("m", 2), ("g", 3), ("t", 4))},
    **{f"{p}btrain": ("training_bytes", f) for p, f in _SI.items() if p in ("m", "g", "t")},
    **{f"{p}ibtrain": ("training_bytes", float(1024**n)) for p, n in (("m", 2), ("g", 3), ("t", 4))},
    "j": ("joules", 1.0),
    "mj": ("joules", 1e-3),
    **dict.fromkeys(("gpuh", "gpuhour", "gpuhours"), ("gpu_hours", 1.0)),
}
_BUDGET = re.compile(
    r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?)\s*([a-z/]+(?:[\s-][a-z]+)?)\s*", re.IGNORECASE
)
_LEAST_SIDE, _MOST_STRETCHED = 32, 32
BUDGET_EXAMPLES = (
    "200gflops, 400gflops/image, 100gmacs, 50Mparams, 20ms, 30fps, 500img/s, 8GiB, 8GiB-train, 2J or 24gpuh"
)


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound: `limit` in the kind's own unit (macs, params, ms, fps, images/s, bytes, J, hours), `text` as typed.

    Of one crop; kinds that end in `_image` are of a whole image, all its windows together. ms, fps: batch-1 latency;
    bytes: peak at batch 1, training_bytes: of a training step; gpu_hours: of training with the usual recipe. Raises
    BadBudget for a limit that is not a finite number above zero.
    """

    kind: BudgetKind
    limit: float
    text: str

    def __post_init__(self) -> None:
        """Refuses what bounds nothing."""
        if not (self.limit > 0 and math.isfinite(self.limit)):
            raise BadBudget(f"budget {self.text!r} must be greater than zero and finite; try {BUDGET_EXAMPLES}")

    @property
    def is_floor(self) -> bool:
        """True for rates, where the budget is the least that will do."""
        return self.kind in FLOORS

    def holds(self, value: float) -> bool:
        """Whether `value`, in the kind's own unit, is within the budget."""
        return value >= self.limit if self.is_floor else value <= self.limit


def parse_budget(text: str, convention: FlopConvention = "mac") -> Budget:
    """The budget that `text` states, e.g. `200gflops` of a crop or `400gflops/image`. Raises BadBudget with examples.

    >>> parse_budget("200 GFLOPs").limit
    200000000000.0
    >>> parse_budget("200gflops", "2x").limit
    100000000000.0
    """
    match = _BUDGET.fullmatch(text)
    if match is None:
        raise BadBudget(f"budget {text!r} is not a number with a unit; try {BUDGET_EXAMPLES}")
    number, unit = float(match[1]), re.sub(r"[\s-]", "", match[2].lower())
    of_image = re.fullmatch(r"(.+)/(?:image|img)", unit)
    if (unit := of_image[1] if of_image else unit) not in _UNITS:
        raise BadBudget(f"budget {text!r}: unknown unit {match[2]!r}; try {BUDGET_EXAMPLES}")
    kind, factor = _UNITS[unit]
    if of_image:
        if kind not in _PER_IMAGE or kind in FLOORS:
            raise BadBudget(f"budget {text!r}: {unit} has no value per image; try {BUDGET_EXAMPLES}")
        kind = _PER_IMAGE[kind]
    per_mac = 1 if kind != "macs" or "mac" in unit else _FLOPS_PER_MAC[convention]
    return Budget(kind, number * factor / per_mac, text.strip())


def of_images(budget: Budget) -> Budget:
    """A rate per crop as that of whole images; any other budget as it is."""
    is_rate = budget.kind in FLOORS and budget.kind in _PER_IMAGE
    return replace(budget, kind=_PER_IMAGE[budget.kind]) if is_rate else budget


def parse_image(text: str) -> tuple[int, int]:
    """Height and width of `WIDTHxHEIGHT` in pixels. Raises UsageError.

    >>> parse_image("1920x1080")
    (1080, 1920)
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*[x×*]\s*(\d{1,6})\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"--image is {text!r}, expected WIDTHxHEIGHT in pixels, e.g. --image 1920x1080")
    width, height = int(match[1]), int(match[2])
    if min(width, height) < _LEAST_SIDE or max(width, height) > _MOST_STRETCHED * min(width, height):
        raise UsageError(
            f"--image is {text!r}, expected sides of {_LEAST_SIDE} pixels or more, one at most {_MOST_STRETCHED} times "
            "the other, e.g. --image 1920x1080"
        )
    return height, width


def gmacs(macs: float) -> float:
    """Multiply-adds in units of 10^9."""
    return macs / 1e9


def gflops(macs: float, convention: FlopConvention = "mac") -> float:
    """GFLOPs of `macs` multiply-adds under the convention (`mac`: 1 each, `2x`: 2 each)."""
    return macs * _FLOPS_PER_MAC[convention] / 1e9


def convention_caption(convention: FlopConvention) -> str:
    """The sentence that a table of GFLOPs carries."""
    return f"GFLOPs: 1 multiply-add = {_FLOPS_PER_MAC[convention]} FLOP{'s' if convention == '2x' else ''}"


def counted(number: int, one: str) -> str:
    """A number of things.

    >>> counted(1, "source"), counted(3, "source")
    ('1 source', '3 sources')
    """
    return f"{number} {one}{'' if number == 1 else 's'}"


def gibibytes(num_bytes: float) -> float:
    """Bytes in units of 2^30."""
    return num_bytes / 2**30
