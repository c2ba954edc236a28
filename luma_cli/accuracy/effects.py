"""Structure of the accuracy model: the effects that an mIoU is the sum of, and rows of evidence as numbers.

    log(100 - mIoU) = sum over groups of  value x effect[group, level]  + noise

Every effect is Normal(0, sd of its group): levels with little evidence shrink to zero (partial pooling). Size and image
tokens enter as a power law, log error linear in their logs, with slopes per dataset that vary by series, objective and
head. A backbone's effects count `sensitivity` times on a dataset (in log error), as the easier Cityscapes moves more.
Frozen probes have objective, weights and head effects of their own and share none with fine-tuned models.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, NamedTuple

from luma_cli.accuracy.subjects import HERE, Subject, kind_of, subject_of_row
from luma_cli.catalogue.pretraining import load_objectives
from luma_cli.evidence.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Matrix = NDArray[np.float64]


# Where logs are zero: a backbone of 50 M parameters, the usual crop and the usual length of training.
USUAL_PARAMS = 50e6
USUAL_YEAR = 2020.5
USUAL_PIXELS: Mapping[str, float] = {"ade20k": 512 * 512, "cityscapes": 512 * 1024}
USUAL_ITERATIONS: Mapping[str, float] = {"ade20k": 160_000, "cityscapes": 80_000}

# No published fine-tuned row is below 448 px, so what fewer image tokens cost there is stated, not learned: log error
# rises by LOW_RESOLUTION x ((T0/T)^b - 1) / b, with b from the exponents of arXiv 2607.00687 (N* ~ C^0.83, T* ~ C^0.2:
# error falls about five times faster in tokens than in parameters). At their best split both slopes would be equal,
# 0.09 here; where a model is larger than that split asks for, less: 0.06 +- 0.04 spans both.
LOW_RESOLUTION, LOW_RESOLUTION_SD = 0.06, 0.04
TOKEN_EXPONENT = 0.45
# The largest published crop, 1280 px on ADE20K, has 6.25 times the usual pixels; what lies beyond gains nothing more.
MOST_PIXELS = 6.25
# Beyond this size published fine-tuned backbones (1.5 B, 6 B, 22 B) gain nothing more from it: marginal likelihood is
# highest for a limit of 1.2 to 1.5 B, and without one the largest are predicted above anything ever published.
MOST_PARAMS = 1.5e9

# LUMA's level is that of EoMT (arXiv 2607.00687: it "matches" it) plus Normal(0, REFERENCE_SD) until own runs tell.
REFERENCE_HEAD = "eomt"
REFERENCE_SD = 0.03

# A mask head without adapter and decoder needs features that are dense already. COCO PQ of EoMT against ViT-Adapter
# with Mask2Former on ViT-L (arXiv 2503.19108, its table of pretrainings): 44.3 against 50.4 with ImageNet-1k labels,
# 50.0 against 53.9 with ImageNet-21k labels, 56.0 against 57.1 with DINOv2. In log(100 - PQ) labels lose 0.09 and 0.056
# more than DINOv2 does.
BARE_HEADS = frozenset({"luma", "eomt"})
LABELS_LOSS, LABELS_LOSS_SD = 0.09, 0.04
LABELS_SHARE: Mapping[str, float] = {
    "supervised_in21k": 0.62,
    "supervised_in12k": 0.62,
    "distilled_in21k": 0.62,
}

# EoMT falls behind at small sizes, which is its head and no recipe: 44.7 PQ against the baseline's 50.5 for ViT-S, 50.6
# against 54.4 for B, 56.0 against 57.1 for L (arXiv 2503.19108, its table of sizes), 0.033 in log error per unit of log
# size.
BARE_SIZE, BARE_SIZE_SD = -0.033, 0.02
# How such a head suits one backbone more than another: the published rows of EoMT miss what other heads predict of the
# same backbones by 0.03 in log error, half as much again as those heads miss each other.
BARE_WEIGHTS_SD = 0.03

# LUMA's one published figure, 59.7 on ADE20K with EVA-02 (https://arxiv.org/abs/2607.00687), states no size. It is
# taken as that of the largest EVA-02 at the usual crop, with so many times the noise of a row that states both.
BOUND_FACTOR = 3.0

# An own run with changed settings, a short trial say, can be off by any amount: it tells how backbones compare under
# those settings, hardly what the usual ones reach.
CHANGED_RECIPE_SD = 0.2

# How far the power law in tokens may miss at one crop, for all backbones with LUMA alike. Published rows
# have nearly all one crop per dataset and cannot tell its shape.
LUMA_CROP_SD = 0.015

# Own LUMA runs follow a law of their own: how its slopes may differ from those of published heads, per unit of log
# size and log tokens, and by how much any law linear in logs may miss one backbone at one crop.
LUMA_SIZE_SD, LUMA_TOKENS_SD, LUMA_CELL_SD = 0.03, 0.03, 0.012

# Log sizes of published backbones spread by 1.1 around their mean, and error falls by 0.06 to 0.09 per unit.
UNKNOWN_SIZE_SD = 0.1


class Feature(NamedTuple):
    """One term of the sum: `value` times the effect of `level` in `group`."""

    group: str
    level: str
    value: float


@dataclass(frozen=True, slots=True)
class Group:
    """A family of effects. sd: before learning. sensitive: whether it counts `sensitivity` times on a dataset.

    fixed: sd stated rather than learned. mean: of the prior.
    """

    sd: float
    sensitive: bool = True
    fixed: bool = False
    mean: float = 0.0


GROUPS: Mapping[str, Group] = {
    "level": Group(1.0, sensitive=False, fixed=True),
    "regime": Group(0.35, sensitive=False),
    "size": Group(0.10),
    "size x dataset": Group(0.03),
    "size curvature": Group(0.01, sensitive=False),
    "size x objective": Group(0.015),
    "size x head": Group(0.02),
    "tokens": Group(0.05),
    "low resolution": Group(LOW_RESOLUTION_SD, sensitive=False, fixed=True, mean=LOW_RESOLUTION),
    "size x luma": Group(LUMA_SIZE_SD, sensitive=False, fixed=True),
    "tokens x luma": Group(LUMA_TOKENS_SD, sensitive=False, fixed=True),
    "luma at a crop": Group(LUMA_CROP_SD, sensitive=False, fixed=True),
    "luma at a size and crop": Group(LUMA_CELL_SD, sensitive=False, fixed=True),
    "iterations": Group(0.03),
    "head": Group(0.05),
    "head x dataset": Group(0.04, sensitive=False),
    "recipe": Group(0.04),
    "luma": Group(REFERENCE_SD, sensitive=False, fixed=True),
    "changed recipe": Group(CHANGED_RECIPE_SD, sensitive=False, fixed=True),
    "scales": Group(0.03),
    "scales x head": Group(0.01),
    "source x head": Group(0.01),
    "extra data": Group(0.1),
    "kind": Group(0.03),
    "objective": Group(0.03),
    "bare head x labels": Group(LABELS_LOSS_SD, sensitive=False, fixed=True, mean=LABELS_LOSS),
    "bare head x weights": Group(BARE_WEIGHTS_SD, fixed=True),
    "size x bare head": Group(BARE_SIZE_SD, fixed=True, mean=BARE_SIZE),
    "objective, frozen": Group(0.1),
    "objective x dataset": Group(0.02),
    "pretraining data": Group(0.03),
    "year": Group(0.015),
    "series": Group(0.03),
    "series x dataset": Group(0.03),
    "series x objective": Group(0.015),
    "architecture": Group(0.01),
    "weights": Group(0.015),
    "weights x dataset": Group(0.01),
    "weights, frozen": Group(0.015),
    "unknown size": Group(UNKNOWN_SIZE_SD, sensitive=False, fixed=True),
    "unknown year": Group(0.04, fixed=True),
    "guessed size": Group(0.03, fixed=True),
}


def features(subject: Subject, usual_data: Mapping[str, str], sensitivity: Mapping[str, float]) -> list[Feature]:
    """Every term of the subject's sum. usual_data: objective -> the data it is usually trained on."""
    return backbone_features(subject, usual_data, sensitivity) + token_features(subject, sensitivity)


def backbone_features(
    subject: Subject, usual_data: Mapping[str, str], sensitivity: Mapping[str, float]
) -> list[Feature]:
    """The terms that do not depend on the resolution."""
    terms = (
        *_scale_terms(subject),
        *_size_terms(subject),
        *_pretraining_terms(subject, usual_data),
        *_backbone_terms(subject),
    )
    return _scaled(terms, subject.dataset, sensitivity)


def token_features(subject: Subject, sensitivity: Mapping[str, float]) -> list[Feature]:
    """The terms that depend on the resolution alone."""
    if not (subject.height and subject.width):
        return []
    dataset = subject.dataset
    ratio = subject.height * subject.width / USUAL_PIXELS.get(dataset, 512 * 512)
    more = math.log(min(ratio, MOST_PIXELS))
    terms = [Feature("tokens", "all", more)]
    if ratio < 1:
        few = f"{dataset}, {subject.regime}"
        terms.append(Feature("low resolution", few, (ratio**-TOKEN_EXPONENT - 1) / TOKEN_EXPONENT))
    if subject.head == "luma":
        terms.append(Feature("tokens x luma", "luma", more))
    if subject.source == HERE and subject.head == "luma":
        cell = f"{subject.checkpoint}, {dataset}, {subject.height}x{subject.width}"
        terms.append(Feature("luma at a size and crop", cell, 1.0))
        terms.append(Feature("luma at a crop", f"{dataset}, {subject.height}x{subject.width}", 1.0))
    return _scaled(terms, dataset, sensitivity)


def _scaled(terms: Iterable[Feature], dataset: str, sensitivity: Mapping[str, float]) -> list[Feature]:
    factor = sensitivity.get(dataset, 1.0)
    return [
        Feature(group, level, value * factor) if GROUPS[group].sensitive else Feature(group, level, value)
        for group, level, value in terms
    ]


def _scale_terms(subject: Subject) -> Iterator[Feature]:
    dataset, regime = subject.dataset, subject.regime
    head = REFERENCE_HEAD if subject.head == "luma" else subject.head
    scales = subject.eval or "not stated"
    yield Feature("level", "all", 3.0)
    yield Feature("level", dataset, 1.0)
    yield Feature("regime", f"{dataset}, {regime}", 1.0)
    yield Feature("head", f"{head}, {regime}", 1.0)
    yield Feature("head x dataset", f"{head}, {dataset}, {regime}", 1.0)
    if subject.head == "luma":
        yield Feature("luma", "luma", 1.0)
    if subject.recipe:
        group = "changed recipe" if subject.source == HERE else "recipe"
        yield Feature(group, f"{head}, {subject.recipe}", 1.0)
    yield Feature("scales", f"{scales}, {dataset}", 1.0)
    yield Feature("scales x head", f"{head}, {scales}, {dataset}, {subject.recipe}", 1.0)
    yield Feature("source x head", f"{subject.source}, {dataset}, {head}", 1.0)
    if subject.iterations and dataset in USUAL_ITERATIONS:
        yield Feature("iterations", dataset, math.log(subject.iterations / USUAL_ITERATIONS[dataset]))


def _size_terms(subject: Subject) -> Iterator[Feature]:
    dataset = subject.dataset
    head = REFERENCE_HEAD if subject.head == "luma" else subject.head
    if subject.params is None:
        yield Feature("unknown size", f"{dataset}, {subject.backbone}", 1.0)
    else:
        size = math.log(min(subject.params, MOST_PARAMS) / USUAL_PARAMS)
        yield Feature("size", "all", size)
        yield Feature("size x dataset", f"{dataset}, {subject.regime}", size)
        yield Feature("size curvature", dataset, size * size)
        if subject.regime != "frozen":
            yield Feature("size x objective", subject.objective, size)
        if head in BARE_HEADS:
            yield Feature("size x bare head", "all", size)
        else:
            yield Feature("size x head", f"{head}, {subject.regime}", size)
        if subject.head == "luma":
            yield Feature("size x luma", "luma", size)
    if subject.params_guessed:
        yield Feature("guessed size", subject.architecture, 1.0)


def _pretraining_terms(subject: Subject, usual_data: Mapping[str, str]) -> Iterator[Feature]:
    dataset, objective, kind = subject.dataset, subject.objective, kind_of(subject)
    if subject.extra_data:
        yield Feature("extra data", dataset, 1.0)
    yield Feature("pretraining data", pretraining_data(subject, usual_data), 1.0)
    if subject.regime == "frozen":
        # Objectives spread about 20 points frozen and 1 to 4 fine-tuned: the one says nothing about the other.
        yield Feature("objective, frozen", objective, 1.0)
        return
    yield Feature("kind", kind, 1.0)
    yield Feature("objective", objective, 1.0)
    yield Feature("objective x dataset", f"{objective}, {dataset}", 1.0)
    if subject.head in BARE_HEADS and kind == "labels":
        yield Feature("bare head x labels", "all", LABELS_SHARE.get(objective, 1.0))


def _backbone_terms(subject: Subject) -> Iterator[Feature]:
    dataset, series = subject.dataset, subject.lineage or subject.architecture
    weights = f"{subject.checkpoint or subject.backbone}, {subject.pretraining}"
    if subject.year is None:
        yield Feature("unknown year", series, 1.0)
    else:
        yield Feature("year", "all", subject.year - USUAL_YEAR)
    yield Feature("series", series, 1.0)
    yield Feature("series x dataset", f"{series}, {dataset}", 1.0)
    yield Feature("architecture", subject.architecture, 1.0)
    if subject.regime == "frozen":
        yield Feature("weights, frozen", weights, 1.0)
        return
    yield Feature("series x objective", f"{series}, {subject.objective}", 1.0)
    yield Feature("weights", weights, 1.0)
    if subject.head in BARE_HEADS:
        yield Feature("bare head x weights", weights, 1.0)
    yield Feature("weights x dataset", f"{weights}, {dataset}", 1.0)


# In timm's tags -> data. The first that occurs is what the backbone itself was pretrained on.
_TAGGED = re.compile(r"in1k|in12k|in2[12]k|lvd1689m|lvd142m|m38m|m30m|laion2b|webli")
_DATA_OF_TAG = {
    "in1k": "imagenet-1k",
    "in12k": "imagenet-12k",
    "in21k": "imagenet-21k",
    "in22k": "imagenet-21k",
    "lvd142m": "lvd-142m",
    "lvd1689m": "lvd-1689m",
    "m38m": "merged-38m",
    "m30m": "merged-30m",
    "laion2b": "laion-2b",
}


def pretraining_data(subject: Subject, usual_data: Mapping[str, str]) -> str:
    """The data that the weights saw: as stated, by their tag, else what the objective is usually trained on.

    usual_data: of the rows that state any. Objectives without such rows have what `models/pretraining.toml` says, so
    that one nobody published with is at the level of its data and not at one of its own.
    """
    tag = subject.checkpoint.partition(".")[2]
    tagged = _TAGGED.search(tag)
    objective = subject.objective
    return (
        data_of(subject)
        or (_DATA_OF_TAG.get(tagged[0], tagged[0]) if tagged else "")
        or usual_data.get(objective)
        or _declared_data().get(objective)
        or objective
    )


@cache
def _declared_data() -> Mapping[str, str]:
    """Objective -> the first data that its entry names."""
    texts = {name: re.split(r",| or | and | labels", each.data)[0] for name, each in load_objectives().items()}
    return {name: _plain_data(text) for name, text in texts.items()}


def data_of(subject: Subject) -> str:
    """The first data that the row names; empty when not stated."""
    return _plain_data(subject.pretraining_data.split(" + ")[0])


def _plain_data(text: str) -> str:
    """In lower case, without remarks in brackets, ImageNet-22k and -21k being one.

    >>> _plain_data("Merged-38M (EVA-CLIP teacher)"), _plain_data("ImageNet-22k")
    ('merged-38m', 'imagenet-21k')
    """
    plain = re.sub(r"\s*\(.*?\)", "", text).strip(" ,").lower()
    return plain.replace("imagenet-22k", "imagenet-21k")


# Rows that speak against themselves count as if measured with this many times the noise.
DOUBT_FACTOR = 2.0
# More seeds than this tell no more: what is left then is not seed noise.
MAX_SEEDS = 10
# A fit of 3,000 takes about 5 s; of more, evenly spaced ones are taken.
MOST_OBSERVATIONS = 3000
CENTRE = 3.9  # log error that the model starts from: about 50 mIoU


@dataclass(frozen=True, slots=True)
class EffectColumn:
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
    columns: tuple[EffectColumn, ...]
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

    Not a training that failed (0, 100 or no mIoU), nor an own run from weights that are not those of its pretraining.
    """
    if not 0 < row.miou_percent < 100:
        return False
    return row.provenance != "own run" or "weights " not in row.recipe


def is_bound(row: Evidence) -> bool:
    """Whether a figure with LUMA states no size: all it says is how well the best size does."""
    return row.provenance == "published LUMA" and row.height is None


def _largest(row: Evidence, subject: Subject, others: Iterable[Subject]) -> Subject:
    """The largest backbone of the figure's objective that any row is about, at the usual crop."""
    sized = [each for each in others if each.objective == subject.objective and each.params and each.lineage]
    largest = max(sized, key=lambda each: (each.params or 0, each.checkpoint), default=subject)
    side = round(math.sqrt(USUAL_PIXELS.get(row.dataset, 512 * 512)))
    return replace(
        largest, dataset=row.dataset, head="luma", recipe="", regime="fine-tuned", eval=row.eval, source=row.source,
        height=side, width=side, iterations=None,
    )  # fmt: skip


def observe(rows: Sequence[Evidence], sensitivity: Mapping[str, float]) -> Observations:
    """The evidence as observations, in the order of their ids: the same rows give the same numbers.

    A row that stands there twice, word for word, counts once.
    """
    import numpy as np

    distinct = dict.fromkeys(row for row in rows if usable(row))
    used = sorted(distinct, key=lambda row: (row.id, row.miou_percent, row.backbone, row.dataset, row.source))
    every = [subject_of_row(row) for row in used]
    stated = [subject for row, subject in zip(used, every, strict=True) if not is_bound(row)]
    every = [
        _largest(row, subject, stated) if is_bound(row) else subject for row, subject in zip(used, every, strict=True)
    ]
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
    factors = [BOUND_FACTOR if is_bound(row) else DOUBT_FACTOR if row.doubtful else 1.0 for row in rows]
    precision = sum(max(row.seeds, 1) / factor**2 for row, factor in zip(rows, factors, strict=True))
    least = min(factors) / math.sqrt(MAX_SEEDS)
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


def _columns(found: Sequence[Sequence[Feature]]) -> tuple[tuple[tuple[str, str], ...], tuple[EffectColumn, ...]]:
    import numpy as np

    groups = {name: index for index, name in enumerate(GROUPS)}
    entries: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for row, terms in enumerate(found):
        for group, level, value in terms:
            entries[group, level].append((row, value))
    keys = tuple(sorted(entries, key=lambda key: (groups[key[0]], key[1])))
    columns = tuple(
        EffectColumn(
            groups[key[0]],
            np.array([row for row, _ in entries[key]], dtype=np.intp),
            np.array([value for _, value in entries[key]]),
        )
        for key in keys
    )
    return keys, columns
