"""The audit as tables: error, order and intervals on rows left out, regret of choices, and transfer of speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luma_cli.accuracy.audit import Audit
from luma_cli.accuracy.regret import MODEL
from luma_cli.advise.sweep import SweptBudget, reversals, share_of_guesses
from luma_cli.report.table import Table, columns, print_table
from luma_cli.speed.audit import NUM_MEASURED, Error, SpeedAudit

_REGIMES = {"fine-tuned": "Fine-tuned heads", "frozen": "Frozen probes, a regime of their own"}


def print_audit(found: Audit, speed: SpeedAudit, swept: Mapping[str, Sequence[SweptBudget]]) -> None:
    """Prints the audit to stdout."""
    for table in tables(found, speed, swept):
        print_table(table)


def tables(found: Audit, speed: SpeedAudit, swept: Mapping[str, Sequence[SweptBudget]]) -> list[Table]:
    """The audit's tables: accuracy by regime, regrets, first answers by budget for each dataset, speed."""
    regimes = [regime for regime in _REGIMES if any(score.regime == regime for score in found.scores)]
    return [
        *(_accuracy(found, regime) for regime in regimes),
        *([_unseen(found)] if found.unseen else []),
        *([_regrets(found)] if found.regrets else []),
        *(_answers(dataset, budgets) for dataset, budgets in swept.items()),
        _transfer(speed),
        _upsizing(speed),
        _specified(speed),
    ]


def _accuracy(found: Audit, regime: str) -> Table:
    scores = [score for score in found.scores if score.regime == regime]
    learned = "variance components learned without a fifth of the backbones, five times" if found.relearned else (
        "variance components as shipped")  # fmt: skip
    rows = []
    for score in scores:
        tau = "-" if score.tau is None else f"{score.tau:.2f} ({score.num_groups})"
        count = f"{score.num} of {score.num + score.num_kept}" if score.num_kept else str(score.num)
        inside = "/".join(f"{100 * share:.0f}" for share in score.coverage)
        errors = (f"{score.mae:.2f}", f"{score.rmse:.2f}", f"{score.bias:+.2f}")
        rows.append((score.left_out, score.dataset, count, *errors, tau, inside))
    return Table(
        columns("left out", "dataset", "rows>", "MAE>", "RMSE>", "bias>", "tau (groups)>", "in 50/80/90%>"),
        tuple(rows),
        f"{_REGIMES[regime]}: mIoU predicted without all rows of the same ...",
        f"errors in mIoU points; tau: Kendall's within one head and protocol; widths cross-fitted; {learned}",
        merge=1,
    )


def _unseen(found: Audit) -> Table:
    rows = [
        (each.objective, each.dataset, str(each.num), f"{each.bias:+.1f}", f"{100 * each.inside_80:.0f}%")
        for each in found.unseen
    ]
    return Table(
        columns("objective", "dataset", "rows>", "bias>", "in 80%>"),
        tuple(rows),
        "Pretraining objectives as if no row had shown them",
        "fine-tuned; bias: predicted minus measured, mean in mIoU points; rows inside the 80% interval that luma gives",
    )


def _regrets(found: Audit) -> Table:
    rows = [
        (dataset, name, f"{regret.at_1:.2f}", f"{regret.at_3:.2f}", str(regret.num))
        for dataset, by_rule in found.regrets.items()
        for name, regret in by_rule.items()
    ]
    least = "; ".join(
        f"least for {'the model' if rule == MODEL else rule} on "
        + " and ".join(dataset for dataset, winner in found.winners.items() if winner == rule)
        for rule in dict.fromkeys(found.winners.values())
    )
    return Table(
        columns("dataset", "rule", "regret@1>", "regret@3>", "budgets>"),
        tuple(rows),
        "Regret: mIoU lost by a rule's choice under a budget, backbones left out",
        f"seven budgets in each head and protocol with five backbones or more; {least}",
        merge=1,
    )


def _answers(dataset: str, swept: Sequence[SweptBudget]) -> Table:
    rows = []
    for each in swept:
        first = each.first
        if first is None:
            rows.append((f"{each.gflops:,.4g}", "nothing", "", "", ""))
            continue
        evidence = first.prediction.support.standing + (", extrapolated" if each.is_guess else "")
        miou = f"{first.prediction.miou_percent:.1f}"
        name, size = first.candidate.title, str(first.candidate.resolution)
        rows.append((f"{each.gflops:,.4g}", name, size, miou, evidence))
    back = reversals(swept)
    return Table(
        columns("GFLOPs of a crop>", "first answer", "px>", "mIoU>", "evidence"),
        tuple(rows),
        f"First answers on {dataset} over {len(swept)} budgets",
        f"{100 * share_of_guesses(swept):.1f}% of the first answers are extrapolated; a wider budget goes back to a "
        f"backbone that a narrower one had left {back} time{'' if back == 1 else 's'}",
    )


def _transfer(speed: SpeedAudit) -> Table:
    rows = []
    for each in speed.transfers:
        device = _device(each.setting) + ("" if each.has_class else " (alone in its class)")
        rows.append((device, each.anchor, *map(_error, each.errors.values())))
    rows.append(("all that share a class", "", *map(_error, speed.pooled.values())))
    return Table(
        columns("device left out", "measured first", *(f"{count} measured>" for count in NUM_MEASURED)),
        tuple(rows),
        "Throughput carried over to a device that was left out",
        "median relative error in percent; in brackets, shares inside the 80 and 90% intervals; classifiers",
    )


def _upsizing(speed: SpeedAudit) -> Table:
    rows = [
        (_device(name), *(_error(each, each.num if each else 0) for each in errors))
        for name, errors in speed.upsizing.items()
    ]
    return Table(
        columns("device", "networks seen smaller>", "networks not seen>"),
        tuple(rows),
        "Throughput at 512 px and more when only sizes below 384 px were seen",
        "median relative error in percent (shares inside 80 and 90% intervals), and how many; no head in this table",
    )


def _specified(speed: SpeedAudit) -> Table:
    rows = [
        ("throughput of classifiers", _device(name), _error(each, each.num)) for name, each in speed.specified.items()
    ]
    rows += [("published latencies", name, _error(each, each.num)) for name, each in speed.published.items()]
    return Table(
        columns("what", "device left out", "by its specification>"),
        tuple(rows),
        "A device that was left out, predicted from its specification alone",
        "median relative error in percent (shares inside 80 and 90% intervals), and how many",
    )


def _device(setting: str) -> str:
    """Device, precision, layout, compiler and torch as words, between which a narrow cell can break."""
    return setting.replace("/", " ")


def _error(error: Error | None, count: int = 0) -> str:
    if error is None:
        return "none"
    text = f"{error.median_percent:.1f}% ({error.coverage_80:.2f}, {error.coverage_90:.2f})"
    return f"{text}, n = {count}" if count else text
