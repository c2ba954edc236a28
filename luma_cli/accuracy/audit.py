"""Audit of the accuracy model on rows that it did not see: error, order, coverage of intervals, regret of choices.

All rows that share a label are left out together, exactly, from one inverse (`fit.leave_out`). Widths of intervals for
one fifth of the labels are learned from the other four. With `relearn` so are the variance components, which takes
minutes instead of a second.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from luma_cli.accuracy.effects import REFERENCE_HEAD, Observations, observe
from luma_cli.accuracy.fit import (
    BY_LABEL,
    Calibration,
    Components,
    Fit,
    calibrate,
    fit,
    initial,
    learn,
    leave_out,
    load_components,
    quantiles,
)
from luma_cli.accuracy.regret import LEAST_BACKBONES, MODEL, Regret, best_rule, regrets
from luma_cli.accuracy.subjects import Subject
from luma_cli.evidence.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from luma_cli.accuracy.effects import Vector


LEAST_ROWS = 3


@dataclass(frozen=True, slots=True)
class UnseenObjective:
    """`num` fine-tuned rows of one objective on one dataset, predicted without any row of that objective.

    bias: predicted minus measured, mean in mIoU points. inside_80: share inside the 80 % interval that luma gives.
    """

    objective: str
    dataset: str
    num: int
    bias: float
    inside_80: float


def unseen_objectives(fitted: Fit, calibration: Calibration) -> tuple[UnseenObjective, ...]:
    """Objectives with at least LEAST_ROWS fine-tuned rows on a dataset, the most under-predicted first."""
    import numpy as np

    observed = fitted.observations
    means, sds = leave_out(fitted, [subject.objective for subject in observed.subjects])
    z = np.abs(observed.log_error - means) / sds
    errors = observed.percent(means) - observed.percent(observed.log_error)
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, subject in enumerate(observed.subjects):
        if subject.regime == "fine-tuned":
            rows[subject.objective, subject.dataset].append(index)
    found = []
    for (objective, dataset), chosen in rows.items():
        if len(chosen) >= LEAST_ROWS:
            _, width, _ = calibration.width(observed.subjects[chosen[0]], ["objective"])
            inside = float((z[chosen] <= width).mean())
            found.append(UnseenObjective(objective, dataset, len(chosen), float(errors[chosen].mean()), inside))
    return tuple(sorted(found, key=lambda each: (each.bias, each.objective, each.dataset)))


NUM_FOLDS = 5
MOST_ROWS = 2 / 3


@dataclass(frozen=True, slots=True)
class Left:
    """One way to leave rows out: all that share a label. wanted: whose rows are scored."""

    title: str
    label: Callable[[Subject], str]
    wanted: Callable[[Subject], bool] = lambda _: True


SINCE = 2023
_YEAR = re.compile(r"\b(20[12]\d)\b|\b([12]\d)[01]\d\.\d{4,5}\b")


def year_of(source: str) -> int | None:
    """When a source was published, by the first year or arXiv number in its name.

    >>> year_of("CSWin README (CVPR 2022)"), year_of("HPM (arXiv 2304.05919)"), year_of("mmsegmentation model zoo")
    (2022, 2023, None)
    """
    found = _YEAR.search(source)
    if found is None:
        return None
    return int(found[1] or f"20{found[2]}")


def _age(subject: Subject) -> str:
    return "later" if (year_of(subject.source) or 0) >= SINCE else subject.source


LEFT: tuple[Left, ...] = (
    Left("backbone", lambda subject: subject.backbone),
    Left("architecture", lambda subject: subject.architecture),
    Left("series", lambda subject: subject.lineage or subject.architecture),
    Left("objective", lambda subject: subject.objective),
    Left("source", lambda subject: subject.source),
    Left("head", lambda subject: subject.head),
    Left("resolution", lambda subject: f"{subject.dataset}, {subject.height}, {subject.width}"),
    Left(f"sources since {SINCE}", _age, lambda subject: _age(subject) == "later"),
    Left("backbone, EoMT rows alone", lambda subject: subject.backbone, lambda subject: subject.head == REFERENCE_HEAD),
)


@dataclass(frozen=True, slots=True)
class Score:
    """Predictions for `num` rows of one dataset and regime, all that share a label with a row left out.

    Rows whose label holds more than two thirds of the dataset's are not scored, `num_kept` of them: without that label
    hardly anything would be left to predict from. mae, rmse, bias (predicted minus measured): mIoU points. tau:
    Kendall's, mean over `num_groups` groups of one head and protocol with at least five backbones, None without any.
    coverage: shares inside 50, 80 and 90 % intervals.
    """

    left_out: str
    dataset: str
    regime: str
    num: int
    num_kept: int
    mae: float
    rmse: float
    bias: float
    tau: float | None
    num_groups: int
    coverage: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Audit:
    """scores: per way, dataset and regime. regrets: by dataset and rule. relearned: components cross-fitted too.

    unseen: pretraining objectives one by one, by the model as it is.
    """

    num_rows: int
    relearned: bool
    scores: tuple[Score, ...]
    regrets: Mapping[str, Mapping[str, Regret]]
    unseen: tuple[UnseenObjective, ...] = ()

    @property
    def winners(self) -> dict[str, str]:
        """The rule of least regret on each dataset."""
        return {dataset: best_rule(by_rule) for dataset, by_rule in self.regrets.items()}

    def to_json(self) -> dict[str, Any]:
        """Schema 1."""
        return {
            "schema": 1,
            "rows": self.num_rows,
            "components_relearned": self.relearned,
            "scores": [asdict(score) for score in self.scores],
            "regrets": {
                dataset: {name: asdict(regret) for name, regret in by_rule.items()}
                for dataset, by_rule in self.regrets.items()
            },
            "unseen_objectives": [asdict(each) for each in self.unseen],
            "chosen": {dataset: "model" if name == MODEL else name for dataset, name in self.winners.items()},
        }


def audit(rows: Sequence[Evidence], *, relearn: bool = False, components: Components | None = None) -> Audit:
    """The audit of the model on `rows`."""
    known = components or load_components()
    observed = observe(rows, known.sensitivity)
    fits = _relearned_fits(observed, rows, known) if relearn else [fit(observed, known)] * NUM_FOLDS
    folds = _folds([subject.backbone for subject in observed.subjects])
    truth = observed.percent(observed.log_error)
    scores: list[Score] = []
    predicted: Vector | None = None
    for left in LEFT:
        labels = [left.label(subject) for subject in observed.subjects]
        means, sds = _by_fold(fits, folds, labels)
        found = observed.percent(means)
        predicted = found if predicted is None else predicted
        scores += _scores(left, observed, truth, found, abs(observed.log_error - means) / sds, labels)
    assert predicted is not None
    whole = fit(observed, known)
    return Audit(
        len(observed),
        relearn,
        tuple(scores),
        regrets(observed, truth.tolist(), predicted.tolist()),
        unseen_objectives(whole, calibrate(whole)),
    )


def _folds(labels: Sequence[str]) -> NDArray[np.intp]:
    """Fold of each row by its label alone."""
    import numpy as np

    digests = {label: hashlib.sha256(label.encode()).digest()[0] % NUM_FOLDS for label in set(labels)}
    return np.array([digests[label] for label in labels], dtype=np.intp)


def _relearned_fits(observed: Observations, rows: Sequence[Evidence], known: Components) -> list[Fit]:
    """A fit per fold whose components have not seen the fold's backbones."""
    folds = dict(zip(observed.ids, _folds([subject.backbone for subject in observed.subjects]), strict=True))
    start = Components(initial().effects, {}, known.sensitivity)
    fits = []
    for fold in range(NUM_FOLDS):
        seen = observe([row for row in rows if folds.get(row.id, fold) != fold], known.sensitivity)
        fits.append(fit(observed, learn(seen, start)[0]))
    return fits


def _by_fold(fits: Sequence[Fit], folds: NDArray[np.intp], labels: Sequence[str]) -> tuple[Vector, Vector]:
    """Means and sds of every row, from the fit of its fold."""
    import numpy as np

    if all(each is fits[0] for each in fits):
        return leave_out(fits[0], labels)
    found = [leave_out(each, labels) for each in fits]
    rows = np.arange(len(labels))
    return np.array([each[0] for each in found])[folds, rows], np.array([each[1] for each in found])[folds, rows]


def _scores(
    left: Left, observed: Observations, truth: Vector, found: Vector, z: Vector, labels: Sequence[str]
) -> list[Score]:
    import numpy as np

    folds = _folds(labels)
    sets: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, subject in enumerate(observed.subjects):
        sets[subject.dataset, subject.regime].append(index)
    scores = []
    for (dataset, regime), chosen in sorted(sets.items(), key=lambda each: (each[0][1], each[0][0])):
        counts = Counter(labels[index] for index in chosen)
        pool = np.array([index for index in chosen if counts[labels[index]] <= MOST_ROWS * len(chosen)], dtype=np.intp)
        wanted = np.array([left.wanted(observed.subjects[index]) for index in pool], dtype=bool)
        rows = pool[wanted]
        if not len(rows):
            continue
        counted = np.array(labels)[pool] if left.title in BY_LABEL else None
        low, middle, high = _inside(z[pool], folds[pool], counted)[wanted].mean(0).tolist()
        errors = found[rows] - truth[rows]
        tau, num_groups = _tau(observed, rows, truth, found)
        scores.append(
            Score(
                left_out=left.title,
                dataset=dataset,
                regime=regime,
                num=len(rows),
                num_kept=len(chosen) - len(rows),
                mae=float(np.abs(errors).mean()),
                rmse=float(np.sqrt((errors**2).mean())),
                bias=float(errors.mean()),
                tau=tau,
                num_groups=num_groups,
                coverage=(low, middle, high),
            )
        )
    return scores


def _inside(z: Vector, folds: NDArray[np.intp], labels: NDArray[np.str_] | None) -> NDArray[np.bool_]:
    """Whether each |z| [n] is inside the widths of LEVELS [n, 3] that the rows of other folds ask for."""
    import numpy as np

    inside = np.zeros((len(z), 3), dtype=bool)
    for fold in set(folds.tolist()):
        widths = quantiles(z[folds != fold], None if labels is None else labels[folds != fold].tolist())
        inside[folds == fold] = z[folds == fold, None] <= np.array(widths)
    return inside


def _tau(observed: Observations, rows: NDArray[np.intp], truth: Vector, found: Vector) -> tuple[float | None, int]:
    """Kendall's tau within groups of one head, recipe and protocol, and how many groups there are."""
    from scipy.stats import kendalltau

    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index in rows.tolist():
        each = observed.subjects[index]
        groups[each.head, each.recipe, each.eval, each.source if each.regime == "frozen" else ""].append(index)
    taus = [
        float(kendalltau(truth[chosen], found[chosen]).statistic)
        for chosen in groups.values()
        if len({observed.subjects[index].backbone for index in chosen}) >= LEAST_BACKBONES
    ]
    return (sum(taus) / len(taus), len(taus)) if taus else (None, 0)
