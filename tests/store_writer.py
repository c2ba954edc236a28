"""A small sweep that runs in a process of its own, so that tests can kill it, crowd it or starve it of space."""

from __future__ import annotations

import resource
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

from store_samples import profile

from luma_cli.errors import StoreError
from luma_cli.store import database
from luma_cli.store.profiles import ProfileStore

PRELOAD = ["sqlite_utils", "luma_cli.store.profiles", "luma_cli.store.inspection", "store_samples"]


def plan(number: int, writer: int = 0) -> list:
    """`number` different configurations of one writer."""
    return [profile(resolution=32 * (step + 1), seed=writer) for step in range(number)]


def sweep(file: Path, profiles: list, acknowledge: Connection) -> None:
    """Saves those of `profiles` that the database lacks; sends each fingerprint once it is kept."""
    with closing(database.open_write(file)) as db:
        store = ProfileStore(db)
        known = store.latest([one.fingerprint for one in profiles])
        for one in profiles:
            if one.fingerprint not in known:
                store.save(one)
                acknowledge.send(one.fingerprint)
    acknowledge.send("end")


def sweep_until_full(file: Path, acknowledge: Connection, limit_bytes: int) -> None:
    """Saves until the disk, or the process's limit on file size, is full; sends how many were kept and the error."""
    if limit_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    kept = 0
    try:
        with closing(database.open_write(file)) as db:
            for one in plan(10_000):
                ProfileStore(db).save(one)
                kept += 1
    except StoreError as error:
        acknowledge.send((kept, str(error)))
