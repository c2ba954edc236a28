"""Claim: LUMA matches EoMT's accuracy at lower cost (arXiv 2607.00687, abstract)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from luma_cli.advise.candidates import NUM_CLASSES
from luma_cli.catalogue.costs import BackboneFacts
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BuildError
from luma_cli.evidence.evidence import DATASET_TITLES
from luma_cli.findings.finding import (
    EvidenceRow,
    Figure,
    Finding,
    Interval,
    OwnScore,
    above,
    below,
    judge,
    own_rows,
    own_scores,
)
from luma_cli.findings.statistics import FEWEST_VALUES, mean_interval
from luma_cli.store.runs import OwnRun

# Two seeds of one model differ by about 0.3 mIoU; half a point is more than that and less than anyone would pay for.
MARGIN = 0.5
CHEAPER_SHARE = 90.0
CLAIM = Finding(
    "heads",
    "LUMA matches EoMT's accuracy at lower cost.",
    f"""
    Cost: multiply-adds of the whole segmenter with LUMA against EoMT, exact, of every backbone that takes both
    heads; lower where at least {CHEAPER_SHARE:.0f}% of them are cheaper at 512 px. Accuracy: your runs of one
    backbone at one resolution with both heads, the official recipe of each, mean over seeds, LUMA minus EoMT,
    with Student's 90% interval over at least {FEWEST_VALUES} backbones. Supported when cost is lower and
    the interval lies above -{MARGIN} mIoU; contradicted when cost is not lower or the interval lies below
    -{MARGIN}.
    """,
)
_PX = 512
_NOTES = (
    "multiply-adds at inference; EoMT also predicts once per joint block while it trains, LUMA once",
    "time is another matter than multiply-adds: luma profile NAME --head eomt measures it",
)
# Multiply-adds with LUMA over those with EoMT, of the segmenter and of the head alone.
_Ratios = tuple[float, float]


def heads(runs: Sequence[OwnRun], costs: Mapping[tuple[str, int], BackboneFacts], dataset: str) -> Finding:
    """The claim on the shipped counts and the user's own runs of one dataset."""
    title = DATASET_TITLES.get(dataset, dataset)
    by_size = _cost_ratios(costs, NUM_CLASSES.get(dataset, 150))
    cheaper = _cheaper_percent(by_size[_PX]) >= CHEAPER_SHARE if _PX in by_size else None
    pairs = _pairs(own_scores(runs, dataset))
    gap = mean_interval([luma.miou_percent - eomt.miou_percent for luma, eomt in pairs])
    verdict = judge(cheaper is True and above(gap, -MARGIN), cheaper is False or below(gap, -MARGIN))

    if cheaper is None:
        because = f"no costs at {_PX} px"
    else:
        because = f"LUMA {'needs' if cheaper else 'does not need'} fewer multiply-adds at {_PX} px"
    if gap is None or gap.low is None:
        because += f"; accuracy: {len(pairs)} backbones of your own with both heads on {title}, needs {FEWEST_VALUES}"
    else:
        where = "above" if above(gap, -MARGIN) else "below" if below(gap, -MARGIN) else "across"
        because += f"; accuracy on {title}: the interval lies {where} -{MARGIN} mIoU"
    counts = f"{len(pairs)} backbones of your own"
    what = f"mIoU of LUMA minus EoMT, {title}"
    gap_figure = Figure(what, gap, "points", counts, "no backbone with both heads")
    ids = {each for pair in pairs for score in pair for each in score.ids}
    tables = [
        EvidenceRow(f"costs-{size}", f"{len(found)} backbones at {size} px", "profiles/costs.csv")
        for size, found in by_size.items()
    ]
    # Both heads on as many ViTs as are missing.
    names = ("vit_s.dinov2", "vit_b.dinov2", "vit_b.dinov3", "vit_l.dinov2")[-max(1, FEWEST_VALUES - len(pairs)) :]
    return CLAIM.concluded(
        verdict,
        because,
        [*(_cost_figure(size, found) for size, found in by_size.items()), gap_figure],
        [*own_rows(runs, ids), *tables],
        settle=[f"luma train {name} --data {dataset} --head {head}" for name in names for head in ("luma", "eomt")],
        notes=_NOTES,
    )


def _cost_ratios(costs: Mapping[tuple[str, int], BackboneFacts], num_classes: int) -> dict[int, list[_Ratios]]:
    """Cost ratios by resolution, of backbones whose every op was counted and that take both heads."""
    from luma_cli.catalogue.head_cost import head_macs

    luma, eomt = (HeadConfig(name=name, num_classes=num_classes) for name in ("luma", "eomt"))
    found: dict[int, list[_Ratios]] = defaultdict(list)
    for (_, resolution), facts in sorted(costs.items()):
        if facts.complete:
            try:
                with_luma, with_eomt = head_macs(facts, luma), head_macs(facts, eomt)
            except BuildError:
                continue
            found[resolution].append(((facts.macs + with_luma) / (facts.macs + with_eomt), with_luma / with_eomt))
    return dict(sorted(found.items()))


def _cheaper_percent(ratios: Sequence[_Ratios]) -> float:
    return 100 * sum(total < 1 for total, _ in ratios) / len(ratios)


def _cost_figure(resolution: int, ratios: Sequence[_Ratios]) -> Figure:
    totals, alone = zip(*ratios, strict=True)
    counts = (
        f"{min(totals):.3f} to {max(totals):.3f} over {len(totals)} backbones, "
        f"{_cheaper_percent(ratios):.0f}% cheaper; head alone {median(alone):.2f}x"
    )
    what = f"multiply-adds, LUMA over EoMT, {resolution} px, median"
    return Figure(what, Interval(median(totals)), "x", counts, decides=resolution == _PX, digits=3)


def _pairs(scores: Sequence[OwnScore]) -> list[tuple[OwnScore, OwnScore]]:
    """The mean scores of a model with LUMA and with EoMT, every backbone once.

    Two resolutions of one backbone are not two independent answers: the one with most seeds is taken.
    """
    by_key = {(score.timm_name, score.resolution, score.head): score for score in scores}
    both = [
        (score, by_key[score.timm_name, score.resolution, "eomt"])
        for score in scores
        if score.head == "luma" and (score.timm_name, score.resolution, "eomt") in by_key
    ]
    both.sort(key=lambda pair: (len(pair[0].ids) + len(pair[1].ids), pair[0].resolution))
    return list({pair[0].timm_name: pair for pair in both}.values())
