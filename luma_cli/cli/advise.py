"""`luma recommend`, `front`, `next` and `estimate`: what to take, what to train, what one would score and cost."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from luma_cli.cli.options import (
    CostAxis,
    CostDevice,
    Database,
    Dataset,
    EvidenceDataset,
    Filters,
    Flops,
    Head,
    Json,
    OwnOnly,
    complete_backbone,
    spread,
    uncollected,
)
from luma_cli.errors import NothingMeasured, UsageError

if TYPE_CHECKING:
    from luma_cli.advise.recommend import Recommendation


_UNANSWERED = 1
# Enough rows of an answer to find five architectures and sizes among them.
_WIDE = 20

Objective = Literal["miou", "miou-per-ms", "knee"]


@spread
def recommend(
    budget: Annotated[
        list[str] | None,
        Option(help="200gflops, 100gmacs, 50Mparams, 20ms, 30fps, 500img/s, 8GiB, 2J, 24gpuh; may repeat."),
    ] = None,
    dataset: EvidenceDataset = "ade20k",
    objective: Annotated[Objective, Option(help="What is wanted most.")] = "miou",
    top: Annotated[int, Option(help="How many rows.")] = 3,
    device: CostDevice = None,
    *,
    filters: Filters,
    why: Annotated[bool, Option("--why", help="Each effect in mIoU points, and the nearest evidence.")] = False,
    measure: Annotated[
        bool, Option("--measure", help="Profile the five most promising here first, then answer.")
    ] = False,
    audit: Annotated[
        bool, Option("--audit", help="How good the advisor is on rows it did not see, instead of an answer.")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="Print JSON, schema 2.")] = False,
) -> None:
    """Recommend backbone, pretraining and resolution under a budget.

    GFLOPs and parameters are exact and include --head; ms, fps, img/s, GiB, J and GPU-hours are measured, shipped or
    predicted, and say which. A predicted cost must fit at the dear end of its 80% interval. mIoU is predicted from
    published results and your own runs. Exit code 1 when nothing can be recommended.
    """
    if audit:
        _audit(filters.database, as_json)
        return
    with uncollected():
        from luma_cli.advise.recommend import recommend as answer
        from luma_cli.report.recommendation import print_recommendation
        from luma_cli.report.table import print_json

        ask: Callable[..., Recommendation] = partial(
            answer,
            budget or [],
            dataset=dataset,
            objective=objective,
            resolutions=filters.resolutions or (),
            families=filters.family or (),
            pretrainings=filters.pretraining or (),
            licences=filters.licence or (),
            head=filters.head,
            device=device,
            convention=filters.convention,
            database=filters.database,
        )
        session = Consultation(ask, dataset, filters.head, device, filters.database)
        if measure:
            session.measure()
        found = session.first(top=top, with_reasons=why, may_ask=not (measure or as_json))
    if as_json:
        print_json(found)
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
    from luma_cli.report.table import print_json
    from luma_cli.speed.audit import audit as speed_audit
    from luma_cli.to_json import to_json

    found, speed = audit(load_evidence(database)), speed_audit()
    if as_json:
        print_json({**found.to_json(), "speed": to_json(speed)})
    else:
        print_audit(found, speed)


@dataclass(frozen=True, slots=True)
class Consultation:
    """A question that may be asked again after something was measured.

    ask: the question, taking `top` and `with_reasons`. device: as the user named it, None for none.
    """

    ask: Callable[..., Recommendation]
    dataset: str
    head: Head
    device: str | None
    database: Path | None

    def first(self, top: int, with_reasons: bool, may_ask: bool) -> Recommendation:
        """The answer; where nothing is known of the device, on a terminal, after measuring if the user agrees."""
        try:
            return self.ask(top=top, with_reasons=with_reasons)
        except NothingMeasured as nothing:
            if not (may_ask and self._is_here() and _agrees(f"{nothing}\nmeasure {nothing.name} here now?")):
                raise
        self.measure()
        return self.ask(top=top, with_reasons=with_reasons)

    def measure(self) -> None:
        """Measure the most promising candidates here, before that the anchor where nothing is known of the device."""
        from luma_cli.advise.recommend import shortlist

        here(self.device)
        try:
            found = self.ask(top=_WIDE)
        except NothingMeasured as nothing:
            self._profile([(nothing.name, nothing.resolution)])
            found = self.ask(top=_WIDE)
        wanted = shortlist(found)
        if not wanted:
            print("luma: --measure has nothing to measure: no budget asks for more than is known", file=sys.stderr)
        self._profile((each.name, each.resolution) for each in wanted)

    def offers(self) -> bool:
        """Whether there is something to measure here and the user, on a terminal, wants it now."""
        from luma_cli.advise.recommend import shortlist

        if not (_is_terminal() and self._is_here()):
            return False
        wanted = shortlist(self.ask(top=_WIDE))
        names = ", ".join(each.label for each in wanted)
        return bool(wanted) and _agrees(f"measure {names} here, a minute or more each, and answer again?")

    def _is_here(self) -> bool:
        return self.device is None or _is_local(self.device)

    def _profile(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Profile each name at its size with the question's head and classes, as `luma profile` does, and keep it."""
        from luma_cli.advise.candidates import num_classes
        from luma_cli.catalogue.heads import HeadConfig
        from luma_cli.measure.sweep import Settings, profile
        from luma_cli.report.progress import Progress

        by_resolution: dict[int, list[str]] = defaultdict(list)
        for name, resolution in wanted:
            by_resolution[resolution].append(name)
        head = HeadConfig(name=self.head, num_classes=num_classes(self.dataset))
        settings = Settings(device=here(self.device))
        with Progress(sys.stderr) as progress:
            for resolution, names in by_resolution.items():
                profile(names, resolution, head=head, settings=settings, database=self.database, on_event=progress)


def here(device: str | None) -> str:
    """The device of this machine that is to be measured. Raises UsageError for a name that is of another machine."""
    if device is None:
        return "auto"
    if not _is_local(device):
        raise UsageError(f"--measure measures this machine, but --device {device!r} names a model; try --device cuda")
    return device


def _is_local(device: str) -> bool:
    return device.partition(":")[0] in ("cpu", "cuda")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()


def _agrees(question: str) -> bool:
    return _is_terminal() and typer.confirm(question, default=False, err=True)


@spread
def front(
    axis: CostAxis = "gflops",
    dataset: EvidenceDataset = "ade20k",
    device: CostDevice = None,
    own_only: OwnOnly = False,
    *,
    filters: Filters,
    as_json: Json = False,
) -> None:
    """Show the learned front: best expected mIoU at each cost, with the chance of each candidate to be on it.

    A front stands on one dataset, one device and one set of measuring conditions. Rows of another compile mode, number
    format or environment are corrected by an offset or left out, and it says which.
    """
    from luma_cli.advise.front import front_of
    from luma_cli.report.front import print_front
    from luma_cli.report.table import print_json

    found = front_of(filters.question(dataset, device), axis, only_own=own_only, database=filters.database)
    if as_json:
        print_json(found)
    else:
        print_front(found)


@spread
def next_(
    hours: Annotated[float | None, Option("--budget-hours", help="GPU-hours that the runs may take together.")] = None,
    budget: Annotated[
        list[str] | None,
        Option(help="Of the model, e.g. 200gflops: runs for the recommendation under it; may repeat."),
    ] = None,
    dataset: Annotated[Dataset, Option(help="Dataset to train on.")] = "ade20k",
    top: Annotated[int, Option(help="How many runs at most.")] = 3,
    device: Annotated[str | None, Option(help="Device that trains: cuda or part of its name.")] = None,
    *,
    filters: Filters,
    as_json: Json = False,
) -> None:
    """Say what to train next, by what each run is expected to add for what it costs.

    Without --budget: expected gain of the front's hypervolume per GPU-hour. With it: expected drop in regret of what
    luma recommend says under it. Each run is an exact luma train line.
    """
    from luma_cli.advise.next import next_runs
    from luma_cli.report.front import print_next
    from luma_cli.report.table import print_json

    question = filters.question(dataset, device, budget or ())
    found = next_runs(question, hours=hours, top=top, database=filters.database)
    if as_json:
        print_json(found)
    else:
        print_next(found)


def estimate(
    name: Annotated[
        str | None, Argument(help="Backbone: a card's or timm's name, or a paper's.", autocompletion=complete_backbone)
    ] = None,
    resolution: Annotated[str, Option("--res", help="Crop in pixels: 512 or 512x1024.")] = "",
    dataset: Annotated[str, Option(help="Dataset of the accuracy.")] = "ade20k",
    head: Annotated[str, Option(help="luma, eomt, upernet, mask2former, linear (frozen) ...")] = "luma",
    pretraining: Annotated[str, Option(help="Objective, e.g. dinov3; else by the tag.")] = "",
    evaluation: Annotated[str, Option("--eval", help="single-scale or ms+flip.")] = "single-scale",
    file: Annotated[
        Path | None, Option("--from", help="CSV: dataset, backbone, pretraining, resolution, head, eval; one row each.")
    ] = None,
    device: Annotated[str | None, Option(help="Device of time and memory: measured here or shipped.")] = None,
    as_json: Json = False,
    convention: Flops = "mac",
    database: Database = None,
) -> None:
    """Estimate the mIoU of a segmenter on its own head's scale, and what it costs.

    Intervals of 50, 80 and 90% are of one training run. Costs are exact, measured or predicted, and say which.
    """
    from luma_cli.advise.estimate import Asked, estimate_all, read_asked
    from luma_cli.report.estimates import print_estimates
    from luma_cli.report.table import print_json

    if (name is None) == (file is None):
        raise UsageError("give one backbone or --from FILE.csv, e.g. luma estimate vit_b.dinov3 --res 512")
    if file is not None:
        asked = read_asked(file)
    else:
        asked = [Asked(dataset, name or "", pretraining, resolution, head, evaluation)]
    found, note = estimate_all(asked, device=device, database=database)
    if as_json:
        print_json({"schema": 1, "estimates": [each.to_json() for each in found]})
    else:
        print_estimates(found, note, convention)
    if file is None and found[0].prediction is None:
        raise typer.Exit(1)
