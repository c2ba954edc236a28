"""Claim: plain ViTs hold the throughput front at every resolution, with and without FlashAttention (arXiv 2607.00687).

Accuracy is the model's, for the same pretraining on every architecture, so that architectures are compared; its joint
draws carry its uncertainty. Each set of conditions and each resolution has a front of its own. Only segmenters that the
user profiled count: shipped throughputs are of classifiers on small images, without a head.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from luma_cli.accuracy.backbones import recognise
from luma_cli.accuracy.sightings import AccuracyModel
from luma_cli.accuracy.subjects import subject_of
from luma_cli.findings.finding import CONTRADICTED, SUPPORTED, Figure, Finding, Interval, above, below, judge
from luma_cli.findings.profiles import device_option, is_fused, latest, of_device, profile_row
from luma_cli.findings.statistics import Numbers, percentiles
from luma_cli.store.profiles import Conditions, Measured

# The paper's architectures were all pretrained on ImageNet-21k labels.
PRETRAINING = "supervised_in21k"
MARGIN = 0.5
FEWEST_VITS, FEWEST_OTHERS, FEWEST_RESOLUTIONS, LARGE_PX = 3, 6, 3, 768
NUM_DRAWS = 400
CLAIM = Finding(
    "front",
    "Plain ViTs hold the throughput front at every resolution, with and without FlashAttention.",
    "mIoU lost by taking the best plain ViT instead of the best model that is as fast, mean over the speeds that ViTs "
    f"span, accuracy predicted for {PRETRAINING} weights: supported where the 90% interval of every front lies below "
    f"{MARGIN}, contradicted where one lies above; needs {FEWEST_VITS} ViTs and {FEWEST_OTHERS} others that you "
    f"profiled at {FEWEST_RESOLUTIONS} resolutions, one of {LARGE_PX} px or more, with and without FlashAttention.",
    notes=("accuracy is predicted from published results with other heads, not measured",),
)
# Patches of 8 and 32 pixels trade accuracy for speed in a way that no evidence here knows.
_PLAIN = re.compile(r"(vit|deit3?)_[a-z0-9]+_patch1[46](_.*)?")
# ViTs of every size beside the usual rivals.
_TO_PROFILE = (
    "vit_t vit_s vit_b vit_l swin_t swin_b convnext_t convnext_b hiera_b caformer_s18 poolformer_s36 nextvit_s"
)
# The profiles of each resolution under one set of conditions.
_Fronts = Mapping[tuple[int, Conditions], Sequence[Measured]]


def front(model: AccuracyModel, measured: Sequence[Measured], device: str | None, dataset: str) -> Finding:
    """The claim on the user's profiles of one device."""
    name, rows = of_device(measured, device)
    fronts = _fronts(rows)
    losses = {key: _loss(model, found, dataset) for key, found in fronts.items()}
    titles = {key: _title(*key) for key in fronts}
    lost = [titles[key] for key, loss in losses.items() if above(loss, MARGIN)]
    num_held = sum(below(loss, MARGIN) for loss in losses.values())
    verdict = judge(all(_is_covered(fronts, fused) for fused in (True, False)) and num_held == len(fronts), bool(lost))
    because = f"no resolution{f' on {name}' if name else ''} has {FEWEST_VITS} ViTs and {FEWEST_OTHERS} others profiled"
    if verdict == CONTRADICTED:
        because = f"lost at {lost[0]}" + (f" and {len(lost) - 1} more" if len(lost) > 1 else "")
    elif verdict == SUPPORTED:
        because = f"held at all {len(fronts)} fronts on {name}"
    elif fronts:
        because = f"held at {num_held} of {len(fronts)} fronts on {name}, lost at none; others are open or not profiled"
    line = f"luma profile {_TO_PROFILE} --res 224 512 1024{device_option(device)}"
    return CLAIM.concluded(
        verdict,
        because,
        [
            Figure(f"loss with ViTs alone, {titles[key]}", loss, "points", f"{len(fronts[key])} models", digits=1)
            for key, loss in losses.items()
        ],
        [profile_row(row) for found in fronts.values() for row in found],
        [line, f"{line} --attention unfused"],
    )


def is_plain(architecture: str) -> bool:
    """Whether this is a plain ViT with patches of 14 or 16 pixels: ViT, DeiT, DeiT III."""
    return _PLAIN.fullmatch(architecture) is not None


def _is_compared(architecture: str) -> bool:
    """Whether it is on a side: variants of ViT (relative positions, EVA, BEiT, hybrids) are on neither."""
    lineage = recognise(architecture).lineage
    return is_plain(architecture) or (lineage is not None and lineage.name not in ("vit", "eva02"))


def _fronts(rows: Sequence[Measured]) -> _Fronts:
    """Sound throughputs of comparable models by resolution and conditions, where there are enough on both sides."""
    groups: dict[tuple[int, Conditions], list[Measured]] = defaultdict(list)
    for row in latest(rows):
        if row.images_per_second and "throughput" not in row.noisy and _is_compared(row.architecture):
            groups[row.resolution, row.conditions].append(row)
    fronts = {}
    for key, found in sorted(groups.items()):
        vits = [row.images_per_second for row in found if is_plain(row.architecture)]
        if len(set(vits)) >= FEWEST_VITS and len(found) - len(vits) >= FEWEST_OTHERS:  # equal speeds span no front
            fronts[key] = found
    return fronts


def _is_covered(fronts: _Fronts, fused: bool) -> bool:
    """Whether enough resolutions were seen with, or without, FlashAttention."""
    sizes = {resolution for resolution, conditions in fronts if is_fused(conditions) == fused}
    return len(sizes) >= FEWEST_RESOLUTIONS and max(sizes) >= LARGE_PX


def _title(resolution: int, conditions: Conditions) -> str:
    compiled = "" if conditions.compile == "none" else f", compile {conditions.compile}"
    attention = f"{'with' if is_fused(conditions) else 'without'} FlashAttention ({conditions.attention})"
    return f"{resolution} px {attention}, {conditions.device_name} {conditions.dtype}{compiled}"


def _loss(model: AccuracyModel, found: Sequence[Measured], dataset: str) -> Interval:
    names, resolution, head = [row.architecture for row in found], found[0].resolution, found[0].conditions.head
    subjects = [subject_of(name, dataset, resolution=resolution, pretraining=PRETRAINING, head=head) for name in names]
    rates = np.array([row.images_per_second for row in found])
    return loss_of_class(rates, model.draws(subjects, NUM_DRAWS), np.array([is_plain(name) for name in names]))


def loss_of_class(rates: Numbers, accuracy: Numbers, is_class: NDArray[np.bool_]) -> Interval:
    """Points of mIoU lost by taking the best of a class rather than of all, with its 90% interval.

    rates: images per second. accuracy: joint draws [draws, models]. Mean over speeds spread evenly in their logarithm
    between the slowest and the fastest of the class, which needs two models with different rates. The best at a speed
    is the best in mean accuracy, as an adviser would have to choose; the best of each draw would be the least certain.
    """
    order = np.argsort(-rates, kind="stable")
    logs, drawn, of_class = np.log(rates[order]), accuracy[:, order], is_class[order]
    fastest, slowest = np.flatnonzero(of_class)[[0, -1]]
    best = _best_so_far(drawn.mean(0))[fastest:slowest]
    best_of_class = _best_so_far(np.where(of_class, drawn.mean(0), -np.inf))[fastest:slowest]
    # Between the speeds of a model and the next slower one, the best of those as fast stays the same: a step function.
    steps = -np.diff(logs[fastest : slowest + 1])
    loss = (drawn[:, best] - drawn[:, best_of_class]) @ (steps / steps.sum())
    return percentiles(float(loss.mean()), loss)


def _best_so_far(scores: Numbers) -> NDArray[np.int64]:
    """Index of the largest of the first j scores, for every j; the first of equals."""
    is_record = np.r_[True, scores[1:] > np.maximum.accumulate(scores)[:-1]]
    return np.maximum.accumulate(np.where(is_record, np.arange(len(scores)), 0))
