"""How likely EoMT's queries are masked as training goes on (arXiv 2503.19108, section 3.3). Imports no torch.

Joint blocks are freed one after the other, the earliest first, so that the trained model needs no masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luma_cli.errors import UsageError

POWER = 0.9  # of the polynomial decay, section 4.1


@dataclass(frozen=True, slots=True)
class MaskAnnealing:
    """Steps of the optimiser between which each joint block goes from always masked to never, earliest block first.

    >>> MaskAnnealing.in_equal_phases(600, 4).probabilities(250)
    (0.0, 0.535886731268146, 1.0, 1.0)
    """

    starts: tuple[float, ...]
    ends: tuple[float, ...]
    power: float = POWER

    def __post_init__(self) -> None:
        """Raise UsageError for a schedule that does not say an interval of steps per block."""
        if len(self.starts) != len(self.ends) or not self.starts:
            raise UsageError(f"{len(self.starts)} starts and {len(self.ends)} ends, expected one of each per block")
        for start, end in zip(self.starts, self.ends, strict=True):
            if not 0 <= start <= end:
                raise UsageError(f"masks are annealed from step {start} to {end}, expected 0 or more, start before end")

    @classmethod
    def in_equal_phases(cls, num_steps: int, num_joint: int) -> MaskAnnealing:
        """EoMT's own: of `num_joint` + 2 equal phases the first masks all, the last none, between one frees a block."""
        phase = num_steps / (num_joint + 2)
        return cls(
            starts=tuple((block + 1) * phase for block in range(num_joint)),
            ends=tuple((block + 2) * phase for block in range(num_joint)),
        )

    def probabilities(self, step: int) -> tuple[float, ...]:
        """Per joint block, the probability that a query of an image is masked in optimiser step `step`, from 0."""
        return tuple(self._probability(step, *ends) for ends in zip(self.starts, self.ends, strict=True))

    def _probability(self, step: int, start: float, end: float) -> float:
        if step < start:
            return 1.0
        return 0.0 if step >= end else (1 - (step - start) / (end - start)) ** self.power


def check_probabilities(probabilities: Sequence[float], num_joint: int) -> tuple[float, ...]:
    """The probabilities, one per joint block. Raises UsageError for another number of them or a value out of [0, 1]."""
    if len(probabilities) != num_joint or not all(0 <= value <= 1 for value in probabilities):
        raise UsageError(f"mask probabilities {tuple(probabilities)}, expected {num_joint} from 0 to 1, one per block")
    return tuple(probabilities)
