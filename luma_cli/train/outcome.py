"""How a run ended, for whoever started it. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from luma_cli.store.records import RunStatus


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run at the end of a session. is_first: whether this process is the one that speaks for all."""

    run_id: str
    folder: str
    status: RunStatus
    step: int
    num_steps: int
    best_miou_percent: float | None
    exit_code: int
    is_first: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain values, schema 1."""
        hidden = ("is_first", "exit_code")
        return {"schema": 1, **{name: value for name, value in asdict(self).items() if name not in hidden}}

    def summary(self) -> str:
        """One line, with what to type next."""
        score = "" if self.best_miou_percent is None else f", best mIoU {self.best_miou_percent:.2f}"
        done = f"run {self.run_id} {self.status} at step {self.step} of {self.num_steps}{score}"
        if self.status == "stopped":
            return f"{done}; go on with: luma train --resume {self.run_id}"
        return f"{done}; next: luma eval {self.run_id}, luma predict {self.run_id} IMAGE --out DIR"
