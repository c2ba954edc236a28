"""`luma recommend`, `front`, `next` and `estimate`: which backbone to use, what to train, what to expect."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from luma_cli.cli.options import (
    CostAxis,
    CostDevice,
    Database,
    Dataset,
    DeviceFile,
    EvidenceDataset,
    Filters,
    Flops,
    Head,
    Json,
    Objective,
    OwnOnly,
    complete_backbone,
    print_answer,
    read_device,
    spread,
    uncollected,
)
from luma_cli.errors import NothingMeasured, UsageError

if TYPE_CHECKING:
    from luma_cli.advise.recommend import Recommendation


@spread
def recommend(
    budget: Annotated[
        list[str] | None,
        Option(help="200gflops, 400gflops/image, 50Mparams, 20ms, 30fps, 500img/s, 8GiB or 2J; may repeat."),
    ] = None,
    dataset: EvidenceDataset = "ade20k",
    objective: Annotated[Objective, Option(help="What to maximise.")] = "miou",
    top: Annotated[int, Option(help="Most rows.")] = 5,
    device: CostDevice = None,
    device_spec: DeviceFile = None,
    *,
    filters: Filters,
    why: Annotated[
        bool, Option("--why", help="Show all reasons: effects, results, chances, what else was considered.")
    ] = False,
    why_not: Annotated[
        str | None,
        Option("--why-not", help="Show where this backbone stands instead.", autocompletion=complete_backbone),
    ] = None,
    measure: Annotated[bool, Option("--measure", help="Profile the shown candidates here, then answer.")] = False,
    audit: Annotated[
        bool, Option("--audit", help="Show the advisor's errors on results that were left out, instead of an answer.")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="Print JSON, schema 3.")] = False,
) -> None:
    """Recommend backbone, pretraining and resolution under a budget.

    mIoU is predicted from published results and your own runs; models with results come before guesses. Budgets are of
    one crop; /image, or rates with --image, are of whole images. GFLOPs and parameters are exact and include the head.
    A predicted cost must fit with its whole 80% interval. Exit code 1 when nothing can be recommended.

    Example: luma recommend --budget 200gflops --budget 20ms
    """
    if audit:
        _audit(filters.database, as_json)
        return
    with uncollected():
        from luma_cli.advise.recommend import answer
        from luma_cli.report.recommendation import print_recommendation

        question = filters.question(dataset, device, budget or (), objective, device_spec)
        ask: Callable[..., Recommendation] = partial(answer, question, database=filters.database)
        if why_not is not None:
            from luma_cli.advise.why_not import why_not as explain
            from luma_cli.report.recommendation import print_why_not

            print_answer(explain(question, why_not, filters.database), as_json, print_why_not)
            return
        session = Consultation(ask, dataset, filters.head, device, filters.database, top)
        if measure:
            session.measure()
        found = session.first(top=top, with_reasons=why, may_ask=not (measure or as_json))
    print_answer(found, as_json, partial(print_recommendation, why=why))
    if not (as_json or measure) and session.offers():
        session.measure()
        found = ask(top=top, with_reasons=why)
        print_recommendation(found, why=why)
    if not found.rows:
        raise typer.Exit(1)


def _audit(database: Path | None, as_json: bool) -> None:
    """Print the audit of the model of accuracy on all evidence, and of the transfer of speed between devices."""
    from luma_cli.accuracy.audit import audit
    from luma_cli.advise.candidates import NUM_CLASSES
    from luma_cli.advise.sweep import sweep
    from luma_cli.evidence.table import load_evidence
    from luma_cli.report.audit import print_audit
    from luma_cli.report.table import print_json
    from luma_cli.speed.audit import audit as speed_audit
    from luma_cli.to_json import to_json

    found, speed = audit(load_evidence(database)), speed_audit()
    swept = {dataset: sweep(dataset, database=database) for dataset in NUM_CLASSES}
    if as_json:
        print_json({**found.to_json(), "speed": to_json(speed), "first_answers": to_json(swept)})
    else:
        print_audit(found, speed, swept)


@dataclass(frozen=True, slots=True)
class Consultation:
    """A question, asked by `ask(top=, with_reasons=)`, that may be asked again after a measurement."""

    ask: Callable[..., Recommendation]
    dataset: str
    head: Head
    device: str | None
    database: Path | None
    top: int

    def first(self, top: int, with_reasons: bool, may_ask: bool) -> Recommendation:
        """The answer; if the device is unknown and the user agrees on a terminal, after a measurement."""
        try:
            return self.ask(top=top, with_reasons=with_reasons)
        except NothingMeasured as nothing:
            if not (may_ask and self._is_here() and _agrees(f"{nothing}\nmeasure {nothing.name} here now?")):
                raise
        self.measure()
        return self.ask(top=top, with_reasons=with_reasons)

    def measure(self) -> None:
        """Measure the shown candidates here; on an unknown device first the anchor of its speed."""
        from luma_cli.advise.recommend import shortlist

        here(self.device)
        try:
            found = self.ask(top=self.top)
        except NothingMeasured as nothing:
            self._profile([(nothing.name, nothing.resolution)])
            found = self.ask(top=self.top)
        wanted = shortlist(found)
        if not wanted:
            print("luma: nothing to measure: every cost in the budgets is known already", file=sys.stderr)
        self._profile((each.name, each.resolution) for each in wanted)

    def offers(self) -> bool:
        """Whether there is something to measure here and the user, on a terminal, agrees."""
        from luma_cli.advise.recommend import shortlist

        if not (_is_terminal() and self._is_here()):
            return False
        wanted = shortlist(self.ask(top=self.top))
        names = ", ".join(each.label for each in wanted)
        return bool(wanted) and _agrees(f"measure {names} here, a minute or more each, and answer again?")

    def _is_here(self) -> bool:
        return self.device is None or _is_local(self.device)

    def _profile(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Profile each name at its size with the question's head and classes, as `luma profile` does."""
        from luma_cli.advise.candidates import num_classes
        from luma_cli.catalogue.heads import HeadConfig
        from luma_cli.measure.sweep import SweepSettings, profile
        from luma_cli.report.progress import Progress

        by_resolution: dict[int, list[str]] = defaultdict(list)
        for name, resolution in wanted:
            by_resolution[resolution].append(name)
        head = HeadConfig(name=self.head, num_classes=num_classes(self.dataset))
        settings = SweepSettings(device=here(self.device))
        with Progress(sys.stderr) as progress:
            for resolution, names in by_resolution.items():
                profile(names, resolution, head=head, settings=settings, database=self.database, on_event=progress)


def here(device: str | None) -> str:
    """The device of this machine to measure. Raises UsageError for a device that is named, not addressed."""
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
    device_spec: DeviceFile = None,
    own_only: OwnOnly = False,
    *,
    filters: Filters,
    as_json: Json = False,
) -> None:
    """Show the best expected mIoU at each cost.

    A front is for one dataset and one device, and gives each candidate's probability to be on it. Profiles of another
    compile mode, number format or environment are corrected by an offset or left out; notes say which.

    Example: luma front --x latency --device 'RTX 4090'
    """
    from luma_cli.advise.front import front_of
    from luma_cli.report.front import print_front

    found = front_of(
        filters.question(dataset, device, spec_file=device_spec), axis, only_own=own_only, database=filters.database
    )
    print_answer(found, as_json, print_front)


@spread
def compare(
    names: Annotated[list[str], Argument(help="Two or more backbones.", autocompletion=complete_backbone)],
    dataset: EvidenceDataset = "ade20k",
    device: CostDevice = None,
    device_spec: DeviceFile = None,
    *,
    filters: Filters,
    as_json: Json = False,
) -> None:
    """Compare backbones: mIoU, cost, licence, evidence, and the probability that one is better.

    All at one size: 512 px on ADE20K, 1024 px on Cityscapes, or --res. With --device also latency and memory.

    Example: luma compare vit_b.dinov3 eva02_b.eva02 swin_b
    """
    from luma_cli.advise.compare import compare as compared
    from luma_cli.report.compare import print_comparison

    question = filters.question(dataset, device, spec_file=device_spec)
    print_answer(compared(question, names, filters.database), as_json, print_comparison)


@spread
def next_(
    hours: Annotated[float | None, Option("--budget-hours", help="GPU-hours for all runs together.")] = None,
    budget: Annotated[
        list[str] | None,
        Option(help="Budget of the model, e.g. 200gflops, for runs that improve its recommendation; may repeat."),
    ] = None,
    dataset: Annotated[Dataset, Option(help="Dataset to train on.")] = "ade20k",
    top: Annotated[int | None, Option(help="Most runs. \\[default: 3, or as many as fill the hours]")] = None,
    explore: Annotated[
        bool, Option("--explore", help="Also backbones without results of their series, and sizes below 384 px.")
    ] = False,
    device: Annotated[str | None, Option(help="Device that trains: cuda or part of a name.")] = None,
    device_spec: DeviceFile = None,
    *,
    filters: Filters,
    as_json: Json = False,
) -> None:
    """Propose the next training runs, by gain per GPU-hour.

    Without --budget the gain is that of the front, with it that of the recommendation. Runs fill --budget-hours.

    Example: luma next --budget-hours 100 --budget 200gflops
    """
    from luma_cli.advise.next import next_runs
    from luma_cli.report.front import print_next

    question = filters.question(dataset, device, budget or (), spec_file=device_spec)
    print_answer(
        next_runs(question, hours=hours, top=top, explore=explore, database=filters.database), as_json, print_next
    )


def estimate(
    name: Annotated[
        str | None, Argument(help="Card, timm name or a paper's name.", autocompletion=complete_backbone)
    ] = None,
    resolution: Annotated[str, Option("--res", help="Crop in pixels: 512 or 512x1024.")] = "",
    dataset: Annotated[str, Option(help="Dataset of the accuracy.")] = "ade20k",
    head: Annotated[str, Option(help="luma, eomt, upernet, mask2former, linear (frozen) ...")] = "luma",
    pretraining: Annotated[str, Option(help="Objective, e.g. dinov3. \\[default: from the name]")] = "",
    evaluation: Annotated[str, Option("--eval", help="single-scale or ms+flip.")] = "single-scale",
    file: Annotated[
        Path | None, Option("--from", help="CSV file: dataset, backbone, pretraining, resolution, head, eval.")
    ] = None,
    device: CostDevice = None,
    device_spec: DeviceFile = None,
    as_json: Json = False,
    convention: Flops = "mac",
    database: Database = None,
) -> None:
    """Estimate the mIoU of one training run, and its costs.

    Example: luma estimate vit_b.dinov3 --res 512 --head eomt
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
    spec = read_device(device, device_spec)
    found, note = estimate_all(asked, device=device, device_spec=spec, database=database)
    if as_json:
        print_json({"schema": 1, "estimates": [each.to_json() for each in found]})
    else:
        print_estimates(found, note, convention)
    if file is None and found[0].prediction is None:
        raise typer.Exit(1)
