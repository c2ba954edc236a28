"""The learned accuracy model: mIoU of any subject with calibrated intervals, and joint posterior draws.

A subject's log error is a part of its backbone and protocol plus a part of its crop, which candidates share: 434
backbones at six sizes are 440 sums, not 2,604. `load_model` keeps fits in the cache folder.

Shapes: p effects, C subjects, B distinct backbones, T distinct crops, S draws.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luma_cli import files
from luma_cli.accuracy.effects import (
    CENTRE,
    GROUPS,
    REFERENCE_SD,
    Feature,
    backbone_features,
    noise_name,
    observe,
    token_features,
)
from luma_cli.accuracy.fit import (
    NORMAL,
    NUM_DRAWS,
    Calibration,
    Components,
    Fit,
    Novelty,
    calibrate,
    fit,
    load_components,
    without_slips,
)
from luma_cli.accuracy.sightings import Effect, Prediction, Sighting, Sightings
from luma_cli.accuracy.subjects import Subject
from luma_cli.evidence.evidence import Evidence, load_reference
from luma_cli.evidence.table import evidence_hash

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Single = NDArray[np.float32]
    Double = NDArray[np.float64]
    import numpy as np

    from luma_cli.accuracy.sightings import Draws


_all_but_crop = attrgetter(*(each.name for each in fields(Subject) if each.name not in ("height", "width")))
_crop = attrgetter("dataset", "regime", "height", "width", "source", "head")


@dataclass(frozen=True)
class Posterior:
    """Effects given the evidence, about the means of their priors.

    keys: group and level -> number of the effect. mean [p]; draws [p, S].
    """

    keys: Mapping[tuple[str, str], int]
    mean: Double
    draws: Single


@dataclass(eq=False)
class Terms:
    """Part of a sum: effects that the evidence bears upon, those it does not, and what priors expect.

    mean, spread: of the part's log error and of the draws about it [S], weighed when first asked for.
    """

    known: tuple[tuple[int, float], ...]
    unseen: tuple[Feature, ...]
    expected: float
    mean: float = 0.0
    spread: Single | None = None

    def __post_init__(self) -> None:
        """What is asked for again and again."""
        self.unseen_groups = frozenset(feature.group for feature in self.unseen)
        self._drawn: dict[tuple[int, int], Single] = {}

    def unseen_variance(self, effects: Mapping[str, float]) -> float:
        """Of what no evidence bears upon. effects: standard deviations by group."""
        return sum((effects[group] * value) ** 2 for group, _, value in self.unseen)

    def unseen_drawn(
        self, effects: Mapping[str, float], num_draws: int, seed: int, normals: dict[tuple[str, str], Single]
    ) -> Single:
        """Draws [num_draws] of what no evidence bears upon, the same in every call. normals: of all parts so far."""
        key = num_draws, seed
        if key not in self._drawn:
            total = np.zeros(num_draws, dtype=np.float32)
            for group, level, value in self.unseen:
                if (group, level) not in normals:
                    normals[group, level] = _normal(f"{seed}, {group}, {level}", num_draws)
                total += np.float32(effects[group] * value) * normals[group, level]
            self._drawn[key] = total
        return self._drawn[key]


@dataclass(frozen=True)
class PartialSums:
    """Log errors of one kind of part: mean [N], draws about it [N, S], and the sd of what is unseen [N]."""

    terms: tuple[Terms, ...]
    mean: Double
    spread: Single
    unseen_sd: Double

    def drawn(self, effects: Mapping[str, float], num_draws: int, seed: int) -> Single:
        """The first draws with unseen effects drawn too [N, num_draws]."""
        normals: dict[tuple[str, str], Single] = {}
        unseen = [each.unseen_drawn(effects, num_draws, seed, normals) for each in self.terms]
        return np.asarray(self.spread[:, :num_draws] + np.array(unseen), dtype=np.float32)


@dataclass(frozen=True)
class Sums:
    """C subjects: their backbones' parts [B] and crops' parts [T], and which are whose [C]."""

    backbones: PartialSums
    crops: PartialSums
    backbone_of: NDArray[np.intp]
    crop_of: NDArray[np.intp]

    @property
    def mean(self) -> Double:
        """Posterior mean of every subject's log error [C], without CENTRE."""
        return self.backbones.mean[self.backbone_of] + self.crops.mean[self.crop_of]

    @cached_property
    def sd(self) -> Double:
        """Standard deviation of every subject's log error [C], noise of a run not included."""
        first, second = self.backbones, self.crops
        num_draws = max(first.spread.shape[1], 1)
        squares = [np.einsum("ns,ns->n", part.spread, part.spread) for part in (first, second)]
        across = first.spread @ second.spread.T
        known = squares[0][self.backbone_of] + squares[1][self.crop_of] + 2 * across[self.backbone_of, self.crop_of]
        unseen = first.unseen_sd[self.backbone_of] ** 2 + second.unseen_sd[self.crop_of] ** 2
        return np.asarray(np.sqrt(np.maximum(known / num_draws, 0.0) + unseen), dtype=np.float64)

    def drawn(self, effects: Mapping[str, float], factors: Single, num_draws: int, seed: int) -> Single:
        """Draws of every subject's log error [num_draws, C], about the mean `factors` [B] times as wide."""
        backbones = self.backbones.drawn(effects, num_draws, seed) * factors[:, None]
        crops = self.crops.drawn(effects, num_draws, seed)
        placed = np.zeros((len(self.crops.terms), len(self.crop_of)), dtype=np.float32)
        placed[self.crop_of, np.arange(len(self.crop_of))] = factors[self.backbone_of]
        total = np.take(np.ascontiguousarray(backbones.T), self.backbone_of, axis=1)
        total += crops.T @ placed
        total += self.mean.astype(np.float32)
        return np.asarray(total, dtype=np.float32)


class Adder:
    """Adds up effects; what subjects share is computed once, and the last sums are kept: they are asked for in turn."""

    def __init__(self, posterior: Posterior, components: Components, usual_data: Mapping[str, str]) -> None:
        """Everything is kept as given; nothing is computed yet."""
        self.posterior, self.components, self.usual_data = posterior, components, usual_data
        self._kept: dict[tuple[Any, ...], Terms] = {}
        self._last: tuple[tuple[Subject, ...], Sums] | None = None

    def backbone_terms(self, subject: Subject) -> Terms:
        """What does not depend on the crop."""
        key = _all_but_crop(subject)
        if key not in self._kept:
            self._kept[key] = self._split(backbone_features(subject, self.usual_data, self.components.sensitivity))
        return self._kept[key]

    def crop_terms(self, subject: Subject) -> Terms:
        """What depends on the crop alone."""
        key = _crop(subject)
        if key not in self._kept:
            self._kept[key] = self._split(token_features(subject, self.components.sensitivity))
        return self._kept[key]

    def sums(self, subjects: Sequence[Subject]) -> Sums:
        """The subjects' sums."""
        key = tuple(subjects)
        if self._last is None or self._last[0] != key:
            backbones, backbone_of = _distinct([self.backbone_terms(subject) for subject in key])
            crops, crop_of = _distinct([self.crop_terms(subject) for subject in key])
            self._last = key, Sums(self._part(backbones), self._part(crops), backbone_of, crop_of)
        return self._last[1]

    def _split(self, found: Sequence[Feature]) -> Terms:
        keys = self.posterior.keys
        return Terms(
            tuple((keys[each[:2]], each.value) for each in found if each[:2] in keys),
            tuple(each for each in found if each[:2] not in keys),
            sum(GROUPS[each.group].mean * each.value for each in found),
        )

    def _part(self, terms: Sequence[Terms]) -> PartialSums:
        self._weigh([each for each in terms if each.spread is None])
        effects = self.components.effects
        return PartialSums(
            tuple(terms),
            np.array([each.mean for each in terms]),
            np.array([each.spread for each in terms], dtype=np.float32),
            np.sqrt([each.unseen_variance(effects) for each in terms]),
        )

    def _weigh(self, terms: Sequence[Terms]) -> None:
        """Means and draws of parts that no earlier sum had."""
        used = sorted({index for each in terms for index, _ in each.known})
        place = {index: row for row, index in enumerate(used)}
        matrix = np.zeros((len(terms), len(used)))
        for row, each in enumerate(terms):
            for index, value in each.known:
                matrix[row, place[index]] += value
        mean = self.posterior.mean[used]
        about = np.asarray(self.posterior.draws[used]) - mean.astype(np.float32)[:, None]
        spread = matrix.astype(np.float32) @ about
        for each, middle, row in zip(terms, (matrix @ mean).tolist(), spread, strict=True):
            each.mean, each.spread = middle + each.expected, row


def _distinct(terms: Sequence[Terms]) -> tuple[list[Terms], NDArray[np.intp]]:
    """The different ones, and which of them each is."""
    found = {id(each): each for each in terms}
    place = {key: number for number, key in enumerate(found)}
    return list(found.values()), np.array([place[id(each)] for each in terms], dtype=np.intp)


def _normal(key: str, count: int) -> Single:
    """Standard normal numbers [count] that depend on the key alone."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(count, dtype=np.float32)


# What a reader calls the groups, for `--why`. Those of the protocol come last: all candidates share them. Left out are
# the dataset's level and its regime's: rows tell their sum, not the one without the other.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "size": (
        *("size", "size x dataset", "size curvature", "size x objective", "size x head"),
        "size x bare head",
        "size x luma",
    ),
    "resolution": ("tokens", "low resolution", "tokens x luma", "luma at a crop"),
    "pretraining": (
        *("kind", "objective", "objective, frozen", "bare head x labels"),
        *("objective x dataset", "pretraining data", "series x objective"),
    ),
    "extra data": ("extra data",),
    "family and series": ("year", "series", "series x dataset", "unknown year"),
    "this backbone": (
        *("architecture", "weights", "weights x dataset", "weights, frozen"),
        "bare head x weights",
        "luma at a size and crop",
    ),
    "head and protocol": (
        *("head", "head x dataset", "recipe", "luma", "changed recipe", "scales", "scales x head"),
        *("source x head", "iterations"),
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
    ) -> None:
        """Everything is kept as given; nothing is computed yet."""
        self.posterior = posterior
        self.components = components
        self.calibration = calibration
        self.sightings = sightings
        self.usual_data = usual_data
        self._adder = Adder(posterior, components, usual_data)

    @property
    def scale_note(self) -> str:
        """The source of LUMA's level."""
        if runs := self.sightings.own_luma_runs:
            return f"on the scale of {runs} own LUMA {'run' if runs == 1 else 'runs'}{self._surprise()}"
        assumed = f"LUMA is assumed to score like EoMT, +- {100 * REFERENCE_SD:.0f}% of 100 - mIoU"
        known = f", and {self.sightings.luma_figures} published LUMA figure" if self.sightings.luma_figures else ""
        return f"on the EoMT scale{known}, no LUMA run seen ({assumed})"

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
        "source x head": "source",
        "series": "series",
        "objective": "objective",
        "objective, frozen": "objective",
        "head": "head",
    }
    return [novelty for group, novelty in named.items() if group in terms.unseen_groups]


def _miou(log_error: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mIoU in percent, never below 0."""
    return np.asarray(np.maximum(0.0, 100 - np.exp(log_error)), dtype=np.float64)


_sighting = attrgetter(*(each.name for each in fields(Sighting)))
_KEPT = 4
_WRITING_SECONDS = 600  # the description of draws follows within this time, or never
# What the numbers come from beside the evidence: variances, sizes and series of backbones.
_TABLES = ("accuracy.toml", "params.csv", "reference/backbone_params.csv", "reference/lineages.csv")


def load_model(evidence: Sequence[Evidence] | None = None, cache: Path | None = None) -> LearnedModel:
    """The model learned from `evidence`, the shipped rows when None.

    cache: folder of earlier fits, the user's cache folder when None. A fit is kept by the hash of the evidence, of the
    shipped tables and of this package's code. A folder that cannot be written to is no error, and whatever is damaged
    there is fitted again.
    """
    rows = load_reference() if evidence is None else evidence
    key = _key(rows)
    folder = cache or _cache_folder()
    if (kept := _read(folder, key)) is not None:
        return kept
    model = learn(rows)
    _keep(folder, key, model)
    return model


def learn(rows: Sequence[Evidence], components: Components | None = None) -> LearnedModel:
    """Fits the rows, without a cache."""
    known = components or load_components()
    return from_fit(without_slips(fit(observe(rows, known.sensitivity), known)))


def from_fit(fitted: Fit) -> LearnedModel:
    """The model of a fit, its intervals calibrated on rows left out."""
    observed = fitted.observations
    sightings = [Sighting.of(*row) for row in observed.rows]
    return LearnedModel(
        Posterior(observed.position, fitted.effects(), fitted.draws().T),
        fitted.components,
        calibrate(fitted),
        Sightings(sightings),
        observed.usual_data,
    )


def _key(rows: Sequence[Evidence]) -> str:
    """Same key, same numbers: a change of the model's code asks for a new fit like one of the evidence."""
    digest = hashlib.sha256(evidence_hash(rows).encode())
    profiles = files.root() / "profiles"
    for path in (*(profiles / name for name in _TABLES), *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    return files.user_folder("cache") / "accuracy"


def _read(folder: Path, key: str) -> LearnedModel | None:
    """The kept model; None when there is none or it cannot be read whole."""
    try:
        state = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        return _decoded(state, _read_draws(folder / f"{key}.f32", state["num_draws"], state["checksum"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _read_draws(path: Path, num_draws: int, checksum: int) -> NDArray[np.float32]:
    """Draws [p, num_draws], mapped from the file. Raises OSError or ValueError when it is missing or damaged."""
    import numpy as np

    numbers = np.memmap(path, dtype="<f4", mode="r") if path.stat().st_size else np.zeros(0, dtype="<f4")
    if zlib.crc32(numbers.data) != checksum:
        raise ValueError(f"{path} is damaged")
    return numbers.reshape(-1, num_draws)


def _decoded(state: dict[str, Any], draws: NDArray[np.float32]) -> LearnedModel:
    import numpy as np

    keys = {(group, level): index for index, (group, level) in enumerate(state["keys"])}
    if not len(draws) == len(state["mean"]) == len(keys):
        raise ValueError("draws of another fit")
    return LearnedModel(
        Posterior(keys, np.array(state["mean"]), draws),
        Components(**state["components"]),
        Calibration({name: tuple(widths) for name, widths in state["widths"].items()}),
        Sightings([Sighting(*row) for row in state["sightings"]]),
        state["usual_data"],
    )


def _keep(folder: Path, key: str, model: LearnedModel) -> None:
    """Writes the draws, then the rest, so that a description never lies there without its draws."""
    import numpy as np

    components = model.components
    draws = np.ascontiguousarray(model.posterior.draws, dtype="<f4")
    state = {
        "keys": list(model.posterior.keys),
        "mean": model.posterior.mean.tolist(),
        "components": {
            "effects": dict(components.effects),
            "noises": dict(components.noises),
            "sensitivity": dict(components.sensitivity),
        },
        "widths": model.calibration.widths,
        "sightings": [_sighting(row) for row in model.sightings.rows],
        "usual_data": model.usual_data,
        "num_draws": model.posterior.draws.shape[1],
        "checksum": zlib.crc32(draws.data),
    }
    try:
        files.write_bytes(folder / f"{key}.f32", draws.tobytes())
        files.write_text(folder / f"{key}.json", json.dumps(state))
        _forget(folder)
    except OSError:
        return


def _forget(folder: Path) -> None:
    """Removes all but the latest fits, and draws that a killed process left without a description."""
    described = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in described[_KEPT:]:
        path.unlink(missing_ok=True)
    kept = {path.stem for path in described[:_KEPT]}
    for path in folder.glob("*.f32"):
        if path.stem not in kept and time.time() - path.stat().st_mtime > _WRITING_SECONDS:
            path.unlink(missing_ok=True)
