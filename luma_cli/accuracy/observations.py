"""Rows of evidence as numbers: log errors, and which effects each is a sum of."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from luma_cli.accuracy.design import GROUPS, Feature, data_of, features
from luma_cli.accuracy.subject import Subject
from luma_cli.accuracy.subjects import subject_of_row
from luma_cli.evidence.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Matrix = NDArray[np.float64]

# Rows that speak against themselves count as if measured with this many times the noise.
DOUBT_FACTOR = 2.0
# More seeds than this tell no more: what is left then is not seed noise.
MAX_SEEDS = 10
# A fit of 3,000 takes about 5 s; of more, evenly spaced ones are taken.
MOST_OBSERVATIONS = 3000
CENTRE = 3.9  # log error that the model starts from: about 50 mIoU


@dataclass(frozen=True, slots=True)
class Column:
    """One effect and the observations it enters: `rows` [m] with `values` [m]."""

    group: int
    rows: NDArray[np.intp]
    values: Vector


@dataclass(frozen=True)
class Observations:
    """`n` observed log errors with `p` effects.

    ids: n, of the first row of each. subjects: n. log_error: n, without CENTRE and what the prior expects, `expected`
    [n]. noise_of: n indices into `noises`. noise_factor: n. keys: p pairs of group and level; columns: p. usual_data:
    objective -> pretraining data of most of its rows. rows: subject, id and provenance of every row, at least n.
    """

    ids: tuple[str, ...]
    subjects: tuple[Subject, ...]
    log_error: Vector
    expected: Vector
    noises: tuple[str, ...]
    noise_of: NDArray[np.intp]
    noise_factor: Vector
    keys: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    usual_data: Mapping[str, str]
    rows: tuple[tuple[Subject, str, str], ...]

    def __len__(self) -> int:
        return len(self.subjects)

    def percent(self, log_error: Vector) -> Vector:
        """The mIoU of every row [n] if its log error were `log_error`."""
        import numpy as np

        return np.asarray(100 - np.exp(log_error + CENTRE + self.expected), dtype=np.float64)

    @cached_property
    def position(self) -> Mapping[tuple[str, str], int]:
        """Effect -> its number."""
        return {key: index for index, key in enumerate(self.keys)}

    @cached_property
    def terms(self) -> list[tuple[NDArray[np.intp], Vector]]:
        """Every row's sum [n]: numbers of its effects and their values."""
        import numpy as np

        if not self.columns:
            return [(np.zeros(0, dtype=np.intp), np.zeros(0))] * len(self)
        rows = np.concatenate([column.rows for column in self.columns])
        values = np.concatenate([column.values for column in self.columns])
        numbers = np.repeat(np.arange(len(self.columns)), [len(column.rows) for column in self.columns])
        order = np.argsort(rows, kind="stable")
        bounds = np.searchsorted(rows[order], np.arange(1, len(self)))
        return list(zip(np.split(numbers[order], bounds), np.split(values[order], bounds), strict=True))


def usable(row: Evidence) -> bool:
    """Whether a row informs the model.

    Not a training that failed (0, 100 or no mIoU), a LUMA figure that states no size, nor an own run from weights that
    are not those of its pretraining.
    """
    if not 0 < row.miou_percent < 100:
        return False
    if row.provenance == "own run":
        return "weights " not in row.recipe
    return not (row.provenance == "published LUMA" and row.height is None)


def observe(rows: Sequence[Evidence], sensitivity: Mapping[str, float]) -> Observations:
    """The evidence as observations, in the order of their ids: the same rows give the same numbers.

    A row that stands there twice, word for word, counts once.
    """
    import numpy as np

    distinct = dict.fromkeys(row for row in rows if usable(row))
    used = sorted(distinct, key=lambda row: (row.id, row.miou_percent, row.backbone, row.dataset, row.source))
    every = [subject_of_row(row) for row in used]
    together = _together(used, every)
    subjects = tuple(every[rows[0]] for rows in together)
    usual = usual_data(subjects)
    found = [features(subject, usual, sensitivity) for subject in subjects]
    expected = np.array(_expected(found))
    keys, columns = _columns(found)
    noises = tuple(sorted({noise_name(subject) for subject in subjects}))
    errors = np.log(100 - np.array([row.miou_percent for row in used]))
    return Observations(
        ids=tuple(used[rows[0]].id for rows in together),
        subjects=subjects,
        log_error=np.array([np.median(errors[rows]) for rows in together]) - CENTRE - expected,
        expected=expected,
        noises=noises,
        noise_of=np.array([noises.index(noise_name(subject)) for subject in subjects], dtype=np.intp),
        noise_factor=np.array([_noise_factor([used[row] for row in rows]) for rows in together]),
        keys=keys,
        columns=columns,
        usual_data=usual,
        rows=tuple((subject, row.id, row.provenance) for subject, row in zip(every, used, strict=True)),
    )


def _together(rows: Sequence[Evidence], subjects: Sequence[Subject]) -> list[list[int]]:
    """Rows of one observation: own runs that differ in nothing but their seed; every other row for itself.

    Thousands of repetitions must not make a fit slow: its time grows with the cube of the observations.
    """
    found: dict[Subject | int, list[int]] = {}
    for index, (row, subject) in enumerate(zip(rows, subjects, strict=True)):
        found.setdefault(subject if row.provenance == "own run" else index, []).append(index)
    together = list(found.values())
    if len(together) > MOST_OBSERVATIONS:
        step = len(together) / MOST_OBSERVATIONS
        together = [together[int(number * step)] for number in range(MOST_OBSERVATIONS)]
    return together


def _noise_factor(rows: Sequence[Evidence]) -> float:
    """How noisy an observation is, one run of its dataset and regime being 1."""
    precision = sum(max(row.seeds, 1) / (DOUBT_FACTOR if row.doubtful else 1.0) ** 2 for row in rows)
    least = min((1.0 if not row.doubtful else DOUBT_FACTOR) for row in rows) / math.sqrt(MAX_SEEDS)
    return max(1 / math.sqrt(precision), least)


def noise_name(subject: Subject) -> str:
    """Rows of one dataset and regime share one noise level."""
    return f"{subject.dataset}, {subject.regime}"


def usual_data(subjects: Sequence[Subject]) -> dict[str, str]:
    """Objective -> pretraining data of most of its rows that state any."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for subject in subjects:
        if data := data_of(subject):
            counts[subject.objective][data] += 1
    return {objective: min(found, key=lambda data: (-found[data], data)) for objective, found in counts.items()}


def _expected(found: Iterable[Iterable[Feature]]) -> list[float]:
    """What the means of the prior add to each."""
    return [sum(GROUPS[group].mean * value for group, _, value in terms) for terms in found]


def _columns(found: Sequence[Sequence[Feature]]) -> tuple[tuple[tuple[str, str], ...], tuple[Column, ...]]:
    import numpy as np

    groups = {name: index for index, name in enumerate(GROUPS)}
    entries: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for row, terms in enumerate(found):
        for group, level, value in terms:
            entries[group, level].append((row, value))
    keys = tuple(sorted(entries, key=lambda key: (groups[key[0]], key[1])))
    columns = tuple(
        Column(
            groups[key[0]],
            np.array([row for row, _ in entries[key]], dtype=np.intp),
            np.array([value for _, value in entries[key]]),
        )
        for key in keys
    )
    return keys, columns
