"""The measured rows of one device: those that answer directly, those that are evidence, the rest.

A row answers directly when all that changes the number is equal: environment, number format, attention, compile mode,
layout, head and its options. Rows that differ only in the head or the environment (driver, torch, power limit) are
evidence, with an offset of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp
from operator import attrgetter

from luma_cli.errors import UsageError
from luma_cli.speed.quantity import Z80, Quantity
from luma_cli.store.profiles import Conditions, Measured
from luma_cli.units import BudgetKind

# Standard deviation of a repeated measurement, log: usual, and of one whose samples are noisy.
REPEAT_SD, NOISY_SD = 0.02, 0.15
_NOISE = {"ms": "latency", "fps": "latency", "images_per_second": "throughput", "joules": "energy"}


@dataclass(frozen=True, slots=True)
class Bench:
    """One device with its rows. conditions: those that answer, None when nothing was measured there.

    rows: the latest of each architecture and size under exactly `conditions`. related: evidence under others of the
    same number format, attention, layout and compile mode.
    """

    device_name: str
    conditions: Conditions | None = None
    rows: tuple[Measured, ...] = ()
    related: tuple[Measured, ...] = ()

    def is_older(self, row: Measured) -> bool:
        """Whether the row is from another environment than those that answer."""
        return self.conditions is not None and row.conditions.environment != self.conditions.environment

    @property
    def answering(self) -> Iterator[Measured]:
        """Rows that answer for their own segmenter: `rows`, and those with another number of classes only."""
        yield from self.rows
        if here := self.conditions:
            others = {row.conditions for row in self.related}
            same = {each for each in others if replace(each, num_classes=here.num_classes) == here}
            yield from (row for row in self.related if row.conditions in same)


def quantity_of(kind: BudgetKind, row: Measured) -> Quantity | None:
    """The row's own number in the kind's unit, with the interval of a repeated measurement; None without it."""
    values = {
        "ms": row.latency_ms,
        "fps": 1000 / row.latency_ms if row.latency_ms else None,
        "images_per_second": row.images_per_second,
        "bytes": row.memory_bytes,
        "joules": row.energy_joules,
    }
    value = values.get(kind)
    if not value:
        return None
    noisy = _NOISE.get(kind) in row.noisy
    factor = exp(Z80 * (NOISY_SD if noisy else REPEAT_SD))
    note = f"noisy {_NOISE[kind]}" if noisy else ""
    return Quantity(kind, value, value / factor, value * factor, "measured", note=note)


def bench_of(
    measured: Sequence[Measured], device: str | None = None, *, head: str = "luma", environment: str | None = None
) -> Bench:
    """The rows of the device for segmenters with this head, in its present environment.

    environment: identity of the machine as JSON; that of the latest row when None. Of several conditions those with
    most models answer, then the latest. Raises UsageError when several devices could be meant.
    """
    found = [row for row in measured if device is None or is_device(row.conditions, device)]
    sound = sorted((row for row in found if not row.flags), key=lambda row: (row.started_at, row.fingerprint))
    names = sorted({row.conditions.device_name for row in sound})
    if len(names) > 1:
        raise UsageError(f"measured on {len(names)} devices ({', '.join(names)}); name one, e.g. --device {names[0]!r}")
    if not sound:
        return Bench(device or "")
    conditions = _conditions(sound, head, environment)
    rows = _latest(row for row in sound if row.conditions == conditions)
    # The head, its options and the environment may differ.
    alike = attrgetter("device", "dtype", "attention", "compile", "channels_last")
    others = {row.conditions for row in sound} - {conditions}
    related = {each for each in others if alike(each) == alike(conditions)}
    return Bench(names[0], conditions, rows, _latest(row for row in sound if row.conditions in related))


def is_device(conditions: Conditions, device: str) -> bool:
    """Whether the user's word is this device's kind (`cuda:0`, `cpu`) or part of its name."""
    wanted = device.lower()
    return wanted.split(":")[0] == conditions.device.lower() or wanted in conditions.device_name.lower()


def _conditions(rows: Sequence[Measured], head: str, environment: str | None) -> Conditions:
    """The conditions that answer: with this head, in the environment, with most models.

    No row has them when nothing was measured with the head or in the environment; then all rows are evidence.
    """
    present = rows[-1].conditions.environment if environment is None else environment
    here = [row for row in rows if row.conditions.environment == present] or list(rows)
    asked = [row for row in here if row.conditions.head == head] or here
    counts = Counter(row.conditions for row in asked)
    latest = {row.conditions: row.started_at for row in asked}
    best = max(counts, key=lambda each: (counts[each], latest[each], each))
    return replace(best, head=head, environment=present)


def _latest(rows: Iterable[Measured]) -> tuple[Measured, ...]:
    """The last of each segmenter and set of conditions; rows come oldest first."""
    return tuple({(row.key, row.conditions): row for row in rows}.values())
