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
from luma_cli.findings.correlation import Sample, freedom, outliers, partial_pearson, pearson, spearman
from luma_cli.findings.evidence_rows import rows_of
from luma_cli.findings.finding import (
    CONTRADICTED,
    SUPPORTED,
    UNDECIDED,
    Figure,
    Finding,
    Interval,
    Verdict,
    counted,
    one_line,
)
from luma_cli.findings.scores import Score, scores

NAME = "imagenet"
CLAIM = "ImageNet top-1 does not predict mIoU across pretraining objectives, and only partly across architectures."
# r = 0.7 explains half of the variance.
LIMIT = 0.7
FEWEST_FREEDOM = 8
FEWEST_PUBLISHERS = 4
FEWEST_OBJECTIVES = 4
RULE = one_line(
    f"""
    Pearson r within head, protocol and crop, between top-1 of the exact checkpoint and its fine-tuned mIoU, one
    figure per checkpoint and table, sources resampled. Across objectives the architecture is fixed, across
    architectures the objective and its data are. Supported when the 90% interval across objectives lies below
    {LIMIT} (half of the variance), contradicted when above. Needs {FEWEST_OBJECTIVES} objectives,
    {FEWEST_PUBLISHERS} sources and {FEWEST_FREEDOM} figures beyond one per group.
    """
)
PAPER_R = {"ade20k": 0.78, "cityscapes": 0.71}
_MOST_NAMED = 5


def imagenet_top1(evidence: Sequence[Evidence], top1: Mapping[str, float], dataset: str) -> Finding:
    """The claim on the fine-tuned rows of one dataset; `top1` in percent by exact timm name."""
    rows = [row for row in evidence if row.dataset == dataset and row.regime == "fine-tuned"]
    found = [score for score in scores(rows) if score.weights in top1]
    across_objectives = _samples(found, top1, lambda s: s.shape, lambda s: s.objective)
    across_architectures = _samples(found, top1, lambda s: (s.objective, s.data), lambda s: s.shape)
    r, missing = pearson(across_objectives), _missing(across_objectives, found)
    verdict = _verdict(r, missing)
    title = DATASET_TITLES.get(dataset, dataset)
    return Finding(
        name=NAME,
        claim=CLAIM,
        rule=RULE,
        verdict=verdict,
        because=_because(verdict, missing, title),
        figures=(
            *_figures(across_objectives, f"across objectives, {title}", missing),
            *_figures(across_architectures, f"across architectures, {title}", ""),
            _held_fixed(across_architectures, title),
        ),
        settle=() if verdict != UNDECIDED else _settle(dataset),
        notes=tuple(_notes(across_architectures, dataset)),
        rows=rows_of(rows, _ids(found, [*across_objectives, *across_architectures])),
    )


def _samples(
    found: Sequence[Score],
    top1: Mapping[str, float],
    fixed: Callable[[Score], Hashable],
    varied: Callable[[Score], Hashable],
) -> list[Sample]:
    """Scores in groups that vary in what is asked; head, protocol and crop fixed, all tables together."""
    groups: dict[Hashable, list[Score]] = defaultdict(list)
    for score in found:
        groups[score.cell[0], score.cell[1], fixed(score)].append(score)
    kept = {key: group for key, group in groups.items() if len({varied(score) for score in group}) > 1}
    return [
        Sample(
            score.weights,
            key,
            score.publisher,
            top1[score.weights],
            score.miou_percent,
            None if score.params_m is None else math.log(score.params_m),
        )
        for key, group in kept.items()
        for score in group
    ]


def _missing(samples: Sequence[Sample], found: Sequence[Score]) -> str:
    """What is too little to decide across objectives; empty when there is enough."""
    objective = {score.weights: score.objective for score in found}
    objectives = len({objective[sample.name] for sample in samples})
    sources = len({sample.cluster for sample in samples})
    if freedom(samples) >= FEWEST_FREEDOM and sources >= FEWEST_PUBLISHERS and objectives >= FEWEST_OBJECTIVES:
        return ""
    few = (counted(len(samples), "figure"), counted(objectives, "objective"), counted(sources, "source"))
    return "{} of {} from {}".format(*few)


def _verdict(r: Interval | None, missing: str) -> Verdict:
    if r is None or missing:
        return UNDECIDED
    return SUPPORTED if r.below(LIMIT) else CONTRADICTED if r.above(LIMIT) else UNDECIDED


def _because(verdict: Verdict, missing: str, title: str) -> str:
    if missing:
        return (
            f"only {missing} on {title} have an exact top-1: self-supervised weights have none before they are "
            "fine-tuned on labels"
        )
    if verdict == UNDECIDED:
        return f"the interval of r across objectives includes {LIMIT}, or there is none"
    return f"across objectives on {title}, top-1 explains {'less' if verdict == SUPPORTED else 'more'} than half"


def _figures(samples: Sequence[Sample], where: str, missing: str) -> tuple[Figure, Figure]:
    groups, sources = len({each.group for each in samples}), len({each.cluster for each in samples})
    counts = f"{counted(len(samples), 'figure')}, {counted(groups, 'group')}, {counted(sources, 'source')}"
    decides = "across objectives" in where
    why = missing or "no group of two"
    return (
        Figure(f"Pearson r {where}", pearson(samples), "r", counts, why, decides),
        Figure(f"Spearman r {where}", spearman(samples), "r", counts, why, False),
    )


def _held_fixed(samples: Sequence[Sample], title: str) -> Figure:
    known = [sample for sample in samples if sample.held is not None]
    counts = f"{len(known)} figures of known size"
    what = f"Pearson r across architectures, parameters held fixed, {title}"
    return Figure(what, partial_pearson(samples), "r", counts, "no sizes are known", decides=False)


def _notes(samples: Sequence[Sample], dataset: str) -> list[str]:
    found = [f"the paper gives r {PAPER_R[dataset]} across architectures, at 224 px"] if dataset in PAPER_R else []
    named = [f"{name} ({points:+.1f})" for name, points in outliers(samples)[:_MOST_NAMED]]
    if named:
        found.append("far from the line across architectures, in mIoU points: " + ", ".join(named))
    return found


def _ids(found: Sequence[Score], samples: Sequence[Sample]) -> set[str]:
    used = {(sample.name, sample.cluster, sample.y) for sample in samples}
    return {
        each for score in found if (score.weights, score.publisher, score.miou_percent) in used for each in score.ids
    }


def _settle(dataset: str) -> tuple[str, ...]:
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
    return tuple(f"luma train {name} --data {dataset}" for name in names)
