"""Claim: efficient token mixers are competitive on memory only (arXiv 2607.00687, findings).

A mixer is compared with the plain ViT of its own size, patch and resolution, in one head, on one device, under equal
conditions; only what is asked of attention may differ, because the mixer has none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, log
from statistics import fmean
from typing import TypeVar

from luma_cli.evidence.evidence import DATASET_TITLES
from luma_cli.evidence.own_runs import evidence_of
from luma_cli.findings.finding import UNDECIDED, Figure, Finding, above, below, judge, position
from luma_cli.findings.profiles import device_option, is_fused, latest, of_device, profile_row
from luma_cli.findings.scores import OwnScore, own_scores, pairs, rows_behind
from luma_cli.findings.statistics import FEWEST_VALUES, mean_interval, ratio_interval
from luma_cli.store.profiles import Measured
from luma_cli.store.runs import OwnRun
from luma_cli.units import counted

Compared = TypeVar("Compared", Measured, OwnScore)

KINDS = tuple(
    ["hydra", "linear", "performer", "linformer", "synthesizer", "synthesizer_fr", "nystrom", "fnet", "gfnet", "afno"]
)
SMALLEST_PX = 512
MARGIN = 0.5
CLAIM = Finding(
    "mixers",
    "Efficient token mixers are competitive on memory only, not on throughput or accuracy.",
    f"A mixer against the plain ViT of its size, at {SMALLEST_PX} px or more, under equal conditions with "
    "FlashAttention: supported where the 90% intervals of the ratios of memory and throughput lie below 1 and that of "
    f"mIoU, mixer minus ViT, below {MARGIN}; contradicted where memory lies above 1, or throughput above 1 and mIoU "
    f"above -{MARGIN}; needs {FEWEST_VALUES} kinds of mixer.",
)
_VIT = re.compile(rf"(?:({'|'.join(KINDS)})_)?vit_(tiny|small|base|large)_patch16_\d+")
_TO_PROFILE = ("linformer_vit_b", "nystrom_vit_b", "performer_vit_b", "hydra_vit_b", "fnet_vit_b")
_NONE = "no sound pair of profiles"


def mixers(runs: Sequence[OwnRun], measured: Sequence[Measured], device: str | None, dataset: str) -> Finding:
    """The claim on the user's profiles of one device and own runs of one dataset."""
    name, rows = of_device(measured, device)
    large = [row for row in latest(rows) if row.resolution >= SMALLEST_PX]
    profiled = _beside_plain(large, lambda row: (replace(row.conditions, attention=""), row.resolution))
    # The mixer has no attention to be fused; the ViT's must be.
    profiled = [(mixer, plain) for mixer, plain in profiled if is_fused(plain.conditions)]
    own = [score for score in own_scores(runs, dataset, own_weights=True) if score.head == "luma"]
    trained = _beside_plain(own, lambda score: score.resolution)
    speeds, memories = _ratios(profiled, _throughput), _ratios(profiled, lambda row: row.memory_bytes)
    speed, memory, gaps = ratio_interval(speeds), ratio_interval(memories), _gaps(trained)
    gap = mean_interval(gaps)
    verdict = judge(
        below(memory, 1) and below(speed, 1) and below(gap, MARGIN),
        above(memory, 1) or (memory is not None and above(speed, 1) and above(gap, -MARGIN)),
    )
    kinds = len({_vit(mixer)[0] for mixer, _ in profiled})
    if verdict == UNDECIDED and min(kinds, len(gaps)) < FEWEST_VALUES:
        where = f" on {name}" if name else ""
        because = (
            f"{counted(kinds, 'kind')} of mixer profiled{where}, {len(gaps)} trained; needs {FEWEST_VALUES} of each"
        )
    else:
        miou = position(gap, -MARGIN if above(speed, 1) else MARGIN)
        because = f"90% intervals: memory {position(memory, 1)}, throughput {position(speed, 1)}, mIoU {miou}"
    figures = [
        Figure(f"{what}, mixer over ViT", ratio, "x", f"{counted(len(values), 'kind')} on {name}" * bool(values), _NONE)
        for what, ratio, values in (("throughput", speed, speeds), ("peak memory", memory, memories))
    ]
    title, counts = DATASET_TITLES.get(dataset, dataset), f"{counted(len(gaps), 'kind')} of your own"
    figures.append(Figure(f"mIoU, mixer minus ViT, {title}", gap, "points", counts, "no run of a mixer", digits=1))
    # Training costs more than profiling, so no more kinds are trained than needed.
    to_train = (*_TO_PROFILE[:FEWEST_VALUES], "vit_b.in21k")
    settle = [f"luma train {each} --data {dataset} --weights FILE" for each in to_train]
    if not all(each is not None and each.low is not None for each in (speed, memory)):
        settle.insert(0, f"luma profile vit_b {' '.join(_TO_PROFILE)} --res 512 1024{device_option(device)}")
    profiles = [profile_row(row) for pair in profiled for row in pair]
    own_rows = rows_behind((evidence_of(run) for run in runs), trained)
    return CLAIM.concluded(verdict, because, figures, [*profiles, *own_rows], settle)


def _vit(item: Measured | OwnScore) -> tuple[str, str]:
    """Mixer (empty for a plain one) and size of a ViT with patches of 16 pixels; both empty for anything else."""
    found = _VIT.fullmatch(item.architecture)
    return (found[1] or "", found[2]) if found else ("", "")


def _beside_plain(items: Sequence[Compared], fixed: Callable[[Compared], object]) -> list[tuple[Compared, Compared]]:
    """Each mixer and each plain ViT of its size that share what is `fixed`."""
    return pairs(
        [item for item in items if any(_vit(item))],
        lambda item: (_vit(item)[1], fixed(item)),
        lambda one, other: bool(_vit(one)[0]) and not _vit(other)[0],
    )


def _throughput(row: Measured) -> float | None:
    return None if "throughput" in row.noisy else row.images_per_second


def _ratios(found: Sequence[tuple[Measured, Measured]], number: Callable[[Measured], float | None]) -> list[float]:
    """Mixer over ViT for each kind of mixer, geometric mean of its pairs."""
    logs: dict[str, list[float]] = defaultdict(list)
    for mixer, plain in found:
        if (over := number(mixer)) and (under := number(plain)):
            logs[_vit(mixer)[0]].append(log(over / under))
    return [exp(fmean(values)) for _, values in sorted(logs.items())]


def _gaps(found: Sequence[tuple[OwnScore, OwnScore]]) -> list[float]:
    """Points of mIoU of a mixer less the mean of the ViTs beside it, mean for each kind of mixer."""
    beside: dict[OwnScore, list[float]] = defaultdict(list)
    for mixer, plain in found:
        beside[mixer].append(plain.miou_percent)
    gaps: dict[str, list[float]] = defaultdict(list)
    for mixer, mious in beside.items():
        gaps[_vit(mixer)[0]].append(mixer.miou_percent - fmean(mious))
    return [fmean(values) for _, values in sorted(gaps.items())]
