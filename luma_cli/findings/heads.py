"""Claim: LUMA matches EoMT's accuracy at lower cost (arXiv 2607.00687, abstract).

Cost is multiply-adds at inference. EoMT also predicts once per joint block while it trains, LUMA once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from luma_cli.advise.candidates import NUM_CLASSES
from luma_cli.catalogue.costs import BackboneFacts
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BuildError
from luma_cli.evidence.evidence import DATASET_TITLES
from luma_cli.evidence.own_runs import evidence_of
from luma_cli.findings.finding import EvidenceRow, Figure, Finding, Interval, above, below, judge, position
from luma_cli.findings.scores import OwnScore, own_scores, pairs, rows_behind
from luma_cli.findings.statistics import FEWEST_VALUES, mean_interval
from luma_cli.store.runs import OwnRun
from luma_cli.units import counted

# Two seeds of one model differ by about 0.3 mIoU; half a point is more than that and less than anyone would pay for.
MARGIN = 0.5
CHEAPER_SHARE = 0.9
_PX = 512
CLAIM = Finding(
    "heads",
    "LUMA matches EoMT's accuracy at lower cost.",
    f"Supported where at least {CHEAPER_SHARE:.0%} of the backbones that take both heads need fewer multiply-adds with "
    f"LUMA at {_PX} px, and the 90% interval of mIoU, LUMA minus EoMT by official recipes, lies above -{MARGIN} over "
    f"at least {FEWEST_VALUES} backbones; contradicted where fewer are cheaper or it lies below -{MARGIN}.",
)
_TO_TRAIN = ("vit_s.dinov2", "vit_b.dinov2", "vit_b.dinov3", "vit_l.dinov2")


def heads(runs: Sequence[OwnRun], costs: Mapping[tuple[str, int], BackboneFacts], dataset: str) -> Finding:
    """The claim on the shipped counts and the user's own runs of one dataset."""
    title = DATASET_TITLES.get(dataset, dataset)
    ratios = _cost_ratios(costs, NUM_CLASSES.get(dataset, 150))
    num_cheaper = sum(ratio < 1 for ratio in ratios)
    is_cheaper = num_cheaper >= CHEAPER_SHARE * len(ratios) if ratios else None
    both = _both_heads(own_scores(runs, dataset))
    gap = mean_interval([luma.miou_percent - eomt.miou_percent for luma, eomt in both])
    need = {None: "no costs", True: "LUMA needs fewer multiply-adds", False: "LUMA does not need fewer multiply-adds"}
    counts = f"{counted(len(both), 'backbone')} of your own"
    accuracy = f"the 90% interval {position(gap, -MARGIN)} mIoU"
    if gap is None or gap.low is None:
        accuracy = f"{counts} with both heads on {title}, needs {FEWEST_VALUES}"
    price = Interval(median(ratios)) if ratios else None
    figures = [
        Figure(f"multiply-adds, LUMA over EoMT, {_PX} px, median", price, "x", f"{len(ratios)} backbones", digits=3),
        Figure(f"mIoU of LUMA minus EoMT, {title}", gap, "points", counts),
    ]
    rows = rows_behind((evidence_of(run) for run in runs), both)
    if ratios:
        rows.append(EvidenceRow(f"costs-{_PX}", f"{len(ratios)} backbones at {_PX} px", "profiles/costs.csv"))
    to_train = _TO_TRAIN[-max(1, FEWEST_VALUES - len(both)) :]
    return CLAIM.concluded(
        judge(is_cheaper is True and above(gap, -MARGIN), is_cheaper is False or below(gap, -MARGIN)),
        f"{need[is_cheaper]} at {_PX} px; accuracy: {accuracy}",
        figures,
        rows,
        [f"luma train {name} --data {dataset} --head {head}" for name in to_train for head in ("luma", "eomt")],
    )


def _cost_ratios(costs: Mapping[tuple[str, int], BackboneFacts], num_classes: int) -> list[float]:
    """Multiply-adds with LUMA over those with EoMT, of each backbone that was counted wholly and takes both heads."""
    from luma_cli.catalogue.head_cost import head_macs

    luma, eomt = (HeadConfig(name=name, num_classes=num_classes) for name in ("luma", "eomt"))
    found = []
    for (_, resolution), facts in costs.items():
        if facts.complete and resolution == _PX:
            try:
                found.append((facts.macs + head_macs(facts, luma)) / (facts.macs + head_macs(facts, eomt)))
            except BuildError:  # it does not take one of the heads
                continue
    return found


def _both_heads(found: Sequence[OwnScore]) -> list[tuple[OwnScore, OwnScore]]:
    """The scores of a model with LUMA and with EoMT, every backbone once.

    Two resolutions of one backbone are not two independent answers: the one with most seeds is taken.
    """
    both = pairs(
        found, lambda each: (each.timm_name, each.resolution), lambda a, b: (a.head, b.head) == ("luma", "eomt")
    )
    both.sort(key=lambda pair: (len(pair[0].ids) + len(pair[1].ids), pair[0].resolution))
    return list({pair[0].timm_name: pair for pair in both}.values())
