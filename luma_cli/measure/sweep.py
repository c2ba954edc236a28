"""A sweep: plan the configurations, skip what the store has, measure the rest one by one, keep each as it ends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from luma_cli.errors import UsageError
from luma_cli.measure import devices, environment, imports, runner
from luma_cli.measure.choices import never_applicable
from luma_cli.measure.count_request import Refusal
from luma_cli.measure.counted import Facts, Found, counted_facts
from luma_cli.measure.messages import Options, Result
from luma_cli.measure.plan import Again, Isolation, Settings, plan, template
from luma_cli.measure.timing import Rule
from luma_cli.store.records import TROUBLE, Configuration, Environment, Profile

_RETRIED = TROUBLE | {"oom"}  # what `--again failed` measures again
_MISTAKES = frozenset({"BadResolution", "BuildError", "UnknownName", "UsageError"})  # refused before anything is run

__all__ = ["Event", "Settings", "Store", "plan", "profile", "template"]


class Store(Protocol):
    """Where profiles are kept."""

    def save(self, profile: Profile) -> Profile:
        """Keep a finished attempt; what comes back is what was kept."""

    def latest(self, fingerprints: list[str]) -> Mapping[str, Profile]:
        """The latest attempt under each fingerprint that has one."""


@dataclass(frozen=True, slots=True)
class Event:
    """Progress. kind: `kept` (the store has it), `stage` (text says which) or `finished` (profile is set).

    index, total: position in the plan. eta_seconds: expected time to the end of the sweep, None before the first end.
    """

    kind: Literal["kept", "stage", "finished"]
    index: int
    total: int
    configuration: Configuration
    text: str = ""
    profile: Profile | None = None
    eta_seconds: float | None = None


def profile(
    configurations: Sequence[Configuration],
    settings: Settings | None = None,
    *,
    store: Store | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    facts: Facts = counted_facts,
    here: Environment | None = None,
    command: Sequence[str] = runner.COMMAND,
) -> list[Profile]:
    """A profile for every configuration, in their order; measured now unless the store has it.

    Each is saved as soon as it ends. Ctrl-C kills the worker, keeps what is finished and passes on. `here` stands in
    for the environment in tests. Raises UsageError before anything starts when the device is not there, and the first
    refusal when nothing that was planned can be built.
    """
    settings = settings or Settings()
    device = devices.find(settings.device)
    for configuration in configurations:
        if configuration.device != device.kind:
            raise UsageError(f"planned for {configuration.device}, to run on {settings.device}; try the same --device")
    found = [imports.find(target) for target in settings.imports]
    hashed = imports.combined_hash(found)
    planned = [replace(c, backbone_hash=hashed) if hashed else c for c in configurations]
    where = here or environment.here(device)
    sweep = _Sweep(planned, where, store, on_event, facts, settings.imports)
    todo = sweep.unfinished(settings.again)
    options = Options(
        rule=Rule(max_seconds=settings.max_seconds),
        num_threads=where.identity.get("num_threads", 0),
        uuid=device.uuid,
        imports=tuple(found),
        energy_seconds=settings.energy_seconds,
    )
    sweep.count(todo)
    for group in _groups(todo, planned, settings.isolation):
        sweep.measure(group, options, settings, devices.worker_variables(device), command)
    return sweep.profiles()


def _groups(todo: list[int], planned: list[Configuration], isolation: Isolation) -> list[list[int]]:
    """Indices that share a process."""
    if isolation == "config":
        return [[index] for index in todo]
    groups: dict[str, list[int]] = {}
    for index in todo:
        groups.setdefault(planned[index].timm_name if isolation == "backbone" else "", []).append(index)
    return list(groups.values())


def _in_process(
    configurations: Sequence[Configuration],
    options: Options,
    *,
    on_stage: runner.OnStage,
    variables: Mapping[str, str],
    **_: Any,
) -> Generator[tuple[int, Result], None, None]:
    """Measure in this process: no timeout, and a crash takes the sweep along."""
    os.environ.update({name: value for name, value in variables.items() if not name.startswith("CUDA_")})
    from luma_cli.measure import session

    yield from enumerate(session.attempt_all(configurations, options, on_stage))


class _Sweep:
    """The state of one sweep: what is planned, what is known."""

    def __init__(
        self,
        planned: list[Configuration],
        where: Environment,
        store: Store | None,
        on_event: Callable[[Event], None],
        facts: Facts,
        imported: Sequence[str],
    ):
        self._planned = planned
        self._where = where
        self._store = store
        self._on_event = on_event
        self._facts = facts
        self._imported = imported
        self._keys = [Profile(c, where, "ok").fingerprint for c in planned]
        self._known: dict[str, Profile] = {}
        self._seconds: list[float] = []
        self._num_todo = 0
        self._counted: dict[int, Found] = {}

    def unfinished(self, again: Again | None) -> list[int]:
        """Indices to measure: the first of each fingerprint that the store does not settle."""
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

    def count(self, todo: list[int]) -> None:
        """Count what is to be measured, all at once and before anything is timed.

        Raises the first refusal, a usage error, when nothing at all that was planned can be built.
        """
        if todo:
            self._tell("stage", todo[0], "counting multiply-adds")
            counted = self._facts([self._planned[index] for index in todo], self._imported)
            self._counted = dict(zip(todo, counted, strict=True))
            refused = [found for found in counted if isinstance(found, Refusal) and found.kind in _MISTAKES]
            if len(refused) == len(todo) and not self._known:
                raise refused[0].error()

    def measure(
        self,
        group: list[int],
        options: Options,
        settings: Settings,
        variables: Mapping[str, str],
        command: Sequence[str],
    ) -> None:
        """Measure the configurations of one group and keep each result."""
        group = [index for index in group if not self._keep_inapplicable(index)]
        configurations = [self._planned[index] for index in group]

        def stage_told(at: int, stage: str) -> None:
            self._tell("stage", group[at], stage)

        run = _in_process if settings.isolation == "none" else runner.run
        started_at = _now()
        with contextlib.closing(
            run(
                configurations,
                options,
                timeout_seconds=settings.timeout_seconds,
                variables=variables,
                on_stage=stage_told,
                command=command,
            )
        ) as results:
            for at, result in results:
                self._keep(group[at], result, started_at)
                started_at = _now()

    def _keep_inapplicable(self, index: int) -> bool:
        """Settle a configuration that can be refused without starting anything."""
        counted = self._counted[index]
        reason = never_applicable(self._planned[index])
        if isinstance(counted, Refusal) and counted.kind in _MISTAKES:
            reason = reason or counted.message
        if reason:
            self._keep(index, Result("not_applicable", reason), _now())
        return bool(reason)

    def _keep(self, index: int, result: Result, started_at: str) -> None:
        """Turn a result into a profile, save it and tell."""
        configuration = self._planned[index]
        facts, notes = dict(result.facts), dict(result.notes)
        counted = self._counted[index]
        if isinstance(counted, Refusal):
            notes["facts_missing"] = counted.message
        else:
            facts = {**counted, **facts}
        where = replace(self._where, provenance={**self._where.provenance, **result.provenance})
        profile = Profile(
            configuration,
            where,
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
        """Report progress."""
        remaining = self._num_todo - len(self._seconds)
        eta = remaining * sum(self._seconds) / len(self._seconds) if self._seconds else None
        self._on_event(Event(kind, index, len(self._planned), self._planned[index], text, profile, eta))

    def profiles(self) -> list[Profile]:
        """A profile per planned configuration, under the name that this plan gives it."""
        return [replace(self._known[k], configuration=c) for k, c in zip(self._keys, self._planned, strict=True)]


def _now() -> str:
    """The time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
