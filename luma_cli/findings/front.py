"""Claim: plain ViTs hold the throughput front at every resolution, with and without FlashAttention (arXiv 2607.00687).

Accuracy is the model's, for the same pretraining on every architecture, so that what is compared is architectures; its
joint draws carry how unsure it is. Each set of conditions and each resolution has a front of its own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luma_cli.accuracy.backbones import recognise
from luma_cli.findings.benches import (
    WITH_FLASH,
    WITHOUT_FLASH,
    attention_label,
    device_option,
    latest,
    of_device,
    profile_row,
)
from luma_cli.findings.finding import CONTRADICTED, SUPPORTED, UNDECIDED, Figure, Finding, Row, Verdict, one_line
from luma_cli.findings.throughput_loss import Held, held

if TYPE_CHECKING:
    from luma_cli.accuracy.sightings import AccuracyModel
    from luma_cli.speed.measured import Conditions, Measured
    from luma_cli.speed.shipped import Setting, Table

NAME = "front"
CLAIM = "Plain ViTs hold the throughput front at every resolution, with and without FlashAttention."
# The paper's architectures were all pretrained on ImageNet-21k labels.
PRETRAINING = "supervised_in21k"
MARGIN = 0.5
FEWEST_VITS, FEWEST_OTHERS, FEWEST_RESOLUTIONS, LARGE_PX = 3, 6, 3, 768
NUM_DRAWS = 400
RULE = one_line(
    f"""
    At each resolution and set of conditions of one device, over the speeds that plain ViTs span: mIoU lost by taking
    the best plain ViT that is as fast rather than the best model that is, mean over log speed, accuracy predicted for
    {PRETRAINING} on every architecture, 90% interval from joint draws. A front is held where the loss lies below
    {MARGIN} mIoU, lost where above. Segmenters that you profiled decide; needs {FEWEST_VITS} ViTs and {FEWEST_OTHERS}
    others at each of {FEWEST_RESOLUTIONS} resolutions, one of {LARGE_PX} px or more, both with and without
    FlashAttention. Contradicted where one front is lost, supported where all are held. timm's classifiers are shown
    and do not decide: small images, no head.
    """
)
# Patches of 8 and 32 pixels trade accuracy for speed in a way that no evidence here knows.
_PLAIN = re.compile(r"(vit|deit3?)_[a-z0-9]+_patch1[46](_.*)?")
_SHIPPED_PX = (224, 384, 512)


@dataclass(frozen=True, slots=True)
class _Front:
    """Models of one set of conditions at one resolution, their images per second by architecture, the rows behind."""

    title: str
    resolution: int
    attention: str
    head: str
    rates: Mapping[str, float]
    rows: tuple[Row, ...]
    decides: bool

    @property
    def vits(self) -> list[str]:
        return [name for name in self.rates if is_plain(name)]

    @property
    def is_enough(self) -> bool:
        others = len(self.rates) - len(self.vits)
        return len({self.rates[name] for name in self.vits}) >= FEWEST_VITS and others >= FEWEST_OTHERS


def front(
    model: AccuracyModel, measured: Sequence[Measured], shipped: Table, device: str | None, dataset: str
) -> Finding:
    """The claim on the user's profiles of one device, timm's classifiers beside them."""
    name, rows = of_device(measured, device)
    own = list(_measured_fronts(rows, name))
    fronts = [each for each in (*own, *_shipped_fronts(shipped, device)) if each.is_enough]
    found = [(each, _held(model, each, dataset)) for each in fronts]
    deciding = [(each, result) for each, result in found if each.decides]
    verdict = _verdict(deciding)
    return Finding(
        name=NAME,
        claim=CLAIM,
        rule=RULE,
        verdict=verdict,
        because=_because(verdict, deciding, own, name),
        figures=tuple(_figure(each, result) for each, result in found),
        settle=() if verdict != UNDECIDED else _settle(device),
        notes=(
            f"accuracy is predicted, not measured, and rests on published results with other heads: {model.scale_note}",
            "a front is a statement about one device, number format and compile mode; name another with --device",
        ),
        rows=tuple(sorted({row for each in fronts for row in each.rows})),
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
    groups: dict[tuple[Conditions, int], list[Measured]] = defaultdict(list)
    for (conditions, architecture, resolution), row in latest(rows).items():
        if row.images_per_second and "throughput" not in row.noisy and _counts(architecture):
            groups[conditions, resolution].append(row)
    for (conditions, resolution), found in sorted(groups.items(), key=lambda item: (item[0][1], item[0][0])):
        rates = {row.architecture: row.images_per_second or 0.0 for row in found}
        attention = attention_label(conditions)
        title = f"{resolution} px {attention} ({conditions.attention}), {device} {conditions.dtype}"
        title += "" if conditions.compile == "none" else f", compile {conditions.compile}"
        shown = tuple(map(profile_row, found))
        yield _Front(title, resolution, attention, conditions.head, rates, shown, decides=True)


def _shipped_fronts(table: Table, device: str | None) -> Iterator[_Front]:
    """One front per setting of one device and size of timm's classifiers, attention as timm takes it by default."""
    for at, setting in _settings(table, device):
        for resolution in _SHIPPED_PX:
            rates = {
                row.architecture: 1e3 / time
                for row in table.rows
                if row.resolution == resolution and (time := row.milliseconds[at]) and _counts(row.architecture)
            }
            title = f"{resolution} px, classifiers, {setting.label}"
            row = Row(f"timm {title}", f"{len(rates)} classifiers, {title}", "profiles/reference/timm_throughput.csv")
            yield _Front(title, resolution, "", "luma", rates, (row,), decides=False)


def _settings(table: Table, device: str | None) -> list[tuple[int, Setting]]:
    """Columns of the device named, else of the one with most classifiers."""
    counts = {at: sum(row.milliseconds[at] is not None for row in table.rows) for at, _ in enumerate(table.settings)}
    wanted = (device or "").lower()
    named = [at for at, setting in enumerate(table.settings) if wanted and wanted in setting.device_name.lower()]
    best = named or [max(counts, key=lambda at: (counts[at], -at))] if counts else []
    return [
        (at, setting)
        for at, setting in enumerate(table.settings)
        if any(setting.device_name == table.settings[each].device_name for each in best)
    ]


def _held(model: AccuracyModel, of: _Front, dataset: str) -> Held:
    import numpy as np

    from luma_cli.accuracy.subjects import subject_of

    names = list(of.rates)
    subjects = [
        subject_of(name, dataset, resolution=of.resolution, pretraining=PRETRAINING, head=of.head) for name in names
    ]
    draws = model.draws(subjects, NUM_DRAWS)
    return held(np.array([of.rates[name] for name in names]), draws, np.array([is_plain(name) for name in names]))


def _verdict(found: Sequence[tuple[_Front, Held]]) -> Verdict:
    if any(result.loss_points.above(MARGIN) for _, result in found):
        return CONTRADICTED
    all_held = all(result.loss_points.below(MARGIN) for _, result in found)
    return (
        SUPPORTED
        if all_held and all(_covers(found, attention) for attention in (WITH_FLASH, WITHOUT_FLASH))
        else UNDECIDED
    )


def _covers(found: Sequence[tuple[_Front, Held]], attention: str) -> bool:
    """Whether enough resolutions were seen with this kind of attention."""
    sizes = {each.resolution for each, _ in found if each.attention == attention}
    return len(sizes) >= FEWEST_RESOLUTIONS and max(sizes) >= LARGE_PX


def _because(verdict: Verdict, found: Sequence[tuple[_Front, Held]], own: Sequence[_Front], device: str) -> str:
    lost = [each.title for each, result in found if result.loss_points.above(MARGIN)]
    if lost:
        return f"lost at {lost[0]}" + (f" and {len(lost) - 1} more" if len(lost) > 1 else "")
    if verdict == SUPPORTED:
        return f"held at all {len(found)} fronts on {device}"
    if not own:
        return "no segmenter of yours has a sound throughput" + (f" on {device}" if device else "")
    if not found:
        return f"no resolution on {device} has {FEWEST_VITS} plain ViTs and {FEWEST_OTHERS} other backbones profiled"
    num_held = sum(result.loss_points.below(MARGIN) for _, result in found)
    return f"held at {num_held} of {len(found)} fronts on {device}, lost at none; the rest, or a resolution, is open"


def _figure(of: _Front, result: Held) -> Figure:
    counts = (
        f"{len(of.vits)} ViTs, {len(of.rates) - len(of.vits)} others; "
        f"a ViT is best at {result.share_percent:.0f}% of speeds"
    )
    return Figure(f"loss with ViTs alone, {of.title}", result.loss_points, "points", counts, "", of.decides, 1)


def _settle(device: str | None) -> tuple[str, ...]:
    """ViTs of every size beside the usual rivals, attention fused and not."""
    names = "vit_t vit_s vit_b vit_l swin_t swin_b convnext_t convnext_b hiera_b caformer_s18 poolformer_s36 nextvit_s"
    line = f"luma profile {names} --res 224 512 1024{device_option(device)}"
    return line, f"{line} --attention unfused"
