"""Classifiers of the WTF benchmark on an A100, `profiles/reference/wtf_classifiers.csv`: token mixers beside ViTs.

Source: arXiv 2308.09372 and its dashboard, https://github.com/tobna/WTF-Benchmark-Dashboard. One recipe for all models
(ImageNet-21k, then -1k), one head: a pooled linear layer. Its memory columns are not shipped: at batch 1 they are a
median 9.9 times the weights, so they hold what training in the same process left behind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import fmean

from luma_cli import files
from luma_cli.errors import BadCard

SOURCE = "WTF benchmark, arXiv 2308.09372, A100"
# What replaces attention in a ViT; pruning and merging of tokens, pyramids and mixtures of experts are other ideas.
_MIXERS = (
    "fnet_",
    "gfnet_",
    "linformer_",
    "mixer_",
    "nystrom",
    "polysa_",
    "routing_",
    "sinkhorn_",
    "synthesizer_",
    "xcit_",
)
_PLAIN = "ViT-"


@dataclass(frozen=True, slots=True)
class Classifier:
    """One model at one size, the mean of its repetitions. throughput: images per second at a batch of 2048 or so."""

    model: str
    side: int
    top1_percent: float
    throughput: float

    @property
    def id(self) -> str:
        """e.g. `wtf-ViT-S/16-224`."""
        return f"wtf-{self.model}-{self.side}"

    @property
    def kind(self) -> str:
        """The mixer without its options, so that two variants of one idea are one."""
        return next((prefix.rstrip("_") for prefix in _MIXERS if self.model.startswith(prefix)), "")

    @property
    def is_plain(self) -> bool:
        """Whether it is the plain ViT."""
        return self.model.startswith(_PLAIN)


def load() -> list[Classifier]:
    """The shipped table. Raises BadCard when a row does not parse."""
    return read(files.root() / "profiles" / "reference" / "wtf_classifiers.csv")


def read(path: Path) -> list[Classifier]:
    """The table at `path`, repetitions averaged, in order of name and size."""
    groups: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for number, row in enumerate(files.read_csv(path), start=2):
        try:
            key = (row["model"], int(row["img_size"]))
            groups[key].append((float(row["top1_percent"]), float(row["images_per_second"])))
        except (KeyError, ValueError) as error:
            raise BadCard(f"{path}, line {number}: {error} in a table of classifiers; restore the file") from error
    return [
        Classifier(*key, fmean(top1 for top1, _ in found), exp(fmean(log(rate) for _, rate in found)))
        for key, found in sorted(groups.items())
    ]


def at_equal_top1(rows: Sequence[Classifier]) -> list[tuple[Classifier, float]]:
    """Every mixer with its throughput over that of a plain ViT as accurate at the same size.

    ViTs are joined by straight lines in top-1 and log throughput. A mixer below the smallest ViT is held against that
    one, which is more accurate, so the ratio can only be too kind; above the largest there is no answer.
    """
    found = []
    for row in rows:
        plain = sorted((r.top1_percent, log(r.throughput)) for r in rows if r.is_plain and r.side == row.side)
        if row.kind and len(plain) > 1 and row.top1_percent <= plain[-1][0]:
            found.append((row, row.throughput / exp(_interpolated(plain, row.top1_percent))))
    return found


def _interpolated(points: Sequence[tuple[float, float]], x: float) -> float:
    """The line through sorted points at `x`, level below the first."""
    if x <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in zip(points, points[1:], strict=False):
        if x <= right:
            return low + (high - low) * (x - left) / (right - left)
    return points[-1][1]
