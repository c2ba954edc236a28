"""Which backbone, pretraining and resolution under a budget: from candidates, evidence and measured rows to an answer.

Everything it works on is an argument; what is left out is read from the shipped tables. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from luma_cli.advise import budgets as held
from luma_cli.advise.answer import Ranking, Recommendation, Row
from luma_cli.advise.candidates import RESOLUTIONS, Candidate, build, check_families, num_classes, on_bench
from luma_cli.advise.own_runs import judge, settled, with_own
from luma_cli.advise.predictor import LookupPredictor, Predictor
from luma_cli.advise.question import Question
from luma_cli.advise.ranking import rank, rank_by_size, untested
from luma_cli.advise.scales import by_preference
from luma_cli.errors import NoAnswer, UsageError
from luma_cli.evidence.evidence import Evidence, Scale, load_reference
from luma_cli.evidence.own_run import OwnRow, OwnRun
from luma_cli.head.config import HeadName
from luma_cli.speed.measured import Bench, Measured
from luma_cli.units import Budget, FlopConvention, convention_caption, parse_budget

_ASKED = -1  # before every other preference
_NUM_OTHER_SCALES, _ROWS_PER_OTHER_SCALE, _NUM_UNTESTED = 3, 3, 5


def recommend(
    budgets: Sequence[str | Budget],
    *,
    dataset: str = "ade20k",
    resolutions: Sequence[int] = (),
    families: Sequence[str] = (),
    top: int = 5,
    head: HeadName = "luma",
    device: str | None = None,
    convention: FlopConvention = "mac",
    candidates: Sequence[Candidate] | None = None,
    evidence: Sequence[Evidence] | None = None,
    own: Sequence[Evidence] = (),
    own_runs: Sequence[OwnRun] = (),
    measured: Sequence[Measured] = (),
    predictor: Predictor | None = None,
) -> Recommendation:
    """The best candidates that meet every budget, on one named scale of accuracy.

    budgets: as `200gflops` or parsed; a candidate must meet them all, and of several in one unit the tightest binds.
    resolutions, families: empty for any. head: on every candidate, costs and measured rows are with it. own: results of
    the user's own, preferred to `evidence`. own_runs: the user's runs; comparable ones are such results, and all are in
    the answer. measured: rows that budgets in time, rate, memory or energy are held against. candidates,
    evidence: from the shipped tables when None. predictor: a lookup in own + evidence when None.

    Raises NoAnswer when nothing meets the budgets or nothing was measured that could tell; UsageError otherwise.

    >>> recommend(["200gflops"], resolutions=[512]).rows[0].candidate.resolution  # doctest: +SKIP
    512
    """
    if top < 1:
        raise UsageError(f"top is {top}, expected at least 1")
    num_classes(dataset)
    asked = held.tightest(parse_budget(each, convention) if isinstance(each, str) else each for each in budgets)
    question = Question(dataset, asked, tuple(resolutions), check_families(families), convention, device, head)
    judged = judge(own_runs, question)
    comparable = [row.run.evidence for row in judged if not row.why_not]
    facts = [*own, *comparable, *(load_reference() if evidence is None else evidence)]
    chooser = predictor or LookupPredictor(facts)
    shipped = candidates is None
    pool = load_candidates(dataset, resolutions, question.is_measured, head) if shipped else list(candidates or ())
    pool = with_own(pool, judged)
    bench = question.bench(pool, measured, chooser) if question.is_measured else None
    everything = on_bench(pool, bench) if bench else pool
    eligible = question.eligible(everything)
    within = [each for each in eligible if held.fits(each, asked)]
    if not within:
        raise NoAnswer(question.unmet(eligible))
    notes = [
        *_head_notes(question),
        *_cost_notes(question, eligible),
        *_bench_notes(bench, dataset, device),
        *_luma_notes(facts, dataset),
    ]
    return _answer(question, within, chooser, top, bench, notes, settled(judged, within, everything, question))


def load_candidates(
    dataset: str, resolutions: Sequence[int] = (), any_resolution: bool = False, head: HeadName = "luma"
) -> list[Candidate]:
    """Every card, pretraining and resolution of the shipped tables that takes the head, without public weights too.

    any_resolution: sizes that the cost table lacks are no error, because measured rows bring their own counts. Raises
    NoAnswer without a cost table.
    """
    from luma_cli.catalogue.cards import candidates
    from luma_cli.catalogue.costs import load_costs

    costs = load_costs()
    if not costs:
        raise NoAnswer("the cost table profiles/costs.csv is missing or empty; reinstall luma, or run make costs")
    sizes = tuple(resolutions or RESOLUTIONS)
    if any_resolution:
        known = {resolution for _, resolution in costs}
        sizes = tuple(size for size in sizes if size in known) or RESOLUTIONS
    return build(candidates(), costs, dataset, sizes, head)


def _answer(
    question: Question,
    within: Sequence[Candidate],
    predictor: Predictor,
    top: int,
    bench: Bench | None,
    notes: Sequence[str],
    measured_here: tuple[OwnRow, ...],
) -> Recommendation:
    any_own = any(row.run.head.name == "luma" for row in measured_here)
    budgets, convention = question.budgets, question.convention
    rankings = by_preference(
        [
            (_preference(question, scale, usual), rank(within, budgets, predictor, scale, convention))
            for usual, scale in predictor.scales(question.dataset)
        ]
    )
    best = rankings[0] if rankings else None
    rows = best.rows if best else rank_by_size(within, budgets, convention)
    rest = untested(within, budgets, predictor, best.scale, convention) if best else []
    return Recommendation(
        dataset=question.dataset,
        budgets=budgets,
        ranked_by="miou_percent" if best else "macs",
        scale=best.scale if best else None,
        rows=rows[:top],
        num_within_budget=len(within),
        num_dominated=best.num_dominated if best else 0,
        other_scales=tuple(_shortened(each) for each in rankings[1 : 1 + _NUM_OTHER_SCALES]),
        num_without_evidence=len(rest) if best else len(within),
        without_evidence=tuple(_one_per_weights(rest)[:_NUM_UNTESTED]),
        conditions=bench.conditions if bench else None,
        notes=(_scale_note(best, question.dataset, question.head, any_own), *notes),
        measured_here=measured_here,
    )


def _preference(question: Question, scale: Scale, usual: int) -> int:
    """Figures of another head than LUMA that is asked for come before all others."""
    return _ASKED if question.head != "luma" and scale.head == question.head else usual


def _shortened(ranking: Ranking) -> Ranking:
    return Ranking(
        ranking.scale,
        ranking.rows[:_ROWS_PER_OTHER_SCALE],
        ranking.num_with_evidence,
        ranking.num_figures,
        ranking.num_dominated,
    )


def _one_per_weights(rows: Sequence[Row]) -> list[Row]:
    """The first row of each checkpoint."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.candidate.timm_name, row)
    return list(first.values())


def _head_notes(question: Question) -> list[str]:
    if question.head == "luma":
        return []
    return [f"costs are with head {question.head}; backbones that it cannot be attached to are left out"]


def _scale_note(best: Ranking | None, dataset: str, head: HeadName, any_own: bool) -> str:
    if best is None:
        return (
            f"no accuracy evidence on {dataset} for any candidate within budget; ranked by GMACs, which is no accuracy"
        )
    if best.scale.head == head:
        return f"accuracy: {best.scale.label}"
    unseen = "own LUMA runs stand apart" if any_own else "no LUMA run seen"
    other = unseen if head == "luma" else f"it was not measured with head {head}"
    return f"accuracy on the scale of {best.scale.label}; {other}"


def _cost_notes(question: Question, eligible: Sequence[Candidate]) -> list[str]:
    notes = []
    if any(budget.kind == "macs" for budget in question.budgets):
        notes.append(f"{convention_caption(question.convention)}; whole segmenter on one square crop")
    uncounted = sum(each.macs is None for each in eligible)
    if uncounted and any(budget.kind == "macs" for budget in question.budgets):
        notes.append(f"{uncounted} candidates left out: their multiply-adds are only known as a lower bound")
    return notes


def _bench_notes(bench: Bench | None, dataset: str, device: str | None) -> list[str]:
    if bench is None:
        return [f"device {device} is not used: no budget in time, rate, memory or energy"] if device else []
    notes = [f"measured on {bench.conditions.label}; batch-1 eager latency, plateau throughput"]
    if bench.num_left_out:
        notes.append(f"{bench.num_left_out} rows measured under other conditions, or since repeated, were left out")
    if bench.conditions.num_classes != num_classes(dataset):
        notes.append(f"measured with {bench.conditions.num_classes} classes, {dataset} has {num_classes(dataset)}")
    if bench.flagged:
        flags = sorted({flag for row in bench.flagged for flag in row.flags})
        notes.append(f"{len(bench.flagged)} rows flagged {' or '.join(flags)} were left out; repeat them with --again")
    noisy = sorted({row.name for row in bench.rows if row.noisy})
    if noisy:
        notes.append(f"noisy measurements: {', '.join(noisy)}; repeat them with --again")
    return notes


def _luma_notes(facts: Sequence[Evidence], dataset: str) -> list[str]:
    published = [row for row in facts if row.provenance == "published LUMA" and row.dataset == dataset]
    return [
        f"published LUMA figure {row.miou_percent:g} ({row.backbone}) supports no candidate: {row.size}"
        for row in published
        if row.height is None
    ]
