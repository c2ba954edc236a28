"""Claim: ImageNet top-1 does not predict mIoU across pretraining objectives (arXiv 2607.00687, findings).

The project page gives r of about 0.78 on ADE20K and 0.71 on Cityscapes across architectures, and low (ADE20K) to
negative (Cityscapes) values across pretraining objectives.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

from luma_cli.evidence.evidence import DATASET_TITLES, Evidence
from luma_cli.findings.finding import Figure, Finding, above, below, judge, position
from luma_cli.findings.scores import TableScore, rows_behind, scores
from luma_cli.findings.statistics import Sample, pearson
from luma_cli.units import counted

# r = 0.7 explains half of the variance.
LIMIT = 0.7
FEWEST_FREEDOM = 8
FEWEST_PUBLISHERS = 4
FEWEST_OBJECTIVES = 4
CLAIM = Finding(
    "imagenet",
    "ImageNet top-1 does not predict mIoU across pretraining objectives.",
    "Pearson r between top-1 of the exact checkpoint and its fine-tuned mIoU, across objectives within one "
    f"architecture, head, protocol and crop: supported where the 90% interval lies below {LIMIT} (half of the "
    f"variance), contradicted where above; needs {FEWEST_OBJECTIVES} objectives, {FEWEST_PUBLISHERS} sources and "
    f"{FEWEST_FREEDOM} figures beyond one per group.",
)


def imagenet_top1(evidence: Sequence[Evidence], top1: Mapping[str, float], dataset: str) -> Finding:
    """The claim on the fine-tuned rows of one dataset; `top1` in percent by exact timm name."""
    title = DATASET_TITLES.get(dataset, dataset)
    rows = [row for row in evidence if row.dataset == dataset and row.regime == "fine-tuned"]
    groups: dict[Hashable, list[TableScore]] = defaultdict(list)
    for score in scores(rows):
        if score.weights in top1:
            scale, crop = score.cell[:2]  # not the source: figures of all tables are compared, within their group
            groups[scale, crop, score.shape].append(score)
    groups = {key: group for key, group in groups.items() if len({score.objective for score in group}) > 1}
    samples = [
        Sample(key, score.publisher, top1[score.weights], score.miou_percent)
        for key, group in groups.items()
        for score in group
    ]
    found = [score for group in groups.values() for score in group]
    objectives, sources = (len({getattr(each, name) for each in found}) for name in ("objective", "publisher"))
    is_enough = (
        len(found) - len(groups) >= FEWEST_FREEDOM and sources >= FEWEST_PUBLISHERS and objectives >= FEWEST_OBJECTIVES
    )
    r = pearson(samples)
    counts = f"{counted(len(found), 'figure')} of {counted(objectives, 'objective')} from {counted(sources, 'source')}"
    because = f"the 90% interval of r {position(r, LIMIT)}" if is_enough else f"only {counts} have an exact top-1"
    return CLAIM.concluded(
        judge(is_enough and below(r, LIMIT), is_enough and above(r, LIMIT)),
        because,
        [Figure(f"Pearson r across objectives, {title}", r, "r", counts, "no group of two")],
        rows_behind(rows, groups.values()),
        _settle(dataset),
    )


def _settle(dataset: str) -> list[str]:
    """Runs of two architectures whose weights of four objectives, one on two data sets, saw ImageNet labels last."""
    tags = (
        "vit_{}_patch16_224.augreg_in21k_ft_in1k",
        "{}_clip_224.openai_ft_in1k",
        "{}_clip_224.laion2b_ft_in1k",
        "beit_{}_patch16_224.in22k_ft_in22k_in1k",
        "beitv2_{}_patch16_224.in1k_ft_in22k_in1k",
    )
    clip = {"base": "vit_base_patch16", "large": "vit_large_patch14"}
    names = [tag.format(clip[size] if "clip" in tag else size) for size in ("base", "large") for tag in tags]
    return [f"luma train {name} --data {dataset}" for name in names]
