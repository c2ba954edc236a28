"""The learned model: mIoU of any subject with calibrated intervals, from the posterior of a fit. Needs numpy alone."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from luma_cli.accuracy.calibration import NORMAL, Calibration, Novelty
from luma_cli.accuracy.components import Components
from luma_cli.accuracy.design import GROUPS, LUMA_SD, Feature, backbone_features, token_features
from luma_cli.accuracy.observations import CENTRE, noise_name
from luma_cli.accuracy.prediction import Effect, Prediction
from luma_cli.accuracy.regret import Regret
from luma_cli.accuracy.sightings import Sightings
from luma_cli.accuracy.subject import Subject

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luma_cli.accuracy.prediction import Draws

# What a reader calls the groups, for `--why`. Those of the protocol come last: all candidates share them.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "size": ("size", "size x dataset", "size curvature", "size x series", "size x objective", "size x head"),
    "resolution": ("tokens", "tokens x dataset", "low resolution"),
    "pretraining": (
        *("kind", "objective", "objective x regime", "objective, frozen", "kind, frozen"),
        *("objective x dataset", "pretraining data", "series x objective"),
    ),
    "extra data": ("extra data",),
    "family and series": ("family", "year", "series", "series x dataset", "unknown year"),
    "this backbone": ("architecture", "weights", "weights x dataset", "weights, frozen"),
    "head and protocol": (
        *("head", "head x dataset", "recipe", "luma", "changed recipe", "scales", "scales x head", "source", "source x head"),
        *("iterations", "regime"),
    ),
}


@dataclass(frozen=True)
class Posterior:
    """Effects given the evidence, about the means of their priors.

    keys: p pairs of group and level. mean [p]; draws [p, num_draws].
    """

    keys: Mapping[tuple[str, str], int]
    mean: NDArray[np.float64]
    draws: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Terms:
    """A subject's sum, or part of it: effects that the evidence bears upon, those it does not, and prior means."""

    known: tuple[tuple[int, float], ...]
    unseen: tuple[Feature, ...]
    expected: float

    @property
    def unseen_groups(self) -> frozenset[str]:
        """Groups of which no row shows the subject's level."""
        return frozenset(feature.group for feature in self.unseen)


@dataclass(frozen=True)
class _Sum:
    """Log errors of C subjects: mean [C], draws about it [num_draws, C], and the sd of what no row bears upon [C]."""

    terms: tuple[_Terms, ...]
    mean: NDArray[np.float64]
    spread: NDArray[np.float32]
    unseen_sd: NDArray[np.float64]

    @property
    def sd(self) -> NDArray[np.float64]:
        """Standard deviation of every subject's log error [C]."""
        squares = np.einsum("sc,sc->c", self.spread, self.spread, dtype=np.float64)
        return np.asarray(np.sqrt(squares / len(self.spread) + self.unseen_sd**2), dtype=np.float64)


class LearnedModel:
    """An `AccuracyModel`: posterior effects, the components they came from, and what the evidence has seen."""

    def __init__(
        self,
        posterior: Posterior,
        components: Components,
        calibration: Calibration,
        sightings: Sightings,
        usual_data: Mapping[str, str],
        regrets: Mapping[str, Mapping[str, Regret]],
    ) -> None:
        """Everything is kept as given; nothing is computed yet. regrets: of the model and of simple rules, audited."""
        self.posterior = posterior
        self.components = components
        self.calibration = calibration
        self.sightings = sightings
        self.usual_data = usual_data
        self.regrets = regrets
        self._kept: dict[Subject, _Terms] = {}
        self._last: tuple[tuple[Subject, ...], _Sum] | None = None

    @property
    def scale_note(self) -> str:
        """What LUMA's level stands on."""
        if self.sightings.own_luma_runs:
            return f"on the scale of {self.sightings.own_luma_runs} own LUMA runs"
        return f"on the EoMT scale (LUMA's level is EoMT's +- {100 * LUMA_SD:.0f} % of the error), no LUMA run seen"

    def predict(self, subjects: Sequence[Subject]) -> list[Prediction]:
        """Posterior medians with intervals of one training run."""
        found = self._sum(subjects)
        parts = zip(subjects, found.terms, found.mean.tolist(), found.sd.tolist(), strict=True)
        return [self._prediction(*part) for part in parts]

    def draws(self, subjects: Sequence[Subject], num_draws: int = 2000, seed: int = 0) -> Draws:
        """Expected mIoU in percent, drawn jointly, spread as the calibration asks; `seed` matters to unseen effects."""
        found = self._sum(subjects)
        spread = found.spread[: min(num_draws, len(found.spread))].copy()
        for (group, level), (indices, values) in _shared(found.terms).items():
            drawn = _normal(f"{seed}, {group}, {level}", len(spread)) * np.float32(self.components.effects[group])
            spread[:, indices] += np.outer(drawn, np.array(values, dtype=np.float32))
        widths = zip(subjects, found.terms, strict=True)
        spread *= np.array([self._widths(*each)[1] / NORMAL[1] for each in widths], dtype=np.float32)
        spread += (found.mean + CENTRE).astype(np.float32)
        return (100 - np.exp(spread, out=spread)).astype(np.float64)

    def effects(self, subject: Subject) -> list[Effect]:
        """What would be lost or won, in mIoU points, if a property were average; largest first, protocol last."""
        error = float(np.exp(self._sum([subject]).mean[0] + CENTRE))
        groups = [key[0] for key in self.posterior.keys]
        known, expected = self._known(subject)
        found = []
        for name, members in _NAMES.items():
            mine = [(index, value) for index, value in known if groups[index] in members]
            if mine:
                indices, values = [index for index, _ in mine], np.array([value for _, value in mine])
                mean = float(values @ self.posterior.mean[indices]) + expected.get(name, 0.0)
                sd = float((values @ self.posterior.draws[indices]).std())
                found.append(Effect(name, error * (float(np.exp(-mean)) - 1), error * sd))
        return sorted(found, key=lambda each: (each.name == "head and protocol", -abs(each.points)))

    def _known(self, subject: Subject) -> tuple[tuple[tuple[int, float], ...], dict[str, float]]:
        """Effects that the evidence bears upon, and what the prior expects of the resolution."""
        tokens = self._token_terms(subject)
        return self._backbone_terms(subject).known + tokens.known, {"resolution": tokens.expected}

    def _backbone_terms(self, subject: Subject) -> _Terms:
        """Computed once for all resolutions of a subject."""
        key = replace(subject, height=None, width=None)
        if key not in self._kept:
            found = backbone_features(key, self.usual_data, self.components.sensitivity)
            self._kept[key] = self._split(found)
        return self._kept[key]

    def _token_terms(self, subject: Subject) -> _Terms:
        return self._split(token_features(subject, self.components.sensitivity))

    def _split(self, found: Sequence[Feature]) -> _Terms:
        keys = self.posterior.keys
        return _Terms(
            tuple((keys[each[:2]], each.value) for each in found if each[:2] in keys),
            tuple(each for each in found if each[:2] not in keys),
            sum(GROUPS[each.group].mean * each.value for each in found),
        )

    def _sum(self, subjects: Sequence[Subject]) -> _Sum:
        """The subjects' sums; the last ones are kept, because predictions and draws are asked for in turn."""
        key = tuple(subjects)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._computed(key))
        return self._last[1]

    def _computed(self, subjects: Sequence[Subject]) -> _Sum:
        """Sums of the distinct backbones, to which those of their resolutions are added."""
        backbones = [self._backbone_terms(subject) for subject in subjects]
        tokens = [self._token_terms(subject) for subject in subjects]
        distinct = {id(each): each for each in backbones}
        place = {key: index for index, key in enumerate(distinct)}
        rows = [place[id(each)] for each in backbones]
        mean, spread = self._weighed(list(distinct.values()))
        token_mean, token_spread = self._weighed(tokens)
        both = tuple(
            _Terms((), first.unseen + second.unseen, first.expected + second.expected)
            for first, second in zip(backbones, tokens, strict=True)
        )
        expected = np.array([each.expected for each in both])
        variances = [sum((self.components.effects[g] * v) ** 2 for g, _, v in each.unseen) for each in both]
        total = spread[:, rows]
        total += token_spread
        return _Sum(both, mean[rows] + token_mean + expected, total, np.sqrt(np.array(variances)))

    def _weighed(self, terms: Sequence[_Terms]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Sums of the known effects: mean [C], and draws about it [num_draws, C]."""
        used = sorted({index for each in terms for index, _ in each.known})
        place = {index: column for column, index in enumerate(used)}
        matrix = np.zeros((len(used), len(terms)))
        for column, each in enumerate(terms):
            for index, value in each.known:
                matrix[place[index], column] += value
        mean = self.posterior.mean[used]
        about = np.asarray(self.posterior.draws[used]).T - mean.astype(np.float32)
        return mean @ matrix, about @ matrix.astype(np.float32)

    def _widths(self, subject: Subject, terms: _Terms) -> tuple[float, float, float]:
        return self.calibration.width(subject, _novelties(terms))

    def _prediction(self, subject: Subject, terms: _Terms, log_error: float, sd: float) -> Prediction:
        widths = self._widths(subject, terms)
        total = math.hypot(sd, self.components.noise(noise_name(subject)))
        middle = log_error + CENTRE
        low_high = [(_miou(middle + width * total), _miou(middle - width * total)) for width in widths]
        reasons = [*self._unknown(subject, terms), *self.sightings.beyond(subject)]
        return Prediction(
            miou_percent=_miou(middle),
            interval_50=low_high[0],
            interval_80=low_high[1],
            interval_90=low_high[2],
            sd=math.exp(middle) * total * widths[1] / NORMAL[1],
            support=self.sightings.support(subject),
            extrapolated=bool(reasons),
            reason="; ".join(reasons),
        )

    def _unknown(self, subject: Subject, terms: _Terms) -> list[str]:
        if subject.dataset not in self.sightings.datasets:
            return [f"no evidence on {subject.dataset}"]
        said = {
            "series": f"no evidence for the series {subject.lineage or subject.architecture}",
            "objective": f"no fine-tuned evidence for pretraining {subject.objective}",
            "head": f"no evidence for head {subject.head}",
        }
        return [said[novelty] for novelty in _novelties(terms)]


def _novelties(terms: _Terms) -> list[Novelty]:
    """What of a subject no row has shown."""
    named: dict[str, Novelty] = {"series": "series", "objective x regime": "objective", "head": "head"}
    return [novelty for group, novelty in named.items() if group in terms.unseen_groups]


def _shared(terms: Iterable[_Terms]) -> dict[tuple[str, str], tuple[list[int], list[float]]]:
    """Effects that no row bears upon -> the subjects that share each, and its values there."""
    found: dict[tuple[str, str], tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    for index, each in enumerate(terms):
        for group, level, value in each.unseen:
            indices, values = found[group, level]
            indices.append(index)
            values.append(value)
    return found


def _miou(log_error: float) -> float:
    """The mIoU in percent, never below 0."""
    return max(0.0, 100 - math.exp(log_error))


def _normal(key: str, count: int) -> NDArray[np.float32]:
    """Standard normal numbers [count] that depend on the key alone."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(count, dtype=np.float32)
