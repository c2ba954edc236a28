"""`luma recommend`: backbone, pretraining and resolution under any mix of budgets, with the evidence."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luma_cli.cli.options import (
    Convention,
    CostDevice,
    Database,
    Dataset,
    EvidenceDataset,
    Families,
    Flops,
    Head,
    HeadName,
    Licences,
    Pretrainings,
    Resolutions,
)

if TYPE_CHECKING:
    from luma_cli.advise.answer import Recommendation

_UNANSWERED = 1


class Objective(StrEnum):
    """What is wanted most."""

    miou = "miou"
    miou_per_ms = "miou-per-ms"
    knee = "knee"


def recommend(
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget", help="200gflops, 100gmacs, 50Mparams, 20ms, 30fps, 500img/s, 8GiB, 2J, 24gpuh; may repeat."
        ),
    ] = None,
    dataset: EvidenceDataset = Dataset.ade20k,
    objective: Annotated[Objective, typer.Option("--objective", help="What is wanted most.")] = Objective.miou,
    resolutions: Resolutions = None,
    family: Families = None,
    pretraining: Pretrainings = None,
    licence: Licences = None,
    top: Annotated[int, typer.Option("--top", help="How many rows.")] = 3,
    head: HeadName = Head.luma,
    device: CostDevice = None,
    why: Annotated[bool, typer.Option("--why", help="Each effect in mIoU points, and the nearest evidence.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Profile the five most promising here first, then answer.")
    ] = False,
    audit: Annotated[
        bool, typer.Option("--audit", help="How good the advisor is on rows it did not see, instead of an answer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, schema 2.")] = False,
    convention: Flops = Convention.mac,
    database: Database = None,
) -> None:
    """Recommend backbone, pretraining and resolution under a budget.

    GFLOPs and parameters are exact and include --head; ms, fps, img/s, GiB, J and GPU-hours are measured, shipped or
    predicted, and say which. A predicted cost must fit at the dear end of its 80% interval. mIoU is predicted from
    published results and your own runs. Exit code 1 when nothing can be recommended.
    """
    if audit:
        _audit(database, as_json)
        return
    from luma_cli.cli.garbage import uncollected

    with uncollected():
        from luma_cli.advise.api import recommend as answer
        from luma_cli.cli.measure_shortlist import Session
        from luma_cli.report.recommendation import print_recommendation

        ask: Callable[..., Recommendation] = partial(
            answer,
            budget or [],
            dataset=dataset.value,
            objective=objective.value,
            resolutions=resolutions or (),
            families=family or (),
            pretrainings=pretraining or (),
            licences=licence or (),
            head=head.value,
            device=device,
            convention=convention.value,
            database=database,
        )
        session = Session(ask, dataset.value, head.value, device, database)
        if measure:
            session.measure()
        found = session.first(top=top, with_reasons=why, may_ask=not (measure or as_json))
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1, allow_nan=False))
    else:
        print_recommendation(found)
        if not measure and session.offers():
            session.measure()
            found = ask(top=top, with_reasons=why)
            print_recommendation(found)
    if not found.rows:
        raise typer.Exit(_UNANSWERED)


def _audit(database: Path | None, as_json: bool) -> None:
    """Prints the audit of the model on all evidence, and of the transfer of speed."""
    from luma_cli.accuracy.audit import audit
    from luma_cli.evidence.table import load_evidence
    from luma_cli.report.audit import print_audit
    from luma_cli.speed.audit import audit as speed_audit

    found, speed = audit(load_evidence(database)), speed_audit()
    if as_json:
        typer.echo(json.dumps({**found.to_json(), "speed": speed.to_json()}, indent=1, allow_nan=False))
    else:
        print_audit(found, speed)
