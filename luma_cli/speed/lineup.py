"""Which shipped settings speak for a device: its own, else those of other devices of the same class, else a law.

A class is device kind, precision and compile mode (`shipped.Setting.speed_class`); settings of different classes are
never compared. Without any of the class, only the power law of the costs carries over, and its wider spread says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

from luma_cli.speed import shipped
from luma_cli.speed.measured import Conditions
from luma_cli.speed.reference import Reference, reference_of
from luma_cli.speed.shipped import Table
from luma_cli.speed.transfer import SHIPPED, Spread

# Spreads where no setting of the class ships: moments of the laws of the eight shipped settings about their mean.
COSTS_ONLY = replace(SHIPPED, size=0.15, intensity=0.2, side=0.3, family=0.3, stem=0.2, contrast=0.0)
# Latency at batch 1 about a reference with an overhead (`latency`), assumed: kernels at batch 1 are other ones.
LATENCY = replace(SHIPPED, size=0.1, intensity=0.1, side=0.1, family=0.1, stem=0.1, noise=0.03)
# The level of the device's own shipped setting: another machine, driver and release of torch.
_OWN_SCALE = 0.1

_WORDS = re.compile(r"[^\s()@/]+")
# Words of a device's full name that do not make it another model.
_IDLE = frozenset(("nvidia", "geforce", "amd", "intel", "r", "tm", "core", "cpu", "graphics"))
_EDITIONS = frozenset(("blackwell", "workstation", "edition", "generation"))
_CLOCK = re.compile(r"[\d.]+ghz")


@dataclass(frozen=True, slots=True)
class Lineup:
    """The reference with the spread that goes with it. why: what it stands on, for readers."""

    reference: Reference
    spread: Spread
    own: bool
    why: str


def class_of(conditions: Conditions) -> tuple[str, str]:
    """Device kind with precision, and compile mode, as `Setting.speed_class` has them."""
    precision = "fp32" if conditions.dtype == "float32" else "half"
    return f"{conditions.device} {precision}", conditions.compile


def shipped_name(device: str, table: Table | None = None) -> str:
    """The shipped device model that the text names (`4090`, `NVIDIA GeForce RTX 4090`); empty for none or several.

    Variants are other models: `RTX 4090 Laptop GPU` and `RTX 4090 D` name none.
    """
    found = {setting.device_name for setting in (table or shipped.load()).settings}
    wanted = _words(device)
    matching = [name for name in found if wanted and (wanted <= _words(name) or _words(name) == wanted)]
    return matching[0] if len(matching) == 1 else ""


def _words(name: str) -> frozenset[str]:
    words = _WORDS.findall(name.lower())
    return frozenset(word for word in words if word not in _IDLE | _EDITIONS and not _CLOCK.fullmatch(word))


@cache
def lineup(speed_class: tuple[str, str], device: str) -> Lineup:
    """What ships for a device of this class. device: a name of `shipped_name`, or empty."""
    return lineup_in(shipped.load(), speed_class, device)


def lineup_in(table: Table, speed_class: tuple[str, str], device: str = "", without: str = "") -> Lineup:
    """The same in any table. without: a device whose settings are left out, for audits."""
    settings = [each for each in table.settings if each.device_name != without]
    of_class = [each for each in settings if each.speed_class == speed_class]
    own = [each for each in of_class if device and each.device_name == device]
    if own:
        spread = replace(SHIPPED, scale=_OWN_SCALE)
        return Lineup(reference_of(table, own, own=True), spread, True, f"timm's throughput of {device}")
    if of_class:
        names = sorted({each.device_name for each in of_class})
        return Lineup(
            reference_of(table, of_class, own=False), SHIPPED, False, f"timm's throughput of {', '.join(names)}"
        )
    kind = speed_class[0].split()[0]
    others = [each for each in settings if each.speed_class[0].split()[0] == kind] or settings
    law = reference_of(table, others, own=False).law_only()
    why = f"multiply-adds alone, as no throughput ships for {' with compile '.join(speed_class)}"
    return Lineup(law, COSTS_ONLY, False, why)
