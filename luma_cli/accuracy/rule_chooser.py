"""A simple rule in the model's place, where the audit found that it chooses better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luma_cli.accuracy.baselines import RULES, Known
from luma_cli.accuracy.learned import LearnedModel
from luma_cli.accuracy.observations import usable
from luma_cli.accuracy.regret import MODEL, best_rule
from luma_cli.accuracy.subject import Subject
from luma_cli.accuracy.subjects import subject_of_row
from luma_cli.evidence.evidence import Evidence


@dataclass(frozen=True, slots=True)
class RuleChooser:
    """title: the rule. reason: why it decides. known: the dataset's fine-tuned rows, which it may look at."""

    title: str
    reason: str
    known: tuple[Known, ...]

    def scores(self, subjects: Sequence[Subject], macs: Sequence[float | None]) -> list[float]:
        """One score per subject, better large. macs: of the whole segmenter, in place of parameters times pixels."""
        if self.title == "largest that fits" and all(value is not None for value in macs):
            return [float(value or 0) for value in macs]
        return [RULES[self.title](each, self.known) for each in subjects]


def chooser(model: LearnedModel, dataset: str, evidence: Sequence[Evidence]) -> RuleChooser | None:
    """The rule that beats the model on `dataset` by regret@1, None where none does or nothing could be audited."""
    by_rule = model.regrets.get(dataset)
    if not by_rule or (name := best_rule(by_rule)) == MODEL:
        return None
    theirs, ours = by_rule[name].at_1, by_rule[MODEL].at_1
    reason = f"regret@1 of {theirs:.2f} mIoU against the model's {ours:.2f} over {by_rule[name].num} budgets"
    rows = [row for row in evidence if row.dataset == dataset and row.regime == "fine-tuned" and usable(row)]
    return RuleChooser(name, reason, tuple(Known(subject_of_row(row), row.miou_percent) for row in rows))
