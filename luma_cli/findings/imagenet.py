"""Claim: ImageNet top-1 does not predict mIoU (arXiv 2607.00687, findings).

The project page gives r of about 0.78 on ADE20K and 0.71 on Cityscapes across architectures, and low (ADE20K) to
negative (Cityscapes) values across pretraining objectives. So the claim is about objectives; architectures are shown
beside it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence

from luma_cli.evidence.evidence import DATASET_TITLES, Evidence
from luma_cli.findings.finding import SUPPORTED, UNDECIDED, Figure, Finding, above, below, counted, judge, rows_of
from luma_cli.findings.scores import TableScore, scores
from luma_cli.findings.statistics import Sample, outliers, partial_pearson, pearson, spearman

# r = 0.7 explains half of the variance.
LIMIT = 0.7
FEWEST_FREEDOM = 8
FEWEST_PUBLISHERS = 4
FEWEST_OBJECTIVES = 4
CLAIM = Finding(
    "imagenet",
    "ImageNet top-1 does not predict mIoU across pretraining objectives, and only partly across architectures.",
    f"""
    Pearson r within head, protocol and crop, between top-1 of the exact checkpoint and its fine-tuned mIoU, one
    figure per checkpoint and table, sources resampled. Across objectives the architecture is fixed, across
    architectures the objective and its data are. Supported when the 90% interval across objectives lies below
    {LIMIT} (half of the variance), contradicted when above. Needs {FEWEST_OBJECTIVES} objectives,
    {FEWEST_PUBLISHERS} sources and {FEWEST_FREEDOM} figures beyond one per group.
    """,
)
PAPER_R = {"ade20k": 0.78, "cityscapes": 0.71}
_MOST_NAMED = 5


def imagenet_top1(evidence: Sequence[Evidence], top1: Mapping[str, float], dataset: str) -> Finding:
    """The claim on the fine-tuned rows of one dataset; `top1` in percent by exact timm name."""
    title = DATASET_TITLES.get(dataset, dataset)
    rows = [row for row in evidence if row.dataset == dataset and row.regime == "fine-tuned"]
    found = [score for score in scores(rows) if score.weights in top1]
    of_objectives = _grouped(found, lambda score: score.shape, lambda score: score.objective)
    of_architectures = _grouped(found, lambda score: (score.objective, score.data), lambda score: score.shape)
    across_objectives, across_architectures = _samples(of_objectives, top1), _samples(of_architectures, top1)

    missing = _missing(of_objectives)
    r = pearson(across_objectives)
    verdict = judge(not missing and below(r, LIMIT), not missing and above(r, LIMIT))
    if missing:
        because = (
            f"only {missing} on {title} have an exact top-1: self-supervised weights have none before they are "
            "fine-tuned on labels"
        )
    elif verdict == UNDECIDED:
        because = f"the interval of r across objectives includes {LIMIT}, or there is none"
    else:
        because = f"across objectives on {title}, top-1 explains {'less' if verdict == SUPPORTED else 'more'} than half"
    known = sum(sample.held is not None for sample in across_architectures)
    held_fixed = partial_pearson(across_architectures)
    what, counts = f"Pearson r across architectures, parameters held fixed, {title}", f"{known} figures of known size"
    figures = [
        *_figures(across_objectives, f"across objectives, {title}", missing, decides=True),
        *_figures(across_architectures, f"across architectures, {title}", "", decides=False),
        Figure(what, held_fixed, "r", counts, "no sizes are known", decides=False),
    ]
    used = [score for group in (*of_objectives.values(), *of_architectures.values()) for score in group]
    ids = {each for score in used for each in score.ids}
    notes = _notes(across_architectures, dataset)
    return CLAIM.concluded(verdict, because, figures, rows_of(rows, ids), _settle(dataset), notes)


def _grouped(
    found: Sequence[TableScore], fixed: Callable[[TableScore], Hashable], varied: Callable[[TableScore], Hashable]
) -> dict[Hashable, list[TableScore]]:
    """Groups that vary in what is asked; head, protocol and crop fixed, all tables together."""
    groups: dict[Hashable, list[TableScore]] = defaultdict(list)
    for score in found:
        groups[score.cell[0], score.cell[1], fixed(score)].append(score)
    return {key: group for key, group in groups.items() if len({varied(score) for score in group}) > 1}


def _samples(groups: Mapping[Hashable, Sequence[TableScore]], top1: Mapping[str, float]) -> list[Sample]:
    """Top-1 as x, mIoU as y, and the logarithm of the parameters to hold fixed."""
    return [
        Sample(
            name=score.weights,
            group=key,
            cluster=score.publisher,
            x=top1[score.weights],
            y=score.miou_percent,
            held=None if score.params_m is None else math.log(score.params_m),
        )
        for key, group in groups.items()
        for score in group
    ]


def _missing(groups: Mapping[Hashable, Sequence[TableScore]]) -> str:
    """What is too little to decide across objectives; empty when there is enough."""
    found = [score for group in groups.values() for score in group]
    objectives, sources = len({score.objective for score in found}), len({score.publisher for score in found})
    freedom = len(found) - len(groups)
    if freedom >= FEWEST_FREEDOM and sources >= FEWEST_PUBLISHERS and objectives >= FEWEST_OBJECTIVES:
        return ""
    return f"{counted(len(found), 'figure')} of {counted(objectives, 'objective')} from {counted(sources, 'source')}"


def _figures(samples: Sequence[Sample], where: str, missing: str, decides: bool) -> tuple[Figure, Figure]:
    groups, sources = len({each.group for each in samples}), len({each.cluster for each in samples})
    counts = f"{counted(len(samples), 'figure')}, {counted(groups, 'group')}, {counted(sources, 'source')}"
    why = missing or "no group of two"
    return (
        Figure(f"Pearson r {where}", pearson(samples), "r", counts, why, decides),
        Figure(f"Spearman r {where}", spearman(samples), "r", counts, why, decides=False),
    )


def _notes(samples: Sequence[Sample], dataset: str) -> list[str]:
    found = [f"the paper gives r {PAPER_R[dataset]} across architectures, at 224 px"] if dataset in PAPER_R else []
    named = [f"{name} ({points:+.1f})" for name, points in outliers(samples)[:_MOST_NAMED]]
    if named:
        found.append("far from the line across architectures, in mIoU points: " + ", ".join(named))
    return found


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
