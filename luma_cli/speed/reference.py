"""Reference times: what the shipped table of one class says of any segmenter, on a device of no particular speed.

A segmenter that the table has at its size keeps the table's time. One that it has at another size is scaled by
multiply-adds (between the sizes of one network, time is proportional to them within 2 % on the shipped GPUs). Others
get the power law of the class and what similar networks of their family deviate from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from luma_cli.speed.features import Features, stem_of
from luma_cli.speed.quantity import Workload
from luma_cli.speed.shipped import Classifier, Setting, Table
from luma_cli.speed.transfer import Points

if TYPE_CHECKING:
    from luma_cli.speed.features import Floats

# Log deviation per unit of log area between the sizes of one network: median 0.02, with tails, on the shipped GPUs.
_SIZE_SD = 0.06
# A head's multiply-adds are not the backbone's: log deviation per unit of log(with head / without).
_OTHER_WORK_SD = 0.5
# Share of the squared disagreement between shipped settings that stays with one network.
_DISAGREEMENT = 0.3
_MOST_CONTRAST = 0.3
# Similar: within about this much in log multiply-adds; a family counts as much as this many such networks.
_NEAR, _PRIOR_WEIGHT = 0.7, 1.0
_MACS_PER_PIXEL = 8e4
# Log deviation of a network that the table does not have, measured by leaving each out; beside a family effect: less.
_LAW_SD, _LAW_ONLY_SD, _NO_FAMILY = 0.25, 0.22, 1.6


@dataclass(frozen=True, slots=True)
class Reference:
    """The shipped times of a class, as logs. own: whether they are the device's own, so that their level counts too.

    rows: r classifiers. base: (r,) log ms. contrasts: (r, k). law: coefficients over 1, log macs, its square, log side.
    residuals: (r,) of the law. law_sd: their spread for a network that the table does not have.
    """

    settings: tuple[Setting, ...]
    own: bool
    rows: tuple[Classifier, ...]
    base: Floats
    contrasts: Floats
    law: Floats
    residuals: Floats
    law_sd: float
    by_name: dict[str, list[int]]
    by_stem: dict[str, list[int]]
    by_family: dict[str, list[int]]

    def points(
        self, workloads: Sequence[Workload], heads: Sequence[str] = (), environments: Sequence[str] = ()
    ) -> Points:
        """What the table says of the workloads."""
        import numpy as np

        found = [self._point(each) for each in workloads]
        base, variance, contrasts, macs, activations, families = zip(*found, strict=True) if found else ((),) * 6
        features = Features(
            np.array(macs, dtype=float),
            np.array(activations, dtype=float),
            np.array([each.resolution for each in workloads], dtype=float),
            families,
            [stem_of(each.architecture) for each in workloads],
        )
        shape = (len(workloads), len(self.settings))
        return Points(
            features,
            np.array(base, dtype=float),
            np.array(variance, dtype=float),
            np.array(contrasts, dtype=float).reshape(shape),
            heads or [each.head if each.head != "none" else "" for each in workloads],
            environments or [""] * len(workloads),
        )

    def law_only(self) -> Reference:
        """Without the times of any network: for devices whose class has none."""
        import numpy as np

        return replace(
            self,
            settings=(),
            contrasts=np.zeros((len(self.rows), 0)),
            residuals=np.zeros(len(self.rows)),
            law_sd=_LAW_ONLY_SD,
            by_name={},
            by_stem={},
        )

    def has(self, workload: Workload) -> bool:
        """Whether the table has this network, at whatever size."""
        return workload.architecture in self.by_name or stem_of(workload.architecture) in self.by_stem

    def has_at(self, workload: Workload) -> bool:
        """Whether it has this very classifier at this size."""
        rows = (self.rows[index] for index in self.by_name.get(workload.architecture, ()))
        return any(row.resolution == workload.resolution for row in rows)

    def family_of(self, architecture: str) -> str:
        """timm's family of that name, by the table's networks or by the beginning of the name; empty if none."""
        stem = stem_of(architecture)
        if stem in self.by_stem:
            return self.rows[self.by_stem[stem][0]].family
        words = architecture.split("_")
        starts = ("_".join(words[:length]) for length in range(len(words), 0, -1))
        return next((start for start in starts if start in self.by_family), "")

    def _point(self, workload: Workload) -> tuple[Any, ...]:
        indices = self.by_name.get(workload.architecture) or self.by_stem.get(stem_of(workload.architecture))
        return self._scaled(workload, indices) if indices else self._unknown(workload)

    def _scaled(self, workload: Workload, indices: Sequence[int]) -> tuple[Any, ...]:
        from math import log

        index = min(indices, key=lambda each: (abs(log(self.rows[each].resolution / workload.resolution)), each))
        row = self.rows[index]
        area = 2 * log(workload.resolution / row.resolution)
        macs = float(workload.macs or row.macs * (workload.resolution / row.resolution) ** 2)
        work = log(macs / row.macs)
        disagreement = _DISAGREEMENT * float((self.contrasts[index] ** 2).mean()) if self.settings else 0.0
        variance = _SIZE_SD**2 * abs(area) + disagreement
        if workload.head != "none" or workload.macs is None:
            variance += (_OTHER_WORK_SD * min(abs(work - area), 1.0)) ** 2 + (0.0 if workload.macs else 0.2**2)
        activations = row.activations * (workload.resolution / row.resolution) ** 2
        return self.base[index] + work, variance, self.contrasts[index], macs, activations, row.family

    def _unknown(self, workload: Workload) -> tuple[Any, ...]:
        from math import log

        import numpy as np

        macs = float(workload.macs or 5e9 * (workload.resolution / 224) ** 2)
        family = self.family_of(workload.architecture)
        near = self.by_family.get(family, [])
        per_pixel = macs / workload.resolution**2
        distance = np.array([log(self.rows[i].macs / self.rows[i].resolution**2 / per_pixel) for i in near])
        weights = np.exp(-((distance / _NEAR) ** 2) / 2)
        total = weights.sum() + _PRIOR_WEIGHT
        residual = float(weights @ self.residuals[near]) / total if near else 0.0
        intensity = float(weights @ [log(self.rows[i].macs / self.rows[i].activations) for i in near]) if near else 0.0
        intensity = (intensity + _PRIOR_WEIGHT * log(4.5e9 / 12e6)) / total
        sd = self.law_sd * (1 if near else _NO_FAMILY) + (0.0 if workload.macs else 1.0)
        base = float(_law_terms([macs], [workload.resolution])[0] @ self.law) + log(macs) + residual
        contrasts = np.zeros(len(self.settings))
        return base, sd**2, contrasts, macs, macs / np.exp(intensity), family


def reference_of(table: Table, settings: Sequence[Setting], own: bool, max_side: int | None = None) -> Reference:
    """The reference from these settings of one class, weighted by device. max_side: rows above it are left out."""
    import numpy as np

    columns = [table.settings.index(each) for each in settings]
    rows = tuple(
        row
        for row in table.rows
        if any(row.milliseconds[each] is not None for each in columns) and row.resolution <= (max_side or row.resolution)
    )
    times = np.array([[row.milliseconds[each] or np.nan for each in columns] for row in rows], dtype=float)
    logs = np.log(times)
    level = np.median(logs[~np.isnan(logs).any(1)], axis=0)
    base = _mean_of_devices(logs - level, settings) + (level.mean() if own else 0.0)
    contrasts = np.nan_to_num(np.clip(logs - level - (base - (level.mean() if own else 0.0))[:, None], -_MOST_CONTRAST, _MOST_CONTRAST))
    macs = np.array([row.macs for row in rows])
    terms = _law_terms(macs, [row.resolution for row in rows])
    law = np.linalg.lstsq(terms, base - np.log(macs), rcond=None)[0]
    residuals = base - np.log(macs) - terms @ law
    by_name, by_stem, by_family = _indices(rows)
    return Reference(
        tuple(settings), own, rows, base, contrasts, law, residuals, _LAW_SD, by_name, by_stem, by_family
    )


def _mean_of_devices(logs: Floats, settings: Sequence[Setting]) -> Floats:
    """(r,) mean over device models of the mean over their settings; a device without the row does not count."""
    import warnings

    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a device that has none of a row's settings is NaN, as meant
        devices = [
            np.nanmean(logs[:, [i for i, each in enumerate(settings) if each.device_name == name]], axis=1)
            for name in sorted({each.device_name for each in settings})
        ]
        mean: Floats = np.nanmean(np.stack(devices, axis=1), axis=1)
    return mean


def _law_terms(macs: Sequence[float], sides: Sequence[float]) -> Floats:
    """(n, 3): 1, s and s squared, where s is the log of multiply-adds per pixel against a network in the middle."""
    import numpy as np

    size = np.log(np.asarray(macs, dtype=float) / np.asarray(sides, dtype=float) ** 2 / _MACS_PER_PIXEL)
    return np.stack([np.ones_like(size), size, size**2], axis=1)


def _indices(rows: Sequence[Classifier]) -> tuple[dict[str, list[int]], dict[str, list[int]], dict[str, list[int]]]:
    by_name, by_stem, by_family = defaultdict(list), defaultdict(list), defaultdict(list)
    for number, row in enumerate(rows):
        by_name[row.architecture].append(number)
        by_stem[stem_of(row.architecture)].append(number)
        by_family[row.family].append(number)
    return dict(by_name), dict(by_stem), dict(by_family)
