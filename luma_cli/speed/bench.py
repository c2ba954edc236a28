"""The measured rows of one device, told apart: those that answer as they are, those that are evidence, the rest.

A row answers as it is when everything that moves the number is equal: environment, number format, attention, compile
mode, layout, head and its options. Rows of the same device and number format and compile mode that differ in the head
or come from an older environment (driver, torch, power limit) are evidence with an offset of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp

from luma_cli.errors import UsageError
from luma_cli.speed.quantity import Z80, Quantity
from luma_cli.store.profiles import Conditions, Measured
from luma_cli.units import BudgetKind

# Spread of a repeated measurement, log: of the median over a session, and of one that its own samples call noisy.
REPEAT_SD, NOISY_SD = 0.02, 0.15
_NOISE = {"ms": "latency", "fps": "latency", "images_per_second": "throughput", "joules": "energy"}


@dataclass(frozen=True, slots=True)
class Bench:
    """One device with its rows. conditions: those that answer, None when nothing was measured there.

    rows: latest of each architecture and size under exactly `conditions`. related: evidence under others of the same
    number format, attention, layout and compile mode. num_left_out: rows that inform nothing, flagged ones included.
    """

    device_name: str
    conditions: Conditions | None = None
    rows: tuple[Measured, ...] = ()
    related: tuple[Measured, ...] = ()
    num_left_out: int = 0

    @property
    def num_older(self) -> int:
        """Related rows from another environment of this device."""
        return sum(self.is_older(row) for row in self.related)

    def is_older(self, row: Measured) -> bool:
        """Whether the row is from another environment than the one that answers."""
        return self.conditions is not None and row.conditions.environment != self.conditions.environment

    @property
    def answering(self) -> Iterator[Measured]:
        """Rows that answer for their own segmenter: `rows`, and those that differ in the number of classes alone."""
        yield from self.rows
        if self.conditions is not None:
            others = {row.conditions for row in self.related}
            same = {
                each for each in others if replace(each, num_classes=self.conditions.num_classes) == self.conditions
            }
            yield from (row for row in self.related if row.conditions in same)


def quantity_of(kind: BudgetKind, row: Measured) -> Quantity | None:
    """The row's own number in the kind's unit, with the spread of a repeated measurement."""
    value = value_of(kind, row)
    if value is None:
        return None
    noisy = _NOISE.get(kind) in row.noisy
    factor = exp(Z80 * (NOISY_SD if noisy else REPEAT_SD))
    note = f"its own samples call the {_NOISE[kind]} noisy" if noisy else ""
    return Quantity(kind, value, value / factor, value * factor, "measured", note=note)


def value_of(kind: BudgetKind, row: Measured) -> float | None:
    """What the row measured of this kind, in the kind's own unit; None when it did not."""
    if kind == "fps":
        return 1000 / row.latency_ms if row.latency_ms else None
    found = {
        "ms": row.latency_ms,
        "images_per_second": row.images_per_second,
        "bytes": row.memory_bytes,
        "joules": row.energy_joules,
    }.get(kind)
    return found or None


def bench_of(
    measured: Sequence[Measured], device: str | None = None, *, head: str = "luma", environment: str | None = None
) -> Bench:
    """The rows of the device that may answer for segmenters with this head, as measured in its present environment.

    environment: identity of the machine as JSON; None takes that of the latest row. Of several sets of conditions there
    the one with most models answers, of equal ones the latest. Raises UsageError when several devices could be meant.
    """
    found = [row for row in measured if device is None or is_device(row.conditions, device)]
    sound = sorted((row for row in found if not row.flags), key=lambda row: (row.started_at, row.fingerprint))
    names = sorted({row.conditions.device_name for row in sound})
    if len(names) > 1:
        raise UsageError(f"measured on {len(names)} devices ({', '.join(names)}); name one, e.g. --device {names[0]!r}")
    if not sound:
        return Bench(device or "", num_left_out=len(found))
    conditions = _conditions(sound, head, environment)
    rows = _latest(row for row in sound if row.conditions == conditions)
    others = [row for row in sound if row.conditions != conditions and _is_related(row.conditions, conditions)]
    related = _latest(others)
    return Bench(names[0], conditions, rows, related, len(found) - len(rows) - len(related))


def is_device(conditions: Conditions, device: str) -> bool:
    """Whether the user's word names this device: its kind (`cuda:0`, `cpu`) or part of its name."""
    wanted = device.lower()
    return wanted.split(":")[0] == conditions.device.lower() or wanted in conditions.device_name.lower()


def _conditions(rows: Sequence[Measured], head: str, environment: str | None) -> Conditions:
    """The conditions that answer: of this head if it was measured, in the environment, with most models.

    Where nothing was measured with the head or in the environment, no row has them, and all rows are evidence.
    """
    present = rows[-1].conditions.environment if environment is None else environment
    here = [row for row in rows if row.conditions.environment == present] or list(rows)
    asked = [row for row in here if row.conditions.head == head] or here
    counts = Counter(row.conditions for row in asked)
    latest = {row.conditions: row.started_at for row in asked}
    best = max(counts, key=lambda each: (counts[each], latest[each], each))
    return replace(best, head=head, environment=present)


def _is_related(one: Conditions, other: Conditions) -> bool:
    """Whether the rows differ at most in head, its options, classes and environment."""
    names = ("device", "dtype", "attention", "compile", "channels_last")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _latest(rows: Iterable[Measured]) -> tuple[Measured, ...]:
    """The last of each segmenter and set of conditions; rows come oldest first."""
    return tuple({(row.key, row.conditions): row for row in rows}.values())
