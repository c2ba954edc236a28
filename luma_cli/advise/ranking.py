"""Candidates on one scale: predicted, the dominated left out, the rest ordered and explained."""

from __future__ import annotations

from collections.abc import Sequence

from luma_cli.advise import budgets as held
from luma_cli.advise.answer import Ranking, Row
from luma_cli.advise.candidates import Candidate
from luma_cli.advise.front import on_front
from luma_cli.advise.predictor import Prediction, Predictor
from luma_cli.evidence.evidence import Evidence, Scale
from luma_cli.units import Budget, FlopConvention

# About the spread between seeds of one recipe on these datasets: differences below it decide nothing.
SEED_NOISE_MIOU = 0.3
# Sizes within this ratio of a measured one are worth trying first.
NEARBY = 1.5
# Best pretrainings of arXiv 2607.00687; they only order what has no evidence.
_PAPERS_BEST = ("dinov3", "eva02")


def rank(
    candidates: Sequence[Candidate],
    budgets: Sequence[Budget],
    predictor: Predictor,
    scale: Scale,
    convention: FlopConvention = "mac",
) -> Ranking:
    """The front of the candidates on `scale`, best mIoU first, cheapest first among equals."""
    predictions = predictor.predict(candidates, scale)
    pairs = [(each, found) for each, found in zip(candidates, predictions, strict=True) if found.evidence]
    scores = [_miou(found) for _, found in pairs]
    mask = on_front([held.expense(each, budgets) for each, _ in pairs], scores)
    front = sorted(
        (pair for pair, kept in zip(pairs, mask, strict=True) if kept),
        key=lambda pair: (-_miou(pair[1]), held.expense(pair[0], budgets), pair[0].key),
    )
    rows = tuple(_row(index, front, budgets, predictor, convention) for index in range(len(front)))
    return Ranking(
        scale,
        rows,
        len(pairs),
        len({found.evidence for _, found in pairs if not found.doubtful}),
        len(pairs) - len(front),
    )


def _miou(prediction: Prediction) -> float:
    return prediction.miou_percent if prediction.miou_percent is not None else float("nan")


def _row(
    index: int,
    front: Sequence[tuple[Candidate, Prediction]],
    budgets: Sequence[Budget],
    predictor: Predictor,
    convention: FlopConvention,
) -> Row:
    (first, best), (candidate, found) = front[0], front[index]
    rows = tuple(predictor.rows(found.evidence))
    behind = round(_miou(best) - _miou(found), 6)
    return Row(
        rank=index + 1,
        candidate=candidate,
        prediction=found,
        evidence=rows,
        why=_joined(
            _accuracy(found, rows),
            _spending(candidate, budgets, convention),
            _compared(candidate, first, behind, budgets) if index else "",
            found.note,
        ),
        tie=index > 0 and behind <= SEED_NOISE_MIOU,
    )


def _compared(candidate: Candidate, first: Candidate, behind: float, budgets: Sequence[Budget]) -> str:
    """How far behind the first row, and for what part of its first bound quantity."""
    kind = budgets[0].kind if budgets else "macs"
    mine, theirs = held.cost(candidate, kind), held.cost(first, kind)
    price = f"{mine / theirs:.2g}x its {held.TITLES[kind]}" if mine is not None and theirs else "another price"
    gap = f"{behind:.1f} mIoU behind the first" if behind > SEED_NOISE_MIOU else "within seed noise of the first"
    return f"{gap} at {price}"


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _accuracy(found: Prediction, rows: Sequence[Evidence]) -> str:
    here = "measured here, " if all(row.provenance == "own run" for row in rows) else ""
    miou = f"{_miou(found):.1f} mIoU"
    if len(rows) == 1:
        return f"{miou} {here.replace(',', '') or 'measured '}at {rows[0].size} ({rows[0].source})"
    sizes = " and ".join(sorted({row.size for row in rows}))
    sources = sorted({row.source for row in rows})
    spread = f"{found.low:.1f} to {found.high:.1f}, " if found.low != found.high else ""
    return f"{miou}, {here}mean of {len(rows)} results at {sizes} ({spread}{'; '.join(sources)})"


def _spending(candidate: Candidate, budgets: Sequence[Budget], convention: FlopConvention) -> str:
    parts = []
    for budget in budgets:
        value = held.cost(candidate, budget.kind)
        if value is not None:
            left = held.slack(candidate, budget)
            parts.append(f"{held.describe(budget.kind, value, convention)}, {left:.0%} {_room(budget)}")
    return "; ".join(parts)


def _room(budget: Budget) -> str:
    return f"above {budget.text}" if budget.is_floor else f"of {budget.text} left"


def rank_by_size(
    candidates: Sequence[Candidate], budgets: Sequence[Budget], convention: FlopConvention = "mac"
) -> tuple[Row, ...]:
    """Candidates without accuracy evidence, most multiply-adds first: an order, not a claim about accuracy."""
    ordered = sorted(candidates, key=lambda each: (-(each.macs or 0), each.key))
    return tuple(
        Row(index + 1, each, None, (), _joined("no accuracy evidence", _spending(each, budgets, convention)))
        for index, each in enumerate(ordered)
    )


def untested(
    candidates: Sequence[Candidate],
    budgets: Sequence[Budget],
    predictor: Predictor,
    scale: Scale,
    convention: FlopConvention = "mac",
) -> list[Row]:
    """Candidates without evidence on the scale at their size: first those measured there at another size."""
    predictions = predictor.predict(candidates, scale)
    pairs = [(each, found) for each, found in zip(candidates, predictions, strict=True) if not found.evidence]
    pairs.sort(key=lambda pair: (*_promise(pair[0], pair[1], predictor), pair[0].key))
    return [
        Row(index + 1, each, found, (), _joined(_gap(each, found, predictor), _spending(each, budgets, convention)))
        for index, (each, found) in enumerate(pairs)
    ]


def _promise(candidate: Candidate, found: Prediction, predictor: Predictor) -> tuple[float, bool, int]:
    """Sort key: best figure at a nearby size, then the objectives that the paper found best, then size."""
    near = (
        row.miou_percent
        for row in predictor.rows(found.elsewhere)
        if row.height and max(row.height, candidate.resolution) <= NEARBY * min(row.height, candidate.resolution)
    )
    return -max(near, default=0.0), candidate.pretraining not in _PAPERS_BEST, -(candidate.macs or 0)


def _gap(candidate: Candidate, found: Prediction, predictor: Predictor) -> str:
    rows = sorted(predictor.rows(found.elsewhere), key=lambda row: -row.miou_percent)
    if not rows:
        return "no evidence for these weights on this scale"
    return f"no evidence at {candidate.resolution} px; {rows[0].miou_percent:.1f} mIoU was measured at {rows[0].size}"
