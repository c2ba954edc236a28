"""Claim: LUMA matches EoMT's accuracy at lower cost (arXiv 2607.00687, abstract)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from luma_cli.catalogue.costs import BackboneFacts
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BuildError
from luma_cli.evidence.evidence import DATASET_TITLES
from luma_cli.evidence.own_runs import OwnRun
from luma_cli.findings.finding import (
    CONTRADICTED,
    SUPPORTED,
    UNDECIDED,
    Figure,
    Finding,
    Interval,
    Row,
    Verdict,
    one_line,
)
from luma_cli.findings.own import OwnScore, own_rows, own_scores
from luma_cli.findings.student import FEWEST_VALUES, mean_interval

NAME = "heads"
CLAIM = "LUMA matches EoMT's accuracy at lower cost."
# Two seeds of one model differ by about 0.3 mIoU; half a point is more than that and less than anyone would pay for.
MARGIN = 0.5
CHEAPER_SHARE = 90.0
RULE = one_line(
    f"""
    Cost: multiply-adds of the whole segmenter with LUMA against EoMT, exact, of every backbone that takes both
    heads; lower where at least {CHEAPER_SHARE:.0f}% of them are cheaper at 512 px. Accuracy: your runs of one
    backbone at one resolution with both heads, the official recipe of each, mean over seeds, LUMA minus EoMT,
    with Student's 90% interval over at least {FEWEST_VALUES} backbones. Supported when cost is lower and
    the interval lies above -{MARGIN} mIoU; contradicted when cost is not lower or the interval lies below
    -{MARGIN}.
    """
)
_PX = 512


@dataclass(frozen=True, slots=True)
class _Costs:
    """Multiply-adds with LUMA over those with EoMT at one resolution: of the segmenter and of the head alone."""

    resolution: int
    total: tuple[float, ...]
    head: tuple[float, ...]

    @property
    def cheaper_percent(self) -> float:
        return 100 * fmean(ratio < 1 for ratio in self.total)


def heads(runs: Sequence[OwnRun], costs: Mapping[tuple[str, int], BackboneFacts], dataset: str) -> Finding:
    """The claim on the shipped counts and the user's own runs of one dataset."""
    counted = _counted(costs, _num_classes(dataset))
    pairs = _pairs(own_scores(runs, dataset))
    gap = mean_interval([luma.miou_percent - eomt.miou_percent for luma, eomt in pairs])
    verdict = _verdict(counted, gap)
    title = DATASET_TITLES.get(dataset, dataset)
    return Finding(
        name=NAME,
        claim=CLAIM,
        rule=RULE,
        verdict=verdict,
        because=_because(counted, gap, len(pairs), title),
        figures=(*_cost_figures(counted), _gap_figure(gap, len(pairs), title)),
        settle=() if verdict != UNDECIDED else _settle(dataset, pairs),
        notes=(
            "multiply-adds at inference; EoMT also predicts once per joint block while it trains, LUMA once",
            "time is another matter than multiply-adds: luma profile NAME --head eomt measures it",
        ),
        rows=_rows(runs, pairs, counted),
    )


def _num_classes(dataset: str) -> int:
    from luma_cli.advise.candidates import NUM_CLASSES

    return NUM_CLASSES.get(dataset, 150)


def _counted(costs: Mapping[tuple[str, int], BackboneFacts], num_classes: int) -> list[_Costs]:
    """Cost ratios by resolution, of backbones whose every op was counted and that take both heads."""
    luma, eomt = (HeadConfig(name=name, num_classes=num_classes) for name in ("luma", "eomt"))
    found: dict[int, list[tuple[float, float]]] = {}
    for (_, resolution), facts in sorted(costs.items()):
        ratios = _ratios(facts, luma, eomt)
        if ratios is not None:
            found.setdefault(resolution, []).append(ratios)
    return [_Costs(size, *zip(*ratios, strict=True)) for size, ratios in sorted(found.items())]


def _ratios(facts: BackboneFacts, luma: HeadConfig, eomt: HeadConfig) -> tuple[float, float] | None:
    from luma_cli.catalogue.head_cost import head_macs

    if not facts.complete:
        return None
    try:
        with_luma, with_eomt = head_macs(facts, luma), head_macs(facts, eomt)
    except BuildError:
        return None
    return (facts.macs + with_luma) / (facts.macs + with_eomt), with_luma / with_eomt


def _pairs(scores: Sequence[OwnScore]) -> list[tuple[OwnScore, OwnScore]]:
    """The mean scores of a model with LUMA and with EoMT, best known resolution of each backbone only once."""
    by_key = {(score.timm_name, score.resolution, score.head): score for score in scores}
    both = [
        (score, by_key[score.timm_name, score.resolution, "eomt"])
        for score in scores
        if score.head == "luma" and (score.timm_name, score.resolution, "eomt") in by_key
    ]
    # Two resolutions of one backbone are not two independent answers: the one with most seeds stands for it.
    one = {}
    for pair in sorted(both, key=lambda each: (len(each[0].ids) + len(each[1].ids), each[0].resolution)):
        one[pair[0].timm_name] = pair
    return list(one.values())


def _is_cheaper(counted: Sequence[_Costs]) -> bool | None:
    """Whether LUMA costs less at 512 px; None where nothing was counted there."""
    at = next((each for each in counted if each.resolution == _PX), None)
    return None if at is None else at.cheaper_percent >= CHEAPER_SHARE


def _verdict(counted: Sequence[_Costs], gap: Interval | None) -> Verdict:
    cheaper = _is_cheaper(counted)
    if cheaper is False or (gap is not None and gap.below(-MARGIN)):
        return CONTRADICTED
    return SUPPORTED if cheaper and gap is not None and gap.above(-MARGIN) else UNDECIDED


def _because(counted: Sequence[_Costs], gap: Interval | None, num_pairs: int, title: str) -> str:
    cost = {
        None: f"no costs at {_PX} px",
        True: f"LUMA needs fewer multiply-adds at {_PX} px",
        False: f"LUMA does not need fewer multiply-adds at {_PX} px",
    }[_is_cheaper(counted)]
    if gap is None or gap.low is None:
        return f"{cost}; accuracy: {num_pairs} backbones of your own with both heads on {title}, needs {FEWEST_VALUES}"
    where = "above" if gap.above(-MARGIN) else "below" if gap.below(-MARGIN) else "across"
    return f"{cost}; accuracy on {title}: the interval lies {where} -{MARGIN} mIoU"


def _cost_figures(counted: Sequence[_Costs]) -> list[Figure]:
    figures = []
    for each in counted:
        counts = (
            f"{min(each.total):.3f} to {max(each.total):.3f} over {len(each.total)} backbones, "
            f"{each.cheaper_percent:.0f}% cheaper; head alone {median(each.head):.2f}x"
        )
        what = f"multiply-adds, LUMA over EoMT, {each.resolution} px, median"
        decides = each.resolution == _PX
        figures.append(Figure(what, Interval(median(each.total)), "x", counts, decides=decides, digits=3))
    return figures


def _gap_figure(gap: Interval | None, num_pairs: int, title: str) -> Figure:
    counts = f"{num_pairs} backbones of your own"
    return Figure(f"mIoU of LUMA minus EoMT, {title}", gap, "points", counts, "no backbone with both heads", digits=2)


def _rows(
    runs: Sequence[OwnRun], pairs: Sequence[tuple[OwnScore, OwnScore]], counted: Sequence[_Costs]
) -> tuple[Row, ...]:
    ids = [each for pair in pairs for score in pair for each in score.ids]
    tables = [
        Row(f"costs-{each.resolution}", f"{len(each.total)} backbones at {each.resolution} px", "profiles/costs.csv")
        for each in counted
    ]
    return tuple(sorted([*own_rows(runs, ids), *tables]))


def _settle(dataset: str, pairs: Sequence[tuple[OwnScore, OwnScore]]) -> tuple[str, ...]:
    """Both heads on as many ViTs as are missing."""
    names = ("vit_s.dinov2", "vit_b.dinov2", "vit_b.dinov3", "vit_l.dinov2")
    missing = max(1, FEWEST_VALUES - len(pairs))
    return tuple(
        f"luma train {name} --data {dataset} --head {head}" for name in names[-missing:] for head in ("luma", "eomt")
    )
