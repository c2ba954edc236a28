"""The learned model: mIoU of any subject with calibrated intervals, from the posterior of a fit. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from luma_cli.accuracy.calibration import NORMAL, Calibration, Novelty
from luma_cli.accuracy.components import Components
from luma_cli.accuracy.design import REFERENCE_SD
from luma_cli.accuracy.fit import NUM_DRAWS
from luma_cli.accuracy.observations import CENTRE, noise_name
from luma_cli.accuracy.prediction import Effect, Prediction
from luma_cli.accuracy.regret import Regret
from luma_cli.accuracy.sightings import Sightings
from luma_cli.accuracy.subject import Subject
from luma_cli.accuracy.sums import Adder, Posterior, Sums, Terms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luma_cli.accuracy.prediction import Draws

# What a reader calls the groups, for `--why`. Those of the protocol come last: all candidates share them. Left out are
# the dataset's level and its regime's: rows tell their sum, not the one without the other.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "size": (
        *("size", "size x dataset", "size curvature", "size x series", "size x objective", "size x head"),
        "size x luma",
    ),
    "resolution": ("tokens", "tokens x dataset", "low resolution", "tokens x luma", "luma at a crop"),
    "pretraining": (
        *("kind", "objective", "objective x regime", "objective, frozen", "kind, frozen"),
        *("objective x dataset", "pretraining data", "series x objective"),
    ),
    "extra data": ("extra data",),
    "family and series": ("family", "year", "series", "series x dataset", "unknown year"),
    "this backbone": (
        *("architecture", "weights", "weights x dataset", "weights, frozen"),
        "luma at a size and crop",
    ),
    "head and protocol": (
        *("head", "head x dataset", "recipe", "luma", "changed recipe", "scales", "scales x head"),
        *("source", "source x head", "iterations"),
    ),
}


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
        self._adder = Adder(posterior, components, usual_data)

    @property
    def scale_note(self) -> str:
        """What LUMA's level stands on."""
        if runs := self.sightings.own_luma_runs:
            return f"on the scale of {runs} own LUMA {'run' if runs == 1 else 'runs'}{self._surprise()}"
        return (
            f"on the EoMT scale (LUMA's level is EoMT's +- {100 * REFERENCE_SD:.0f}% of 100 - mIoU), no LUMA run seen"
        )

    def _surprise(self) -> str:
        """How far own runs moved LUMA's level, where that is more than three of the stated deviations."""
        found = self.posterior.keys.get(("luma", "luma"))
        level = 0.0 if found is None else float(self.posterior.mean[found])
        if abs(level) <= 3 * REFERENCE_SD:
            return ""
        change, side = 100 * (float(np.exp(level)) - 1), "more" if level > 0 else "less"
        return f", which have {abs(change):.0f}% {side} error (100 - mIoU) than EoMT's evidence leads to expect"

    def predict(self, subjects: Sequence[Subject]) -> list[Prediction]:
        """Posterior medians with intervals of one training run."""
        if not subjects:
            return []
        found = self._adder.sums(subjects)
        firsts = _first_of_each(subjects, found)
        parts = list(zip(firsts, found.backbones.terms, strict=True))
        widths = np.array([self._widths(*each) for each in parts])[found.backbone_of]
        noise = np.array([self.components.noise(noise_name(subject)) for subject in firsts])[found.backbone_of]
        total = np.hypot(found.sd, noise)
        middle = found.mean + CENTRE
        lows, highs = (_miou(middle[:, None] + sign * widths * total[:, None]).tolist() for sign in (1, -1))
        sds = np.exp(middle) * total * widths[:, 1] / NORMAL[1]
        unknown = [tuple(self._unknown(*each)) for each in parts]
        return [
            self._prediction(subject, miou, low, high, sd, unknown[backbone])
            for subject, miou, low, high, sd, backbone in zip(
                subjects, _miou(middle).tolist(), lows, highs, sds.tolist(), found.backbone_of.tolist(), strict=True
            )
        ]

    def draws(self, subjects: Sequence[Subject], num_draws: int = NUM_DRAWS, seed: int = 0) -> Draws:
        """Expected mIoU in percent, drawn jointly, spread as the calibration asks: [num_draws, subjects].

        No more than NUM_DRAWS are kept. seed: matters to unseen effects alone.
        """
        count = min(num_draws, self.posterior.draws.shape[1])
        if not subjects:
            return np.zeros((count, 0))
        found = self._adder.sums(subjects)
        parts = zip(_first_of_each(subjects, found), found.backbones.terms, strict=True)
        factors = np.array([self._widths(*each)[1] / NORMAL[1] for each in parts], dtype=np.float32)
        drawn = found.drawn(self.components.effects, factors, count, seed)
        drawn += np.float32(CENTRE)
        error = np.minimum(np.exp(drawn, out=drawn), np.float32(100), out=drawn)
        return np.subtract(100.0, error, dtype=np.float64)

    def effects(self, subject: Subject) -> list[Effect]:
        """What would be lost or won, in mIoU points, if a property were average; largest first, protocol last."""
        error = float(np.exp(self._adder.sums([subject]).mean[0] + CENTRE))
        groups = [key[0] for key in self.posterior.keys]
        crop = self._adder.crop_terms(subject)
        known = self._adder.backbone_terms(subject).known + crop.known
        found = []
        for name, members in _NAMES.items():
            mine = [(index, value) for index, value in known if groups[index] in members]
            if mine:
                indices, values = [index for index, _ in mine], np.array([value for _, value in mine])
                mean = float(values @ self.posterior.mean[indices]) + (crop.expected if name == "resolution" else 0.0)
                sd = float((values @ self.posterior.draws[indices]).std())
                found.append(Effect(name, error * (float(np.exp(-mean)) - 1), error * sd))
        return sorted(found, key=lambda each: (each.name == "head and protocol", -abs(each.points)))

    def _widths(self, subject: Subject, terms: Terms) -> tuple[float, float, float]:
        return self.calibration.width(subject, _novelties(terms))

    def _prediction(
        self,
        subject: Subject,
        miou: float,
        low: Sequence[float],
        high: Sequence[float],
        sd: float,
        unknown: tuple[str, ...],
    ) -> Prediction:
        reasons = (*unknown, *self.sightings.beyond(subject))
        return Prediction(
            miou_percent=miou,
            interval_50=(low[0], high[0]),
            interval_80=(low[1], high[1]),
            interval_90=(low[2], high[2]),
            sd=sd,
            support=self.sightings.support(subject),
            extrapolated=bool(reasons),
            reason="; ".join(reasons),
        )

    def _unknown(self, subject: Subject, terms: Terms) -> Iterator[str]:
        if subject.dataset not in self.sightings.datasets:
            yield f"no evidence on {subject.dataset}"
            return
        if "regime" in terms.unseen_groups:
            yield f"no {subject.regime} evidence on {subject.dataset}"
        said = {
            "series": f"no evidence for the series {subject.lineage or subject.architecture}",
            "objective": f"no {subject.regime} evidence for pretraining {subject.objective}",
            "head": f"no evidence for head {subject.head}",
        }
        yield from (said[novelty] for novelty in _novelties(terms) if novelty in said)


def _first_of_each(subjects: Sequence[Subject], found: Sums) -> list[Subject]:
    """A subject of every distinct backbone, in the order of `found.backbones`."""
    return [subjects[index] for index in np.unique(found.backbone_of, return_index=True)[1].tolist()]


def _novelties(terms: Terms) -> list[Novelty]:
    """What of a subject no row has shown."""
    named: dict[str, Novelty] = {
        "source": "source",
        "series": "series",
        "objective x regime": "objective",
        "head": "head",
    }
    return [novelty for group, novelty in named.items() if group in terms.unseen_groups]


def _miou(log_error: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mIoU in percent, never below 0."""
    return np.asarray(np.maximum(0.0, 100 - np.exp(log_error)), dtype=np.float64)
