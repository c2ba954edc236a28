"""Exact cost of a segmenter: from the shipped table, else the cache, else counted once in a worker. No torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from luma_cli import errors, files
from luma_cli.catalogue.costs import BackboneFacts, load_costs
from luma_cli.catalogue.head_cost import (
    eomt_plan_from_facts,
    head_macs,
    head_params,
    knows_blocks,
    knows_joint_blocks,
    knows_levels,
    plan_from_facts,
)
from luma_cli.catalogue.heads import HeadConfig, HeadName, needs_blocks
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.rules import check_resolution, load_rules
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.catalogue.timm_index import load_index
from luma_cli.measure.imports import combined_hash, find
from luma_cli.store.records import Configuration
from luma_cli.units import FlopConvention, gflops, gmacs

if TYPE_CHECKING:
    from luma_cli.measure.runner import Trouble

Source = Literal["table", "cache", "counted"]
NUM_COUNTING = 2  # worker processes, of one thread each, where many backbones are counted
COUNT_VERSION = 3  # raise when formulas, the known zeros or the facts change: older cache files are then ignored
_COUNT_SECONDS = 600.0  # a card's whole size at six resolutions takes under ten
_MOVING_SOURCES = frozenset({"hf-hub", "local-dir"})  # the model behind such a name may change
_FACTS = (
    *("macs", "params", "backbone_macs", "head_macs", "backbone_params", "head_params", "active_params"),
    *("activations", "width", "stride", "num_tokens", "ffn", "l2"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Multiply-adds and parameters of one segmenter on one square image of `resolution` pixels.

    The query pass through a reused FFN belongs to `head_macs`, its parameters to `backbone_params`.
    backbone_active_params: those that one token meets, fewer only in a mixture of experts.
    activations: output elements of the backbone's convolutions, linear layers and matrix products.
    l2: blocks that queries meet, 0 for a head without queries.
    complete: whether every operator is known; if not, `macs` is a lower bound, to be shown with `>=`.
    """

    backbone: str
    architecture: str
    resolution: int
    head: HeadConfig
    backbone_macs: int
    head_macs: int
    backbone_params: int
    backbone_active_params: int
    head_params: int
    activations: int
    width: int
    stride: int
    num_tokens: int
    ffn: Literal["reused", "fresh", "none"]
    l2: int
    complete: bool
    unknown_ops: tuple[str, ...]
    timm: str
    source: Source

    @property
    def macs(self) -> int:
        """Multiply-adds of the whole segmenter."""
        return self.backbone_macs + self.head_macs

    @property
    def params(self) -> int:
        """Parameters of the whole segmenter, shared ones once."""
        return self.backbone_params + self.head_params

    @property
    def active_params(self) -> int:
        """Parameters of the whole segmenter that one token or query meets."""
        return self.backbone_active_params + self.head_params

    @property
    def gmacs(self) -> float:
        """Multiply-adds of the whole segmenter / 10^9."""
        return gmacs(self.macs)

    def gflops(self, convention: FlopConvention = "mac") -> float:
        """GFLOPs of the whole segmenter under `convention`."""
        return gflops(self.macs, convention)

    def as_facts(self, *, head_alone: bool = False) -> dict[str, Any]:
        """The numbers under a stored profile's names; `macs` and `params` are of the part that runs."""
        facts = {name: getattr(self, name) for name in _FACTS}
        if head_alone:
            facts |= {"macs": self.head_macs, "params": self.head_params}
        tap = self.head.tap if self.head.name == "luma" else None
        return {**facts, "tap": tap, "flops_complete": self.complete, "unknown_ops": list(self.unknown_ops)}


@dataclass(frozen=True, slots=True)
class CountJob:
    """Count the facts of a backbone at one resolution (px), or with a head the cost of the segmenter."""

    spec: BackboneSpec
    resolution: int
    head: HeadConfig | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a backbone could not be counted: the name of an error in `errors.py` and its message."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: errors.LumaError) -> Refusal:
        """The refusal that `error` becomes between processes."""
        return cls(type(error).__name__, str(error))

    def error(self) -> errors.LumaError:
        """The error itself; a MeasureError if `errors.py` does not have its kind."""
        kind: type[errors.LumaError] | None = getattr(errors, self.kind, None)
        return kind(self.message) if kind else errors.MeasureError(f"{self.kind}: {self.message}")


Answer = BackboneFacts | Refusal


def cache_folder() -> Path:
    """Where counted facts are kept, one JSON file per backbone and resolution."""
    return files.user_folder("cache") / "costs"


@dataclass(frozen=True, slots=True)
class CostSources:
    """Where facts may come from: the shipped table, a cache folder, and what counts the rest."""

    table: Mapping[tuple[str, int], BackboneFacts] = field(default_factory=load_costs)
    cache: Path = field(default_factory=cache_folder)
    counter: Callable[[Sequence[CountJob], Sequence[str]], Sequence[Answer]] | None = None


def cost(
    name: str | BackboneSpec,
    resolution: int = 512,
    head: HeadConfig | HeadName = HeadConfig(),  # noqa: B008  (frozen)
    *,
    imports: Sequence[str] = (),
    sources: CostSources | None = None,
) -> Cost:
    """The cost of `name` with `head` on one image of `resolution` x `resolution` pixels.

    imports: modules or files that register own backbones. Raises UnknownName, BadResolution, BuildError, MeasureError.

    >>> cost("vit_base_patch16_224", 512, HeadConfig(name="none")).macs  # doctest: +SKIP
    107027122176
    """
    if not isinstance(name, (str, BackboneSpec)):
        given = type(name).__name__
        raise errors.UsageError(f"cost() takes a name, got {given}; for a module use segmenter_cost(build(...))")
    answer = costs([(name, resolution)], head, imports=imports, sources=sources)[0]
    if isinstance(answer, Refusal):
        raise answer.error()
    return answer


def costs(
    wanted: Sequence[tuple[str | BackboneSpec, int]],
    head: HeadConfig | HeadName = HeadConfig(),  # noqa: B008  (frozen)
    *,
    imports: Sequence[str] = (),
    sources: CostSources | None = None,
) -> list[Cost | Refusal]:
    """Costs in the order wanted; one process counts all that neither table nor cache holds.

    What cannot be counted is a Refusal, so that one does not hide the others.
    """
    sources, head = sources or CostSources(), HeadConfig.of(head)
    imports_hash = combined_hash([find(item) for item in imports])
    jobs = []
    for name, resolution in wanted:
        spec = name if isinstance(name, BackboneSpec) else resolve(name, imported=bool(imports))
        jobs.append(CountJob(spec, resolution))
    found = [_look_up(job, imports_hash, sources, head) for job in jobs]
    missing = [index for index, hit in enumerate(found) if hit is None]
    if missing:
        answers = (sources.counter or count_in_process)([jobs[index] for index in missing], imports)
        for index, answer in zip(missing, answers, strict=True):
            found[index] = (answer, "counted")
            if isinstance(answer, BackboneFacts):
                _keep(_cache_file(sources.cache, jobs[index], imports_hash), answer)
    return [_cost(job, *hit, head) for job, hit in zip(jobs, found, strict=True) if hit]


def recount(
    wanted: Sequence[tuple[BackboneSpec, int]],
    head: HeadConfig,
    *,
    imports: Sequence[str] = (),
    on_count: Callable[[], None] = lambda: None,
) -> list[Cost | Refusal]:
    """Costs counted anew, without table and cache, `on_count` called after each; the closed form must agree.

    Raises MeasureError when a counting process dies.
    """
    jobs = [CountJob(spec, resolution, head) for spec, resolution in wanted]
    return count_in_process(jobs, imports, num_workers=NUM_COUNTING, on_count=on_count)


def count_in_process(
    jobs: Sequence[CountJob],
    imports: Sequence[str] = (),
    *,
    num_workers: int = 1,
    on_count: Callable[[], None] = lambda: None,
) -> list[Any]:
    """Facts, a cost or a Refusal for every job, from fresh processes, offline.

    Raises MeasureError when one dies, with the last line of its stderr, and when a count takes too long.
    """
    from luma_cli.measure import runner

    options = runner.Options(num_threads=1, imports=tuple(find(name) for name in imports))
    found: dict[int, Any] = {}
    counting = runner.run(
        jobs,
        options,
        (BackboneFacts, Cost, Refusal),
        timeout_seconds=_COUNT_SECONDS,
        num_workers=num_workers,
        variables={"HF_HUB_OFFLINE": "1"},
    )
    with contextlib.closing(counting):
        for index, answer in counting:
            if isinstance(answer, runner.Trouble):
                raise _counting_failed(jobs[index], answer)
            found[index] = answer
            on_count()
    return [found[index] for index in range(len(jobs))]


def _counting_failed(job: CountJob, trouble: Trouble) -> errors.MeasureError:
    if trouble.status == "timeout":
        named = f"{job.spec.name} at {job.resolution}"
        return errors.MeasureError(f"counting {named} took over {_COUNT_SECONDS:.0f} s and was stopped")
    last = (trouble.stderr_tail.strip().splitlines() or ["no message"])[-1]
    ended = trouble.reason if trouble.code is None else f"ended with code {trouble.code}"
    return errors.MeasureError(f"the counting process {ended}: {last}")


Found = dict[str, Any] | Refusal
Facts = Callable[[Sequence[Configuration], Sequence[str]], list[Found]]


def spec_of(configuration: Configuration) -> BackboneSpec:
    """The backbone to build: as planned, else by the user's spelling."""
    if configuration.spec is not None:
        return configuration.spec
    name = configuration.backbone or configuration.timm_name
    return resolve(name, imported=bool(configuration.backbone_hash))


def counted_facts(configurations: Sequence[Configuration], imports: Sequence[str] = ()) -> list[Found]:
    """Facts of each configuration, as `Cost.as_facts` names them, or a Refusal; one counting process per head."""
    # the head that is built: none where the backbone is the part
    heads = [replace(c.head, name="none") if c.part == "backbone" else c.head for c in configurations]
    found: dict[int, Found] = {}
    for head in dict.fromkeys(heads):
        group = [index for index, each in enumerate(heads) if each == head]
        try:
            wanted = [(spec_of(configurations[index]), configurations[index].resolution) for index in group]
            answers = costs(wanted, head, imports=imports)
        except errors.LumaError as error:
            answers = [Refusal.of(error)] * len(group)
        for index, answer in zip(group, answers, strict=True):
            part = configurations[index].part
            found[index] = answer if isinstance(answer, Refusal) else answer.as_facts(head_alone=part == "head")
    return [found[index] for index in range(len(configurations))]


def _look_up(job: CountJob, imports_hash: str, sources: CostSources, head: HeadConfig) -> tuple[Answer, Source] | None:
    """Facts from the table, if the installed timm made it, else from the cache, or a refusal by the rules.

    None when it must be counted: the facts are missing or too old to hold what the head needs.
    """
    covered = not imports_hash and _is_as_shipped(job.spec)
    row = sources.table.get((job.spec.architecture, job.resolution)) if covered else None
    if row is not None and row.timm == version("timm") and _suffices(row, head):
        return row, "table"
    kept = _kept(_cache_file(sources.cache, job, imports_hash))
    if kept is not None and _suffices(kept, head):
        return kept, "cache"
    try:
        _check_size(job)
    except errors.BadResolution as error:
        return Refusal.of(error), "table"
    return None


def _suffices(facts: BackboneFacts, head: HeadConfig) -> bool:
    if head.name == "luma":
        return knows_blocks(facts) or not needs_blocks(head)
    if head.name == "mask2former":
        return knows_levels(facts)
    return head.name != "eomt" or knows_joint_blocks(facts)


def _check_size(job: CountJob) -> None:
    """Raise BadResolution for a size that the rule table refuses, without building anything."""
    spec = job.spec
    if spec.source == "timm" and (entry := load_index().get(spec.architecture)):
        rule = load_rules().model_rule(entry.module, entry.cls, spec.architecture, spec.rule)
        check_resolution(spec.name, job.resolution, rule, spec.architecture)


def _is_as_shipped(spec: BackboneSpec) -> bool:
    """Whether `spec` is the model that the table counted under its architecture."""
    # A folder's config.json may give other constructor arguments, and an own rule another model or tap.
    return spec.source != "local-dir" and (not spec.rule or spec.rule == resolve(spec.architecture).rule)


def _cost(job: CountJob, facts: Answer, source: Source, head: HeadConfig) -> Cost | Refusal:
    try:
        return facts if isinstance(facts, Refusal) else cost_from_facts(job.spec, facts, head, source)
    except errors.BuildError as error:
        return Refusal.of(error)


def cost_from_facts(spec: BackboneSpec, facts: BackboneFacts, head: HeadConfig, source: Source = "table") -> Cost:
    """The cost of `head` on a backbone whose facts are known. Raises BuildError for a head that cannot be built."""
    eomt_blocks = eomt_plan_from_facts(facts, head).num_joint if head.name == "eomt" else 0
    return Cost(
        backbone=spec.name,
        architecture=facts.architecture,
        resolution=facts.resolution,
        head=head,
        backbone_macs=facts.macs,
        head_macs=head_macs(facts, head),
        backbone_params=facts.params,
        backbone_active_params=facts.met_params,
        head_params=head_params(facts, head),
        activations=facts.activations,
        width=facts.width,
        stride=facts.stride,
        num_tokens=facts.num_tokens,
        ffn=plan_from_facts(facts, head).ffn if head.name == "luma" else "none",
        l2=head.l2 if head.name == "luma" else eomt_blocks,
        complete=facts.complete,
        unknown_ops=tuple(facts.unknown_ops.split()),
        timm=facts.timm,
        source=source,
    )


def _cache_file(folder: Path, job: CountJob, imports_hash: str) -> Path | None:
    """Where the facts are kept; None where they are not."""
    if job.spec.source in _MOVING_SOURCES:
        return None
    key = {
        "architecture": job.spec.architecture,
        "rule": job.spec.rule,
        "resolution": job.resolution,
        "rules": hashlib.sha256((files.root() / "models" / "timm_rules.toml").read_bytes()).hexdigest(),
        "imports": imports_hash,
        "count_version": COUNT_VERSION,
        "timm": version("timm"),
        "torch": version("torch"),
    }
    return folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()}.json"


def _kept(path: Path | None) -> BackboneFacts | None:
    """The facts in the file; None if it is missing or cannot be read."""
    try:
        return BackboneFacts(**json.loads(path.read_text(encoding="utf-8"))) if path else None
    except (OSError, ValueError, TypeError):
        return None


def _keep(path: Path | None, facts: BackboneFacts) -> None:
    if path is not None:
        with contextlib.suppress(OSError):  # a folder that cannot be written only costs the next run its time
            files.write_text(path, json.dumps(asdict(facts)))
