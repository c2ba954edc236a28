"""Claim: efficient token mixers are competitive on memory only (arXiv 2607.00687, findings).

A mixer stands beside the plain ViT of its own size, patch and resolution, in one head, on one device, under equal
conditions; only what is asked of attention may differ, because the mixer has none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean

from luma_cli.evidence.evidence import DATASET_TITLES
from luma_cli.evidence.own_runs import OwnRun
from luma_cli.findings import wtf
from luma_cli.findings.benches import (
    WITH_FLASH,
    WITHOUT_FLASH,
    apart_from_attention,
    attention_label,
    device_option,
    latest,
    of_device,
    profile_row,
)
from luma_cli.findings.finding import (
    CONTRADICTED,
    SUPPORTED,
    UNDECIDED,
    Figure,
    Finding,
    Interval,
    Row,
    Verdict,
    counted,
    one_line,
)
from luma_cli.findings.own import own_rows, own_scores
from luma_cli.findings.student import FEWEST_VALUES, mean_interval, ratio_interval
from luma_cli.speed.measured import Measured

NAME = "mixers"
CLAIM = "Efficient token mixers are competitive on memory only, not on throughput or accuracy."
KINDS = (
    "hydra",
    "linear",
    "performer",
    "linformer",
    "synthesizer",
    "synthesizer_fr",
    "nystrom",
    "fnet",
    "gfnet",
    "afno",
)
SMALLEST_PX = 512
MARGIN = 0.5
RULE = one_line(
    f"""
    A mixer against the plain ViT of its size at the same resolution of {SMALLEST_PX} px or more, on one device under
    equal conditions, with FlashAttention: ratio of throughput and of peak memory, geometric mean per kind of mixer,
    Student's 90% interval over at least {FEWEST_VALUES} kinds; and mIoU of your own runs, mixer minus ViT. Supported
    when memory lies below 1, throughput below 1 and mIoU below +{MARGIN}. Contradicted when memory lies above 1, or
    throughput above 1 and mIoU above -{MARGIN}. Classifiers of the WTF benchmark are shown and do not decide.
    """
)
_OWN = re.compile(rf"({'|'.join(KINDS)})_vit_(tiny|small|base|large)_patch16_\d+")
_PLAIN = re.compile(r"vit_(tiny|small|base|large)_patch16_\d+")


@dataclass(frozen=True, slots=True)
class _Match:
    """A mixer's row beside a plain ViT's."""

    kind: str
    attention: str
    mixer: Measured
    plain: Measured


def mixers(runs: Sequence[OwnRun], measured: Sequence[Measured], device: str | None, dataset: str) -> Finding:
    """The claim on the user's profiles of one device and own runs of one dataset."""
    name, rows = of_device(measured, device)
    matches = list(_matches(rows))
    fused = [match for match in matches if match.attention == WITH_FLASH]
    speed, memory = _ratio(fused, _throughput), _ratio(fused, _memory)
    gap, gap_ids, num_gaps = _miou_gap(runs, dataset)
    verdict = _verdict(speed, memory, gap)
    classifiers = wtf.load()
    return Finding(
        name=NAME,
        claim=CLAIM,
        rule=RULE,
        verdict=verdict,
        because=_because(verdict, name, fused, gap),
        figures=(*_figures(matches, name), _gap_figure(gap, num_gaps, dataset), *_classifier_figures(classifiers)),
        settle=() if verdict != UNDECIDED else _settle(device, dataset, bool(_ends(speed) and _ends(memory))),
        notes=(
            "classifiers: throughput at the top-1 of a plain ViT, attention unfused; ImageNet, small images, no head",
            "its memory columns are left out: at batch 1 a median 9.9 times the weights, what training left behind",
        ),
        rows=_rows(matches, runs, gap_ids, classifiers),
    )


def _matches(rows: Sequence[Measured]) -> Iterator[_Match]:
    """Every mixer row beside every plain ViT of its size and resolution, conditions equal but for attention."""
    mixing: dict[tuple[object, ...], list[tuple[str, Measured]]] = defaultdict(list)
    found = latest([row for row in rows if row.resolution >= SMALLEST_PX])
    for (conditions, architecture, resolution), row in found.items():
        if mixer := _OWN.fullmatch(architecture):
            mixing[apart_from_attention(conditions), mixer[2], resolution].append((mixer[1], row))
    for (conditions, architecture, resolution), row in found.items():
        if plain := _PLAIN.fullmatch(architecture):
            for kind, mixer_row in mixing[apart_from_attention(conditions), plain[1], resolution]:
                yield _Match(kind, attention_label(conditions), mixer_row, row)


def _throughput(row: Measured) -> float | None:
    return None if "throughput" in row.noisy else row.images_per_second


def _memory(row: Measured) -> float | None:
    return row.memory_bytes


def _by_kind(matches: Sequence[_Match], number: Callable[[Measured], float | None]) -> dict[str, float]:
    """Geometric mean of mixer over ViT, per kind."""
    logs: dict[str, list[float]] = defaultdict(list)
    for match in matches:
        mixer, plain = number(match.mixer), number(match.plain)
        if mixer and plain:
            logs[match.kind].append(log(mixer / plain))
    return {kind: exp(fmean(values)) for kind, values in sorted(logs.items())}


def _ratio(matches: Sequence[_Match], number: Callable[[Measured], float | None]) -> Interval | None:
    return ratio_interval(list(_by_kind(matches, number).values()))


def _miou_gap(runs: Sequence[OwnRun], dataset: str) -> tuple[Interval | None, list[str], int]:
    """Gap of mixers to the plain ViT of their size in mIoU, mean per kind; ids of the runs; number of kinds."""
    scores = [score for score in own_scores(runs, dataset, own_weights=True) if score.head == "luma"]
    plain: dict[tuple[str, int], list[float]] = defaultdict(list)
    gaps: dict[str, list[float]] = defaultdict(list)
    ids: list[str] = []
    for score in scores:
        if match := _PLAIN.fullmatch(score.timm_name.split(".")[0]):
            plain[match[1], score.resolution].append(score.miou_percent)
            ids += score.ids
    for score in scores:
        mixer = _OWN.fullmatch(score.timm_name.split(".")[0])
        if mixer and (beside := plain.get((mixer[2], score.resolution))):
            gaps[mixer[1]].append(score.miou_percent - fmean(beside))
            ids += score.ids
    return mean_interval([fmean(values) for _, values in sorted(gaps.items())]), ids if gaps else [], len(gaps)


def _verdict(speed: Interval | None, memory: Interval | None, gap: Interval | None) -> Verdict:
    if memory is not None and memory.above(1):
        return CONTRADICTED
    if speed is None or memory is None or gap is None:
        return UNDECIDED
    if speed.above(1) and gap.above(-MARGIN):
        return CONTRADICTED
    return SUPPORTED if memory.below(1) and speed.below(1) and gap.below(MARGIN) else UNDECIDED


def _because(verdict: Verdict, name: str, fused: Sequence[_Match], gap: Interval | None) -> str:
    if verdict != UNDECIDED:
        return f"decided on {name} and on your own runs" if gap is not None else f"decided by memory on {name}"
    kinds = len({match.kind for match in fused})
    device = f"on {name}" if name else "on any device"
    profiles = f"{counted(kinds, 'kind')} of mixer profiled beside a ViT of its size {device}, needs {FEWEST_VALUES}"
    accuracy = "no run of your own says what mIoU a mixer reaches" if gap is None else "mIoU is known"
    if kinds >= FEWEST_VALUES and gap is not None and gap.low is not None:
        return "the intervals include the limits of the rule"
    return f"{profiles}; {accuracy}"


def _figures(matches: Sequence[_Match], name: str) -> list[Figure]:
    figures = []
    for attention in (WITH_FLASH, WITHOUT_FLASH):
        some = [match for match in matches if match.attention == attention]
        for number, what in ((_throughput, "throughput"), (_memory, "peak memory")):
            by_kind = _by_kind(some, number)
            counts = f"{counted(len(by_kind), 'kind')} on {name}" if by_kind else ""
            title = f"{what}, mixer over ViT {attention}"
            ratio = ratio_interval(list(by_kind.values()))
            figures.append(Figure(title, ratio, "x", counts, "no sound pair of profiles", attention == WITH_FLASH))
    return figures


def _gap_figure(gap: Interval | None, num_kinds: int, dataset: str) -> Figure:
    title = DATASET_TITLES.get(dataset, dataset)
    counts = f"{counted(num_kinds, 'kind')} of your own" if num_kinds else ""
    return Figure(f"mIoU, mixer minus ViT, {title}", gap, "points", counts, "no run of a mixer", digits=1)


def _classifier_figures(rows: Sequence[wtf.Classifier]) -> list[Figure]:
    figures = []
    for side in sorted({row.side for row in rows}):
        by_kind: dict[str, list[float]] = defaultdict(list)
        for row, ratio in wtf.at_equal_top1(rows):
            if row.side == side:
                by_kind[row.kind].append(log(ratio))
        ratio_of_kinds = ratio_interval([exp(fmean(logs)) for _, logs in sorted(by_kind.items())])
        what = f"throughput at equal ImageNet top-1, classifiers, {side} px"
        line = sum(row.is_plain and row.side == side for row in rows)
        counts = f"{counted(len(by_kind), 'kind')} against a line through {line} ViTs, {wtf.SOURCE}"
        if ratio_of_kinds is not None:
            figures.append(Figure(what, ratio_of_kinds, "x", counts, decides=False))
    return figures


def _ends(interval: Interval | None) -> bool:
    return interval is not None and interval.low is not None


def _settle(device: str | None, dataset: str, has_profiles: bool) -> tuple[str, ...]:
    """Profiles of five kinds beside the ViT; then what is dearer, one run of each."""
    names = ("linformer_vit_b", "nystrom_vit_b", "performer_vit_b", "hydra_vit_b", "fnet_vit_b")
    profile = f"luma profile vit_b {' '.join(names)} --res 512 1024{device_option(device)}"
    train = tuple(
        f"luma train {name} --data {dataset} --weights FILE" for name in (*names[:FEWEST_VALUES], "vit_b.in21k")
    )
    return train if has_profiles else (profile, *train)


def _rows(
    matches: Sequence[_Match], runs: Sequence[OwnRun], ids: Sequence[str], classifiers: Sequence[wtf.Classifier]
) -> tuple[Row, ...]:
    profiles = {profile_row(row) for match in matches for row in (match.mixer, match.plain)}
    plain = {row.side for row, _ in wtf.at_equal_top1(classifiers)}
    used = [row for row in classifiers if row.kind or (row.is_plain and row.side in plain)]
    shown = [
        Row(row.id, f"{row.top1_percent:.1f}% top-1, {row.throughput:.0f} img/s at {row.side} px", wtf.SOURCE)
        for row in used
    ]
    return tuple(sorted([*profiles, *own_rows(runs, ids), *shown]))
