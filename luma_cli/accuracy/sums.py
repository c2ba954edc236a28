"""Sums of effects of many subjects at once: means, joint posterior draws, and what no evidence bears upon.

A subject's log error is a part of its backbone and protocol plus a part of its crop. Candidates share both: 434
backbones at six sizes are 440 sums, not 2,604.

Shapes: p effects, C subjects, B distinct backbones, T distinct crops, S draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from luma_cli.accuracy.components import Components
from luma_cli.accuracy.design import GROUPS, Feature, backbone_features, token_features
from luma_cli.accuracy.subject import Subject

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Single = NDArray[np.float32]
    Double = NDArray[np.float64]

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
class Part:
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

    backbones: Part
    crops: Part
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

    def _part(self, terms: Sequence[Terms]) -> Part:
        self._weigh([each for each in terms if each.spread is None])
        effects = self.components.effects
        return Part(
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
