"""Which candidates are worth measuring before an answer is relied on: the best whose bound costs are only predicted."""

from __future__ import annotations

from luma_cli.advise import budgets as held
from luma_cli.advise.answer import Recommendation
from luma_cli.advise.candidates import Candidate

NUM_MEASURED = 5


def shortlist(answer: Recommendation, count: int = NUM_MEASURED) -> list[Candidate]:
    """The candidates of the answer with the highest predicted mIoU, in budget or perhaps so, that are not measured yet.

    One of each architecture and size: speed, memory and energy are the architecture's, whatever its weights.
    """
    rows = sorted(
        (*answer.rows, *answer.may_exceed.rows), key=lambda row: (-row.prediction.miou_percent, row.candidate.key)
    )
    kinds = [kind for kind in answer.question.kinds if kind in held.PROFILED]
    found: dict[tuple[str, int], Candidate] = {}
    for row in rows:
        if any(row.priced.costs[kind].origin != "measured" for kind in kinds):
            found.setdefault((row.candidate.architecture, row.candidate.resolution), row.candidate)
    return list(found.values())[:count]
