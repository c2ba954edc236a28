"""When a training has left the numbers that it can come back from. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from luma_cli.errors import Diverged

_WINDOW = 50  # steps over which a loss is judged
_FACTOR = 10.0  # a mean loss above this multiple of the first window's is an explosion: sound runs fall
_PATIENCE = 5  # updates left out in a row
_PATIENCE_FP16 = 24  # the loss scale halves at each, from 65536 to below 0.01 (normal in the first steps)


@dataclass(slots=True)
class Watch:
    """Counts updates that were left out, and compares the loss with that of the first steps.

    `state` and `resume` carry it over a stop, so that a resumed run stops where the whole one would.
    """

    half_precision: bool = False
    skipped: int = 0
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)

    def see(self, step: int, loss: float, gradient_norm: float) -> bool:
        """Whether the update of this step may be made: loss and gradient are finite. Raises Diverged, with advice."""
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            self.skipped = 0
            self._compare(step, loss)
            return True
        self.skipped += 1
        patience = _PATIENCE_FP16 if self.half_precision else _PATIENCE
        if self.skipped >= patience:
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise Diverged(f"the {what} was not finite {patience} times in a row, up to step {step}; {_advice()}")
        return False

    def state(self) -> dict[str, object]:
        """Plain values for a checkpoint."""
        return {"skipped": self.skipped, "first": list(self.first), "last": list(self.last)}

    def resume(self, state: dict[str, object]) -> None:
        """Go on from what `state` gave."""
        self.skipped = int(str(state["skipped"]))
        self.first, self.last = [[float(value) for value in state[name]] for name in ("first", "last")]  # type: ignore[attr-defined]

    def _compare(self, step: int, loss: float) -> None:
        if len(self.first) < _WINDOW:
            self.first.append(loss)
            return
        self.last = [*self.last[-_WINDOW + 1 :], loss]
        now, then = sum(self.last) / len(self.last), sum(self.first) / len(self.first)
        if len(self.last) == _WINDOW and now > _FACTOR * then:
            raise Diverged(f"the loss grew from {then:.3g} to {now:.3g} up to step {step}; {_advice()}")


def _advice() -> str:
    return "try --set lr=... at a third of its value, a longer warm-up, or --dtype fp32"
