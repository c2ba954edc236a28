"""A sweep: plan the configurations, skip those in the store, measure the rest, save each as it ends. No torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.catalogue.names import expand
from luma_cli.catalogue.spec import BackboneSpec, local_file, names_a_file
from luma_cli.errors import UsageError
from luma_cli.measure import devices, imports, runner
from luma_cli.measure.cost import Facts, Found, Refusal, counted_facts
from luma_cli.measure.runner import Options, Result, Trouble
from luma_cli.measure.timing import Rule
from luma_cli.store import database as files
from luma_cli.store.profiles import ProfileStore
from luma_cli.store.records import TROUBLE, Configuration, Environment, Profile

Isolation = Literal["config", "backbone", "none"]
Again = Literal["all", "failed"]

_CHOICES = {
    "dtype": ("float32", "bfloat16", "float16"),
    "attention": ("auto", "flash", "efficient", "cudnn", "math", "unfused", "flash-attn"),
    "compile": ("none", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "channels_last": ("auto", "on", "off"),
    "part": ("all", "backbone", "head"),
}
_CUDA_ONLY = ("flash", "efficient", "cudnn", "flash-attn")
_HALF_ONLY = ("flash", "cudnn", "flash-attn")

_RETRIED = TROUBLE | {"oom"}  # what `--again failed` measures again
_MISTAKES = frozenset({"BadResolution", "BuildError", "UnknownName", "UsageError"})  # refused before anything is run


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """How to measure. Times in seconds, per configuration.

    again: None measures what was never tried, crashed, timed out or failed; `failed` also what ran out of memory; `all`
    everything. energy_seconds: window of the energy counter on CUDA, 0 for none.
    """

    device: str = "cpu"
    isolation: Isolation = "config"
    again: Again | None = None
    timeout_seconds: float = 900.0
    max_seconds: float = 10.0
    imports: tuple[str, ...] = ()
    energy_seconds: float = 10.0

    def __post_init__(self) -> None:
        for option, seconds in (("--timeout", self.timeout_seconds), ("--max-seconds", self.max_seconds)):
            if not seconds > 0:  # NaN too
                raise UsageError(f"{option} is {seconds:g}, expected seconds greater than 0")
        if self.isolation not in ("config", "backbone", "none"):
            raise UsageError(f"--isolation {self.isolation} is unknown, expected config, backbone or none")


@dataclass(frozen=True, slots=True)
class Event:
    """Progress. kind: `kept` (the store has it), `stage` (named in text) or `finished` (profile is set).

    index, total: position in the plan. eta_seconds: expected time to the end of the sweep, None at first.
    """

    kind: Literal["kept", "stage", "finished"]
    index: int
    total: int
    configuration: Configuration
    text: str = ""
    profile: Profile | None = None
    eta_seconds: float | None = None


OnEvent = Callable[[Event], None]
Results = Generator[tuple[int, Result | Trouble], None, None]


def profile(
    names: str | Sequence[str],
    resolutions: int | Sequence[int] = 512,
    *,
    head: HeadConfig | HeadName | None = None,
    settings: SweepSettings | None = None,
    database: Path | None = None,
    on_event: OnEvent = lambda event: None,
    **choices: Any,
) -> list[Profile]:
    """A profile of every name at every resolution (px), measured now unless the store has it.

    choices: other fields of `Configuration`, e.g. `dtype="bfloat16"`, `batch=8`. Raises UsageError before anything
    starts; later trouble becomes a profile with a status.

    >>> profile("vit_b", [512, 1024], settings=SweepSettings(device="cuda"))  # doctest: +SKIP
    """
    settings = settings or SweepSettings(device="auto")
    specs = expand([names] if isinstance(names, str) else names, imported=bool(settings.imports))
    sizes = [resolutions] if isinstance(resolutions, int) else resolutions
    wanted = template(head=head, **choices)
    if names_a_file(wanted.weights):
        local_file(wanted.weights)  # raises before anything starts
    if settings.device == "auto":
        device = "cpu"
        with contextlib.suppress(UsageError):
            device = devices.find("cuda").name
        settings = replace(settings, device=device)
    planned = plan(specs, sizes, replace(wanted, device=settings.device))
    with contextlib.closing(files.open_write(database)) as db:
        return measure_all(planned, settings, store=ProfileStore(db), on_event=on_event)


def template(head: HeadConfig | HeadName | None = None, **fields: Any) -> Configuration:
    """A configuration without a backbone, for `plan`."""
    return Configuration(backbone="", timm_name="", resolution=1, head=HeadConfig.of(head or "luma"), **fields)


def plan(specs: Sequence[BackboneSpec], resolutions: Sequence[int], template: Configuration) -> list[Configuration]:
    """Every spec at every resolution, otherwise as the template. Raises UsageError for an unknown choice."""
    _check(template)
    kind = template.device.partition(":")[0]
    labels = ("timm_name", "family", "pretraining")
    named = [{"spec": spec, "backbone": spec.name, **{name: getattr(spec, name) for name in labels}} for spec in specs]
    return [replace(template, device=kind, resolution=side, **each) for each in named for side in resolutions]


def _check(configuration: Configuration) -> None:
    for name, known in _CHOICES.items():
        if (value := getattr(configuration, name)) not in known:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} {value} is unknown, expected one of: {', '.join(known)}")
    if configuration.batch < 0:
        raise UsageError(f"--batch {configuration.batch} is out of range, expected auto or at least 1; try --batch 1")
    if configuration.part == "head" and configuration.head.name == "none":
        raise UsageError("--part head with --head none leaves nothing to measure; try --head luma")
    if configuration.part == "head" and configuration.head.name == "eomt":
        raise UsageError("--part head does not apply to --head eomt, which runs inside the backbone; try --part all")


def never_applicable(configuration: Configuration) -> str:
    """Why no backbone can run in this configuration; empty if one may."""
    attention, device, dtype = configuration.attention, configuration.device, configuration.dtype
    if attention in _CUDA_ONLY and not device.startswith("cuda"):
        return f"attention {attention} runs on CUDA only, device is {device}"
    if attention in _HALF_ONLY and dtype not in ("bfloat16", "float16"):
        return f"attention {attention} supports float16 and bfloat16 only, dtype is {dtype}"
    if attention == "flash-attn" and configuration.compile != "none":
        return f"attention flash-attn works in eager mode only, compile is {configuration.compile}"
    return ""


def measure_all(
    configurations: Sequence[Configuration],
    settings: SweepSettings | None = None,
    *,
    store: ProfileStore | None = None,
    on_event: OnEvent = lambda event: None,
    facts: Facts = counted_facts,
    here: Environment | None = None,
    command: Sequence[str] = runner.COMMAND,
) -> list[Profile]:
    """A profile for every configuration, in their order; measured now unless the store has it.

    Each is saved as soon as it ends. Ctrl-C ends the worker and passes on. `here` replaces the environment in tests.
    Raises UsageError when the device does not exist, and the first refusal when no configuration can be built.
    """
    settings = settings or SweepSettings()
    device = devices.find(settings.device)
    for configuration in configurations:
        if configuration.device != device.kind:
            raise UsageError(f"planned for {configuration.device}, to run on {settings.device}; try the same --device")
    found = [imports.find(target) for target in settings.imports]
    planned = [replace(c, backbone_hash=imports.combined_hash(found) or c.backbone_hash) for c in configurations]
    where = here or devices.here(device)
    sweep = _Sweep(planned, where, store, on_event)
    todo = sweep.unfinished(settings.again)
    if todo:
        sweep.count(todo, facts, settings.imports)
    options = Options(
        rule=Rule(max_seconds=settings.max_seconds),
        num_threads=where.identity.get("num_threads", 0),
        uuid=device.uuid,
        imports=tuple(found),
        energy_seconds=settings.energy_seconds,
    )
    run = partial(
        _in_process if settings.isolation == "none" else runner.run,
        options=options,
        kinds=(Result,),
        timeout_seconds=settings.timeout_seconds,
        variables=devices.worker_variables(device),
        command=command,
    )
    groups: dict[Any, list[int]] = {}  # configurations that share a process
    for index in todo:
        own = {"config": index, "backbone": planned[index].timm_name, "none": 0}[settings.isolation]
        groups.setdefault(own, []).append(index)
    for group in groups.values():
        sweep.measure(group, run)
    return sweep.profiles()


def _in_process(
    jobs: Sequence[Configuration],
    options: Options,
    *,
    on_stage: runner.OnStage,
    variables: Mapping[str, str],
    **_: Any,
) -> Generator[tuple[int, Result], None, None]:
    """Measure in this process: no timeout, and a crash ends the sweep."""
    os.environ.update({name: value for name, value in variables.items() if not name.startswith("CUDA_")})
    from luma_cli.measure import worker

    refused = worker.prepare(options)
    for index, job in enumerate(jobs):
        yield index, worker.answer(job, options, refused, partial(on_stage, index))


class _Sweep:
    """The state of one sweep: the plan, and the profiles known so far."""

    def __init__(
        self, planned: list[Configuration], where: Environment, store: ProfileStore | None, on_event: OnEvent
    ) -> None:
        self._planned = planned
        self._where = where
        self._store = store
        self._on_event = on_event
        self._keys = [Profile(c, where, "ok").fingerprint for c in planned]
        self._known: dict[str, Profile] = {}
        self._seconds: list[float] = []
        self._num_todo = 0
        self._counted: dict[int, Found] = {}

    def unfinished(self, again: Again | None) -> list[int]:
        """Indices to measure: the first of each fingerprint without a kept result."""
        latest = self._store.latest(list(dict.fromkeys(self._keys))) if self._store and again != "all" else {}
        todo: dict[str, int] = {}
        for index, key in enumerate(self._keys):
            kept = latest.get(key)
            if kept is not None and kept.status not in (_RETRIED if again == "failed" else TROUBLE):
                self._known[key] = kept
                self._tell("kept", index, profile=kept)
            else:
                todo.setdefault(key, index)
        self._num_todo = len(todo)
        return list(todo.values())

    def count(self, todo: list[int], facts: Facts, imported: Sequence[str]) -> None:
        """Count the costs before anything is timed. Raises the first refusal when nothing planned can be built."""
        self._tell("stage", todo[0], "counting multiply-adds")
        counted = facts([self._planned[index] for index in todo], imported)
        self._counted = dict(zip(todo, counted, strict=True))
        refused = [found for found in counted if isinstance(found, Refusal) and found.kind in _MISTAKES]
        if len(refused) == len(todo) and not self._known:
            raise refused[0].error()

    def measure(self, group: list[int], run: Callable[..., Results]) -> None:
        """Measure the configurations of one group and keep each result."""
        group = [index for index in group if not self._keep_inapplicable(index)]
        jobs = [self._planned[index] for index in group]
        started_at = _now()
        with contextlib.closing(run(jobs, on_stage=lambda at, stage: self._tell("stage", group[at], stage))) as results:
            for at, result in results:
                if isinstance(result, Trouble):
                    notes = {"stderr_tail": result.stderr_tail}
                    result = Result(result.status, result.reason, notes=notes, seconds=result.seconds)
                self._keep(group[at], result, started_at)
                started_at = _now()

    def _keep_inapplicable(self, index: int) -> bool:
        """Whether a configuration is refused, and kept as such, without starting anything."""
        counted = self._counted[index]
        reason = never_applicable(self._planned[index])
        if isinstance(counted, Refusal) and counted.kind in _MISTAKES:
            reason = reason or counted.message
        if reason:
            self._keep(index, Result("not_applicable", reason), _now())
        return bool(reason)

    def _keep(self, index: int, result: Result, started_at: str) -> None:
        """Save a result as a profile and report it."""
        facts, notes, counted = result.facts, result.notes, self._counted[index]
        if isinstance(counted, Refusal):
            notes = {**notes, "facts_missing": counted.message}
        else:
            facts = {**counted, **facts}
        profile = Profile(
            self._planned[index],
            replace(self._where, provenance={**self._where.provenance, **result.provenance}),
            result.status,
            result.reason,
            result.batch,
            facts,
            result.metrics,
            notes,
            started_at,
            result.seconds,
        )
        if self._store is not None:
            profile = self._store.save(profile)
        self._known[self._keys[index]] = profile
        self._seconds.append(result.seconds)
        self._tell("finished", index, profile=profile)

    def _tell(self, kind: Any, index: int, text: str = "", profile: Profile | None = None) -> None:
        remaining = self._num_todo - len(self._seconds)
        eta = remaining * sum(self._seconds) / len(self._seconds) if self._seconds else None
        self._on_event(Event(kind, index, len(self._planned), self._planned[index], text, profile, eta))

    def profiles(self) -> list[Profile]:
        """A profile per planned configuration, under its name in the plan."""
        return [replace(self._known[k], configuration=c) for k, c in zip(self._keys, self._planned, strict=True)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
