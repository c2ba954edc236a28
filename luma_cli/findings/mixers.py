"""Claim: efficient token mixers are competitive on memory only (arXiv 2607.00687, findings).

A mixer is compared with the plain ViT of its own size, patch and resolution, in one head, on one device, under equal
conditions; only what is asked of attention may differ, because the mixer has none. Classifiers of the WTF benchmark on
an A100 (arXiv 2308.09372, https://github.com/tobna/WTF-Benchmark-Dashboard) are shown beside: one recipe for all models
(ImageNet-21k, then -1k), one head, a pooled linear layer. Their memory columns do not ship: at batch 1 they are a
median 9.9 times the weights, so they hold what training in the same process left behind.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from statistics import fmean

from luma_cli import files
from luma_cli.errors import BadCard
from luma_cli.evidence.evidence import DATASET_TITLES
from luma_cli.findings.finding import (
    UNDECIDED,
    EvidenceRow,
    Figure,
    Finding,
    above,
    below,
    counted,
    judge,
    own_rows,
    own_scores,
)
from luma_cli.findings.profiles import (
    WITH_FLASH,
    WITHOUT_FLASH,
    attention_label,
    device_option,
    latest,
    of_device,
    profile_row,
)
from luma_cli.findings.statistics import FEWEST_VALUES, mean_interval, ratio_interval
from luma_cli.store.profiles import Measured
from luma_cli.store.runs import OwnRun

KINDS = tuple(
    ["hydra", "linear", "performer", "linformer", "synthesizer", "synthesizer_fr", "nystrom", "fnet", "gfnet", "afno"]
)
SMALLEST_PX = 512
MARGIN = 0.5
CLAIM = Finding(
    "mixers",
    "Efficient token mixers are competitive on memory only, not on throughput or accuracy.",
    f"""
    A mixer against the plain ViT of its size at the same resolution of {SMALLEST_PX} px or more, on one device under
    equal conditions, with FlashAttention: ratio of throughput and of peak memory, geometric mean per kind of mixer,
    Student's 90% interval over at least {FEWEST_VALUES} kinds; and mIoU of your own runs, mixer minus ViT. Supported
    when memory lies below 1, throughput below 1 and mIoU below +{MARGIN}. Contradicted when memory lies above 1, or
    throughput above 1 and mIoU above -{MARGIN}. Classifiers of the WTF benchmark are shown and do not decide.
    """,
)
_OWN = re.compile(rf"({'|'.join(KINDS)})_vit_(tiny|small|base|large)_patch16_\d+")
_PLAIN = re.compile(r"vit_(tiny|small|base|large)_patch16_\d+")
WTF_SOURCE = "WTF benchmark, arXiv 2308.09372, A100"
# What replaces attention in a ViT; pruning and merging of tokens, pyramids and mixtures of experts are other ideas.
_WTF_MIXER = re.compile(r"(fnet|gfnet|linformer|mixer|polysa|routing|sinkhorn|synthesizer|xcit)(?=_)|nystrom")


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
    matches = _matches(rows)
    fused = [match for match in matches if match.attention == WITH_FLASH]
    speed, memory = ratio_interval(_by_kind(fused, _throughput)), ratio_interval(_by_kind(fused, _memory))
    gaps, gap_ids = _miou_gaps(runs, dataset)
    gap = mean_interval(gaps)
    verdict = judge(
        below(memory, 1) and below(speed, 1) and below(gap, MARGIN),
        above(memory, 1) or (memory is not None and above(speed, 1) and above(gap, -MARGIN)),
    )

    kinds = len({match.kind for match in fused})
    if verdict != UNDECIDED:
        because = f"decided on {name} and on your own runs" if gap is not None else f"decided by memory on {name}"
    elif kinds >= FEWEST_VALUES and gap is not None and gap.low is not None:
        because = "the intervals include the limits of the rule"
    else:
        because = (
            f"{counted(kinds, 'kind')} of mixer profiled beside a ViT of its size "
            f"{f'on {name}' if name else 'on any device'}, needs {FEWEST_VALUES}; "
            f"{'no run of your own says what mIoU a mixer reaches' if gap is None else 'mIoU is known'}"
        )
    counts = f"{counted(len(gaps), 'kind')} of your own" if gaps else ""
    what = f"mIoU, mixer minus ViT, {DATASET_TITLES.get(dataset, dataset)}"
    gap_figure = Figure(what, gap, "points", counts, "no run of a mixer", digits=1)
    classifiers = load_classifiers()
    profiles = (profile_row(row) for match in matches for row in (match.mixer, match.plain))
    has_profiles = all(ratio is not None and ratio.low is not None for ratio in (speed, memory))
    return CLAIM.concluded(
        verdict,
        because,
        [*_figures(matches, name), gap_figure, *_classifier_figures(classifiers)],
        [*profiles, *own_rows(runs, gap_ids), *_classifier_rows(classifiers)],
        settle=_settle(device, dataset, has_profiles),
        notes=(
            "classifiers: throughput at the top-1 of a plain ViT, attention unfused; ImageNet, small images, no head",
            "its memory columns are left out: at batch 1 a median 9.9 times the weights, what training left behind",
        ),
    )


def _matches(rows: Sequence[Measured]) -> list[_Match]:
    """Every mixer row beside every plain ViT of its size and resolution, conditions equal but for attention."""
    mixing: dict[tuple[object, ...], list[tuple[str, Measured]]] = defaultdict(list)
    found = latest([row for row in rows if row.resolution >= SMALLEST_PX])
    for (conditions, architecture, resolution), row in found.items():
        if mixer := _OWN.fullmatch(architecture):
            mixing[replace(conditions, attention=""), mixer[2], resolution].append((mixer[1], row))
    return [
        _Match(kind, attention_label(conditions), mixer_row, row)
        for (conditions, architecture, resolution), row in found.items()
        if (plain := _PLAIN.fullmatch(architecture))
        for kind, mixer_row in mixing[replace(conditions, attention=""), plain[1], resolution]
    ]


def _throughput(row: Measured) -> float | None:
    return None if "throughput" in row.noisy else row.images_per_second


def _memory(row: Measured) -> float | None:
    return row.memory_bytes


def _by_kind(matches: Iterable[_Match], number: Callable[[Measured], float | None]) -> list[float]:
    """Mixer over ViT of each kind, geometric mean."""
    pairs = ((match.kind, number(match.mixer), number(match.plain)) for match in matches)
    return _means((kind, mixer / plain) for kind, mixer, plain in pairs if mixer and plain)


def _means(ratios: Iterable[tuple[str, float]]) -> list[float]:
    """Geometric mean of each kind, in order of name."""
    logs: dict[str, list[float]] = defaultdict(list)
    for kind, ratio in ratios:
        logs[kind].append(log(ratio))
    return [exp(fmean(values)) for _, values in sorted(logs.items())]


def _miou_gaps(runs: Sequence[OwnRun], dataset: str) -> tuple[list[float], set[str]]:
    """Gap of mixers to the plain ViT of their size in mIoU, mean of each kind; ids of the runs."""
    plain: dict[tuple[str, int], list[float]] = defaultdict(list)
    gaps: dict[str, list[float]] = defaultdict(list)
    ids: set[str] = set()
    scores = [score for score in own_scores(runs, dataset, own_weights=True) if score.head == "luma"]
    for score in scores:
        if match := _PLAIN.fullmatch(score.timm_name.split(".")[0]):
            plain[match[1], score.resolution].append(score.miou_percent)
            ids.update(score.ids)
    for score in scores:
        mixer = _OWN.fullmatch(score.timm_name.split(".")[0])
        if mixer and (beside := plain.get((mixer[2], score.resolution))):
            gaps[mixer[1]].append(score.miou_percent - fmean(beside))
            ids.update(score.ids)
    return [fmean(values) for _, values in sorted(gaps.items())], ids if gaps else set()


def _figures(matches: Sequence[_Match], name: str) -> list[Figure]:
    figures = []
    for attention in (WITH_FLASH, WITHOUT_FLASH):
        some = [match for match in matches if match.attention == attention]
        for number, what in ((_throughput, "throughput"), (_memory, "peak memory")):
            by_kind = _by_kind(some, number)
            counts = f"{counted(len(by_kind), 'kind')} on {name}" if by_kind else ""
            title, decides = f"{what}, mixer over ViT {attention}", attention == WITH_FLASH
            figures.append(Figure(title, ratio_interval(by_kind), "x", counts, "no sound pair of profiles", decides))
    return figures


def _settle(device: str | None, dataset: str, has_profiles: bool) -> list[str]:
    """Profiles of five kinds beside the ViT; then what costs more, one run of each."""
    names = ("linformer_vit_b", "nystrom_vit_b", "performer_vit_b", "hydra_vit_b", "fnet_vit_b")
    profile = f"luma profile vit_b {' '.join(names)} --res 512 1024{device_option(device)}"
    trained = (*names[:FEWEST_VALUES], "vit_b.in21k")
    train = [f"luma train {name} --data {dataset} --weights FILE" for name in trained]
    return train if has_profiles else [profile, *train]


@dataclass(frozen=True, slots=True)
class WtfClassifier:
    """One model at one size, the mean of its repetitions. throughput: images per second at a batch of 2048 or so."""

    model: str
    side: int
    top1_percent: float
    throughput: float

    @property
    def kind(self) -> str:
        """The mixer without its options, so that two variants of one idea are one; empty for what is none."""
        found = _WTF_MIXER.match(self.model)
        return found[0] if found else ""

    @property
    def is_plain(self) -> bool:
        """Whether it is the plain ViT."""
        return self.model.startswith("ViT-")


def load_classifiers() -> list[WtfClassifier]:
    """The shipped table, repetitions averaged, in order of name and size. Raises BadCard when a row does not parse."""
    path = files.root() / "profiles" / "reference" / "wtf_classifiers.csv"
    groups: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for number, row in enumerate(files.read_csv(path), start=2):
        try:
            key = (row["model"], int(row["img_size"]))
            groups[key].append((float(row["top1_percent"]), float(row["images_per_second"])))
        except (KeyError, ValueError) as error:
            raise BadCard(f"{path}, line {number}: {error} in a table of classifiers; restore the file") from error
    return [
        WtfClassifier(*key, fmean(top1 for top1, _ in found), exp(fmean(log(rate) for _, rate in found)))
        for key, found in sorted(groups.items())
    ]


def at_equal_top1(rows: Sequence[WtfClassifier]) -> list[tuple[WtfClassifier, float]]:
    """Every mixer with its throughput over that of a plain ViT as accurate at the same size.

    ViTs are joined by straight lines in top-1 and log throughput. A mixer below the smallest ViT is compared with that
    one, which is more accurate, so the ratio can only be too kind; above the largest there is no answer.
    """
    import numpy as np

    found = []
    for row in rows:
        plain = sorted((r.top1_percent, log(r.throughput)) for r in rows if r.is_plain and r.side == row.side)
        if row.kind and len(plain) > 1 and row.top1_percent <= plain[-1][0]:
            top1, log_rates = zip(*plain, strict=True)
            found.append((row, row.throughput / exp(np.interp(row.top1_percent, top1, log_rates))))
    return found


def _classifier_figures(rows: Sequence[WtfClassifier]) -> list[Figure]:
    figures = []
    for side in sorted({row.side for row in rows}):
        by_kind = _means((row.kind, ratio) for row, ratio in at_equal_top1(rows) if row.side == side)
        if by_kind:
            what = f"throughput at equal ImageNet top-1, classifiers, {side} px"
            line = sum(row.is_plain and row.side == side for row in rows)
            counts = f"{counted(len(by_kind), 'kind')} against a line through {line} ViTs, {WTF_SOURCE}"
            figures.append(Figure(what, ratio_interval(by_kind), "x", counts, decides=False))
    return figures


def _classifier_rows(rows: Sequence[WtfClassifier]) -> list[EvidenceRow]:
    """The mixers, and the ViTs that they are compared with."""
    sides = {row.side for row, _ in at_equal_top1(rows)}
    return [
        EvidenceRow(
            f"wtf-{row.model}-{row.side}",
            f"{row.top1_percent:.1f}% top-1, {row.throughput:.0f} img/s at {row.side} px",
            WTF_SOURCE,
        )
        for row in rows
        if row.kind or (row.is_plain and row.side in sides)
    ]
