"""`profile` in one call: names to configurations, exact costs beside measured numbers, everything kept in the store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.names import expand
from luma_cli.catalogue.spec import BackboneSpec, local_file, names_a_file
from luma_cli.errors import UsageError
from luma_cli.measure import devices, sweep
from luma_cli.measure.sweep import Event, Settings
from luma_cli.store import database as files
from luma_cli.store.profiles import ProfileStore
from luma_cli.store.records import Configuration, Profile


def profile(
    names: str | Sequence[str],
    resolutions: int | Sequence[int] = 512,
    *,
    head: HeadConfig | None = None,
    settings: Settings | None = None,
    database: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    **choices: Any,
) -> list[Profile]:
    """A profile of every name at every resolution, measured now unless the store has it.

    choices: other fields of `Configuration`, e.g. `dtype="bfloat16"`, `batch=8`, `attention="flash"`. Raises UsageError
    (names, sizes, devices) before anything starts; trouble with one configuration becomes a profile with a status.

    >>> profile("vit_b", [512, 1024], settings=Settings(device="cuda"))  # doctest: +SKIP
    """
    wanted = sweep.template(head=head, **choices)
    settings = settings or Settings(device="auto")
    specs = expand([names] if isinstance(names, str) else names, imported=bool(settings.imports))
    sizes = [resolutions] if isinstance(resolutions, int) else resolutions
    return measure(specs, sizes, wanted, settings, database=database, on_event=on_event)


def measure(
    specs: Sequence[BackboneSpec],
    resolutions: Sequence[int],
    wanted: Configuration,
    settings: Settings,
    *,
    database: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> list[Profile]:
    """`profile` for resolved backbones and a template of the configuration."""
    if names_a_file(wanted.weights):
        local_file(wanted.weights)
    settings = replace(settings, device=find_device(settings.device))
    planned = sweep.plan(specs, resolutions, replace(wanted, device=settings.device))
    with _store(database) as store:
        return sweep.profile(planned, settings, store=store, on_event=on_event)


def find_device(name: str) -> str:
    """`auto` as the first CUDA device, or the CPU where there is none; any other name as it is."""
    if name != "auto":
        return name
    try:
        return devices.find("cuda").name
    except UsageError:
        return "cpu"


@contextlib.contextmanager
def _store(database: Path | None) -> Iterator[ProfileStore]:
    db = files.open_write(database)
    try:
        yield ProfileStore(db)
    finally:
        db.close()
