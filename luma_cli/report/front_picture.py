"""What the picture of a front shows, as a value: points, the attainment band, axis and caption."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dot:
    """One candidate: its cost in the unit of the axis, predicted mIoU in percent, and its central 80% interval."""

    label: str
    cost: float
    miou_percent: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Step:
    """What the front reaches from this cost on with 90, 50 and 10% probability, mIoU in percent."""

    cost: float
    likely: float
    median: float
    unlikely: float


@dataclass(frozen=True, slots=True)
class FrontPicture:
    """A front to be drawn.

    axis: title of the cost with its unit. front: on the envelope of the predicted mIoU, cheapest first. beside: off it,
    but with a fair chance to be on it. cloud: cost and mIoU of all other candidates. own: the user's runs, with the
    mIoU that was measured. band: cheapest first. caption: dataset, scale, origin and conditions of the costs.
    is_rate: more is better, as for images/s; the axis then runs from right to left.
    """

    title: str
    axis: str
    front: tuple[Dot, ...]
    beside: tuple[Dot, ...]
    cloud: tuple[tuple[float, float], ...]
    own: tuple[Dot, ...]
    band: tuple[Step, ...]
    caption: tuple[str, ...]
    is_rate: bool = False
