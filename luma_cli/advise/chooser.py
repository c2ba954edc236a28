"""The seam for a rule that beats the model on a dataset: the audit names it, and the answer says so and follows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from luma_cli.accuracy.subjects import Subject


class Chooser(Protocol):
    """A baseline that decides in the model's place; `luma_cli.accuracy.model.chooser` gives one or None."""

    @property
    def title(self) -> str:
        """What the rule takes, e.g. `the largest model that fits`."""
        ...

    @property
    def reason(self) -> str:
        """Why it decides, e.g. `regret@1 of 0.31 mIoU against the model's 0.40 on ADE20K`."""
        ...

    def scores(self, subjects: Sequence[Subject], macs: Sequence[float | None]) -> Sequence[float]:
        """One score per subject, better large. macs: of the whole segmenter, None when they are not known."""
        ...
