"""What the picture of a front shows, as a value: points, the attainment band, axis and caption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luma_cli.advise.budgets import TITLES
from luma_cli.evidence.evidence import DATASET_TITLES, HEAD_TITLES
from luma_cli.units import FLOORS, BudgetKind, FlopConvention, gflops, gibibytes

if TYPE_CHECKING:
    from luma_cli.advise.backdrop import Backdrop
    from luma_cli.advise.learned_front import FrontRow, LearnedFront

_AXES: Mapping[BudgetKind, str] = {
    "macs": "GFLOPs of the segmenter on one crop",
    "params": "parameters of the segmenter (millions)",
    "ms": "latency (ms per image, batch 1)",
    "images_per_second": "throughput (images/s)",
    "bytes": "peak memory (GiB)",
    "joules": "energy (J per image)",
}


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


def picture_of(front: LearnedFront, behind: Backdrop) -> FrontPicture:
    """The picture of a learned front before its backdrop."""
    kind, convention = front.kind, front.question.convention
    head = HEAD_TITLES.get(front.question.head, front.question.head)
    dataset = DATASET_TITLES.get(front.question.dataset, front.question.dataset)
    origins = sorted({row.priced.costs[kind].origin for row in front.rows})
    own = [each for each in front.own if kind in each.priced.costs]
    return FrontPicture(
        title=f"{dataset}, head {head}: learned front over {TITLES[kind]}",
        axis=_AXES[kind],
        front=tuple(_dot(row, kind, convention) for row in front.rows),
        beside=tuple(_dot(row, kind, convention) for row in front.likely),
        cloud=tuple((_shown(kind, cost, convention), miou) for cost, miou in behind.candidates),
        own=tuple(
            Dot(
                f"own: {each.row.run.backbone}@{each.row.run.resolution}",
                _shown(kind, each.priced.costs[kind].value, convention),
                *[each.row.run.miou_percent] * 3,
            )
            for each in own
        ),
        band=tuple(Step(_shown(kind, cost, convention), *reached) for cost, reached in behind.band),
        caption=(
            f"{len(behind.candidates):,} candidates, mIoU predicted {front.scale_note}; bars: 80% of one run. "
            f"{TITLES[kind].capitalize() if kind != 'macs' else 'GFLOPs'}: {', '.join(origins)}.",
            *(f"{note[:1].upper()}{note[1:]}." for note in front.notes),
        ),
        is_rate=kind in FLOORS,
    )


def _dot(row: FrontRow, kind: BudgetKind, convention: FlopConvention) -> Dot:
    low, high = row.prediction.interval_80
    cost = _shown(kind, row.priced.costs[kind].value, convention)
    return Dot(f"{row.candidate.name}@{row.candidate.resolution}", cost, row.prediction.miou_percent, low, high)


def _shown(kind: BudgetKind, value: float, convention: FlopConvention) -> float:
    """The value in the unit of the axis."""
    if kind == "macs":
        return gflops(value, convention)
    return gibibytes(value) if kind == "bytes" else value / 1e6 if kind == "params" else value
