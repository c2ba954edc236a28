"""Claim: plain ViTs hold the throughput front at every resolution, with and without FlashAttention (arXiv 2607.00687).

Accuracy is the model's, for the same pretraining on every architecture, so that what is compared is architectures; its
joint draws carry how unsure it is. Each set of conditions and each resolution has a front of its own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luma_cli.accuracy.backbones import recognise
from luma_cli.accuracy.sightings import AccuracyModel
from luma_cli.accuracy.subjects import subject_of
from luma_cli.findings.finding import (
    CONTRADICTED,
    SUPPORTED,
    EvidenceRow,
    Figure,
    Finding,
    Interval,
    above,
    below,
    judge,
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
from luma_cli.findings.statistics import Numbers, percentiles
from luma_cli.speed.reference import ThroughputTable
from luma_cli.store.profiles import Conditions, Measured

# The paper's architectures were all pretrained on ImageNet-21k labels.
PRETRAINING = "supervised_in21k"
MARGIN = 0.5
FEWEST_VITS, FEWEST_OTHERS, FEWEST_RESOLUTIONS, LARGE_PX = 3, 6, 3, 768
NUM_DRAWS = 400
CLAIM = Finding(
    "front",
    "Plain ViTs hold the throughput front at every resolution, with and without FlashAttention.",
    f"""
    At each resolution and set of conditions of one device, over the speeds that plain ViTs span: mIoU lost by taking
    the best plain ViT that is as fast rather than the best model that is, mean over log speed, accuracy predicted for
    {PRETRAINING} on every architecture, 90% interval from joint draws. A front is held where the loss lies below
    {MARGIN} mIoU, lost where above. Segmenters that you profiled decide; needs {FEWEST_VITS} ViTs and {FEWEST_OTHERS}
    others at each of {FEWEST_RESOLUTIONS} resolutions, one of {LARGE_PX} px or more, both with and without
    FlashAttention. Contradicted where one front is lost, supported where all are held. timm's classifiers are shown
    and do not decide: small images, no head.
    """,
)
# Patches of 8 and 32 pixels trade accuracy for speed in a way that no evidence here knows.
_PLAIN = re.compile(r"(vit|deit3?)_[a-z0-9]+_patch1[46](_.*)?")
_SHIPPED_PX = (224, 384, 512)
# ViTs of every size beside the usual rivals.
_TO_PROFILE = (
    "vit_t vit_s vit_b vit_l swin_t swin_b convnext_t convnext_b hiera_b caformer_s18 poolformer_s36 nextvit_s"
)


@dataclass(frozen=True, slots=True)
class _Front:
    """Models of one set of conditions at one resolution, their images per second by architecture, the rows behind.

    attention: how the user's own profiles were made, which decide; empty for timm's classifiers, which do not.
    """

    title: str
    resolution: int
    attention: str
    head: str
    rates: Mapping[str, float]
    rows: tuple[EvidenceRow, ...]

    @property
    def num_vits(self) -> int:
        return sum(map(is_plain, self.rates))

    @property
    def is_enough(self) -> bool:
        speeds = {rate for name, rate in self.rates.items() if is_plain(name)}
        return len(speeds) >= FEWEST_VITS and len(self.rates) - self.num_vits >= FEWEST_OTHERS


def front(
    model: AccuracyModel, measured: Sequence[Measured], shipped: ThroughputTable, device: str | None, dataset: str
) -> Finding:
    """The claim on the user's profiles of one device, timm's classifiers beside them."""
    name, rows = of_device(measured, device)
    own = list(_measured_fronts(rows, name))
    fronts = [each for each in (*own, *_shipped_fronts(shipped, device)) if each.is_enough]
    found = [(each, _held(model, each, dataset)) for each in fronts]
    deciding = [(each, result.loss_points) for each, result in found if each.attention]
    lost = [each.title for each, loss in deciding if above(loss, MARGIN)]
    num_held = sum(below(loss, MARGIN) for _, loss in deciding)
    covered = all(_covers(deciding, attention) for attention in (WITH_FLASH, WITHOUT_FLASH))
    verdict = judge(covered and num_held == len(deciding), bool(lost))
    if verdict == CONTRADICTED:
        because = f"lost at {lost[0]}" + (f" and {len(lost) - 1} more" if len(lost) > 1 else "")
    elif verdict == SUPPORTED:
        because = f"held at all {len(deciding)} fronts on {name}"
    elif not own:
        because = "no segmenter of yours has a sound throughput" + (f" on {name}" if name else "")
    elif not deciding:
        because = f"no resolution on {name} has {FEWEST_VITS} plain ViTs and {FEWEST_OTHERS} other backbones profiled"
    else:
        because = (
            f"held at {num_held} of {len(deciding)} fronts on {name}, lost at none; the rest, or a resolution, is open"
        )
    line = f"luma profile {_TO_PROFILE} --res 224 512 1024{device_option(device)}"
    return CLAIM.concluded(
        verdict,
        because,
        [_figure(each, result) for each, result in found],
        (row for each in fronts for row in each.rows),
        settle=(line, f"{line} --attention unfused"),
        notes=(
            f"accuracy is predicted, not measured, and rests on published results with other heads: {model.scale_note}",
            "a front is a statement about one device, number format and compile mode; name another with --device",
        ),
    )


def is_plain(architecture: str) -> bool:
    """Whether this is a plain ViT with patches of 14 or 16 pixels: ViT, DeiT, DeiT III."""
    return _PLAIN.fullmatch(architecture) is not None


def _counts(architecture: str) -> bool:
    """Plain ViTs, and what is no ViT at all: variants (relative positions, EVA, BEiT, hybrids) are on neither side."""
    lineage = recognise(architecture).lineage
    return is_plain(architecture) or (lineage is not None and lineage.name not in ("vit", "eva02"))


def _measured_fronts(rows: Sequence[Measured], device: str) -> Iterator[_Front]:
    """One front per set of conditions and resolution."""
    groups: dict[tuple[int, Conditions], list[Measured]] = defaultdict(list)
    for (conditions, architecture, resolution), row in latest(rows).items():
        if row.images_per_second and "throughput" not in row.noisy and _counts(architecture):
            groups[resolution, conditions].append(row)
    for (resolution, conditions), found in sorted(groups.items()):
        rates = {row.architecture: row.images_per_second or 0.0 for row in found}
        attention = attention_label(conditions)
        title = f"{resolution} px {attention} ({conditions.attention}), {device} {conditions.dtype}"
        title += "" if conditions.compile == "none" else f", compile {conditions.compile}"
        yield _Front(title, resolution, attention, conditions.head, rates, tuple(map(profile_row, found)))


def _shipped_fronts(table: ThroughputTable, device: str | None) -> Iterator[_Front]:
    """One front per setting and size of timm's classifiers, on the device named or the one with most of them."""
    names = [setting.device_name for setting in table.settings]
    shown = {name for name in names if device and device.lower() in name.lower()}
    if names and not shown:
        counts = [sum(row.milliseconds[at] is not None for row in table.rows) for at in range(len(names))]
        shown = {names[counts.index(max(counts))]}
    for at, setting in enumerate(table.settings):
        for resolution in _SHIPPED_PX if setting.device_name in shown else ():
            rates = {
                row.architecture: 1e3 / time
                for row in table.rows
                if row.resolution == resolution and (time := row.milliseconds[at]) and _counts(row.architecture)
            }
            title = f"{resolution} px, classifiers, {setting.label}"
            says = f"{len(rates)} classifiers, {title}"
            row = EvidenceRow(f"timm {title}", says, "profiles/reference/timm_throughput.csv")
            yield _Front(title, resolution, "", "luma", rates, (row,))


def _covers(deciding: Sequence[tuple[_Front, Interval]], attention: str) -> bool:
    """Whether enough resolutions were seen with this kind of attention."""
    sizes = {each.resolution for each, _ in deciding if each.attention == attention}
    return len(sizes) >= FEWEST_RESOLUTIONS and max(sizes) >= LARGE_PX


def _figure(of: _Front, result: Held) -> Figure:
    counts = (
        f"{of.num_vits} ViTs, {len(of.rates) - of.num_vits} others; "
        f"a ViT is best at {result.share_percent:.0f}% of speeds"
    )
    what = f"loss with ViTs alone, {of.title}"
    return Figure(what, result.loss_points, "points", counts, decides=bool(of.attention), digits=1)


@dataclass(frozen=True, slots=True)
class Held:
    """loss_points: mIoU lost by taking the best of the class rather than of all, mean over the speeds asked for.

    share_percent: of those speeds at which the best of all is of the class. Speeds asked for are spread evenly in their
    logarithm between the slowest and the fastest of the class.
    """

    loss_points: Interval
    share_percent: float


def _held(model: AccuracyModel, of: _Front, dataset: str) -> Held:
    subjects = [
        subject_of(name, dataset, resolution=of.resolution, pretraining=PRETRAINING, head=of.head) for name in of.rates
    ]
    is_class = np.array([is_plain(name) for name in of.rates])
    return held(np.array(list(of.rates.values())), model.draws(subjects, NUM_DRAWS), is_class)


def held(rates: Numbers, accuracy: Numbers, is_class: NDArray[np.bool_]) -> Held:
    """What the class holds, from joint draws of the accuracy [draws, models], with the 90% interval of the loss.

    rates: images per second. Needs two models of the class with different rates. The best at a speed is the best in
    mean accuracy, as an adviser would have to choose; the best of each draw would be whichever is least certain.
    """
    order = np.argsort(-rates, kind="stable")
    logs, drawn, of_class = np.log(rates[order]), accuracy[:, order], is_class[order]
    fastest, slowest = np.flatnonzero(of_class)[[0, -1]]
    best = _best_so_far(drawn.mean(0))[fastest:slowest]
    best_of_class = _best_so_far(np.where(of_class, drawn.mean(0), -np.inf))[fastest:slowest]
    # Between the speeds of a model and the next slower one, the best of those as fast stays the same: a step function.
    steps = -np.diff(logs[fastest : slowest + 1])
    weights = steps / steps.sum()
    loss = (drawn[:, best] - drawn[:, best_of_class]) @ weights
    share = 100 * float(weights @ (best == best_of_class))
    return Held(percentiles(float(loss.mean()), loss), share)


def _best_so_far(scores: Numbers) -> NDArray[np.int64]:
    """Index of the largest of the first j scores, for every j; the first of equals."""
    is_record = np.r_[True, scores[1:] > np.maximum.accumulate(scores)[:-1]]
    return np.maximum.accumulate(np.where(is_record, np.arange(len(scores)), 0))
