"""The run that would most improve the recommendation itself, as one line of an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luma_cli.accuracy.sightings import AccuracyModel, Prediction
from luma_cli.accuracy.subjects import Subject
from luma_cli.advise.axis import place
from luma_cli.advise.budgets import Priced
from luma_cli.advise.learned_front import has_evidence
from luma_cli.advise.next_run import LEAST_REGRET, Bench, command, first_choice
from luma_cli.advise.question import Question
from luma_cli.advise.training_cost import num_images_seen, training_cost, usual_recipe

# The contenders: no run of a candidate that is unlikelier than these to be the best could change who is.
NUM_CONTENDERS = 60


def worthiest(
    question: Question,
    within: Sequence[tuple[Priced, Subject, Prediction]],
    model: AccuracyModel,
    trained: frozenset[tuple[str, int]],
) -> str:
    """The `luma train` line with what it is expected to save and what it costs; says so where no run is worth it.

    within: every candidate that surely meets the budgets, those without evidence too. trained: timm name and resolution
    of the user's comparable runs, which are not proposed again.
    """
    if not any(has_evidence(prediction) for _, _, prediction in within):
        return _first(question, [priced for priced, _, _ in within])
    contenders = sorted(within, key=lambda each: (-each[2].interval_80[1], each[0].candidate.key))[:NUM_CONTENDERS]
    head = "luma" if question.head == "none" else question.head  # nothing is trained without one
    recipe = usual_recipe(question.dataset, head)
    images = num_images_seen(recipe, question.dataset)
    in_hours = all("gpu_hours" in priced.costs for priced, _, _ in contenders)
    costs = {
        at: cost
        for at, (priced, _, _) in enumerate(contenders)
        if priced.candidate.run_key not in trained
        and (cost := training_cost(priced, images, in_hours, question.convention)) is not None
    }
    places = np.array([place(priced, question.axis) for priced, _, _ in contenders])
    draws = model.draws([subject for _, subject, _ in contenders], 1000)
    reference = float(places.max()), 0.0
    bench = Bench(places, draws, question.axis, [True] * len(contenders), reference)
    picks = bench.pick(list(costs), [cost.value for cost in costs.values()], float("inf"), 1) if costs else []
    if not picks:
        return f"none is expected to better this by {LEAST_REGRET:g} mIoU; luma next looks at the whole front"
    (pick,) = picks
    line = command(contenders[pick.index][0].candidate, question.dataset, recipe.name, head)
    worth = f"expected to better this choice by {pick.gain:.2f} mIoU, for {costs[pick.index].text} of training"
    return f"{line} ({worth}; luma next weighs runs of models that cannot win themselves too)"


def _first(question: Question, within: Sequence[Priced]) -> str:
    """The run that `luma next` begins with too where no row speaks about any candidate."""
    chosen = min(within, key=lambda priced: first_choice(priced.candidate)).candidate
    line = command(chosen, question.dataset, usual_recipe(question.dataset, question.head).name, question.head)
    return f"{line} (nothing is known about any candidate: a middle size, a pretraining found best)"
