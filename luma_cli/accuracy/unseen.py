"""What is predicted for a pretraining objective that no row shows: each left out in turn, with its bias."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from luma_cli.accuracy.calibration import Calibration
from luma_cli.accuracy.fit import Fit, leave_out

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
