"""The checkpoints of a run: which there are, which are sound, which may go. Imports no torch.

A checkpoint is never replaced: one of the same step gets a name of its own, and the serial number in its manifest says
which is newer. So there is no moment at which a kill could leave a run without the checkpoint that it had. The
manifest, with length and SHA-256 of every file, is written last: a folder without one is not finished.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luma_cli.errors import CheckpointError
from luma_cli.train.run_folder import BEST, LATEST, RunFolder
from luma_cli.version import __version__

MANIFEST = "manifest.json"
SCHEMA = 1
_NAME = re.compile(r"step-(\d{6,})(?:-\d+)?")
# What is being written, and what is being removed; nobody reads either.
WRITING, GONE = ".writing-", ".gone-"


@dataclass(frozen=True, slots=True)
class FileFact:
    """Length in bytes and hex SHA-256 of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint is. serial: its place among those of its run, in the order of writing. best: the best so far.

    versions: of luma, torch and timm that wrote it. files: by name.
    """

    run_id: str
    step: int
    serial: int
    best: bool
    versions: Mapping[str, str]
    files: Mapping[str, FileFact]


@dataclass(frozen=True, slots=True)
class SkippedCheckpoint:
    """A checkpoint that cannot be used, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Sound:
    """A checkpoint that was verified to the last byte, and newer ones that were not sound."""

    path: Path
    manifest: Manifest
    skipped: tuple[SkippedCheckpoint, ...]


def versions() -> dict[str, str]:
    """Versions of luma, torch and timm, without importing them."""
    return {"luma": __version__, **{name: importlib.metadata.version(name) for name in ("torch", "timm")}}


def changed_versions(saved: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each version that differs, both named: the resumed run may then differ in the last bits.

    >>> changed_versions({"torch": "2.14.0"}, {"torch": "2.15.0"})
    ('torch was 2.14.0 and is 2.15.0',)
    """
    names = [name for name in now if saved.get(name) != now[name]]
    return tuple(f"{name} was {saved.get(name, 'unknown')} and is {now[name]}" for name in names)


def write_manifest(folder: Path, run_id: str, step: int, serial: int, best: bool, versions: Mapping[str, str]) -> None:
    """Hashes every file of `folder` and writes the manifest, on disk when this returns. Raises OSError."""
    files = {path.name: _fact(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    manifest = Manifest(run_id, step, serial, best, dict(versions), files)
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump({"schema": SCHEMA, **asdict(manifest)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint. Raises CheckpointError when it is missing, damaged or of another schema."""
    file = folder / MANIFEST
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} has no {MANIFEST}: it was never finished, or part of it was removed"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    known: dict[str, Any] = values if isinstance(values, dict) else {}
    if (schema := known.pop("schema", None)) != SCHEMA:
        text = f"{file} has schema {schema}, this luma knows {SCHEMA}"
        raise CheckpointError(f"{text}; use the luma that wrote it, or `pip install -U luma-seg`")
    try:
        known["files"] = {name: FileFact(**fact) for name, fact in known["files"].items()}
        for name in known["files"]:
            if name != os.path.basename(name) or name in ("", ".", ".."):
                raise ValueError(f"{name!r} is no file name")
        return Manifest(**{name: known[name] for name in Manifest.__slots__})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file} is not a manifest of luma: {error}") from error


def damage(folder: Path, manifest: Manifest) -> str:
    """The first file of a checkpoint that is not what its manifest says, with the reason; empty for a sound one."""
    for name, fact in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if (length := path.stat().st_size) != fact.bytes:
            return f"{name} has {length} bytes, expected {fact.bytes}"
        if _fact(path).sha256 != fact.sha256:
            return f"{name} is not what was written: its SHA-256 differs"
    return ""


def _fact(path: Path) -> FileFact:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileFact(path.stat().st_size, digest)


def free_name(folder: Path, step: int) -> str:
    """Name of the next checkpoint of `step` in `folder`: `step-000120`, `step-000120-2`, ..."""
    name = f"step-{step:06d}"
    taken = {path.name for path in folder.iterdir()}
    return next(one for one in (name, *(f"{name}-{again}" for again in range(2, len(taken) + 3))) if one not in taken)


def next_serial(folder: RunFolder) -> int:
    """One more than that of any checkpoint there is."""
    return 1 + max((manifest.serial for _, manifest in _read(folder)[0]), default=0)


def latest_sound(folder: RunFolder) -> Sound:
    """The newest checkpoint whose every byte is as it was written, and those that were skipped for not being so.

    Raises CheckpointError when there is none.
    """
    readable, skipped = _read(folder)
    for path, manifest in readable:
        if not (why := damage(path, manifest)):
            return Sound(path, manifest, tuple(skipped))
        skipped.append(SkippedCheckpoint(path.name, why))
    if not skipped:
        raise CheckpointError(f"{folder.path} has no checkpoint yet; `luma train --resume {folder.path}` starts it")
    reasons = "; ".join(f"{one.name}: {one.why}" for one in skipped)
    raise CheckpointError(f"{folder.path} has no sound checkpoint ({reasons}); start a new run")


def best(folder: RunFolder) -> Path:
    """The best checkpoint, or the latest sound one of a run that was never validated. Raises CheckpointError."""
    for path, manifest in _read(folder)[0]:
        if manifest.best:
            if why := damage(path, manifest):
                raise CheckpointError(f"the best checkpoint {path} is damaged: {why}; use the latest one instead")
            return path
    return latest_sound(folder).path


def names(folder: RunFolder) -> list[str]:
    """Names of all checkpoints, sound or not, by step."""
    return [path.name for path in _folders(folder)]


def prune(folder: RunFolder, keep: int) -> list[str]:
    """Removes all checkpoints but the newest `keep`, the best and those pointed to; returns the names of the removed.

    Each is renamed first, so that none is ever found half removed. What cannot be read is left for a person to judge.
    """
    ranked = _read(folder)[0]
    marked = [path.name for path, manifest in ranked if manifest.best][:1]
    kept = {*(path.name for path, _ in ranked[:keep]), *marked, folder.pointed(LATEST), folder.pointed(BEST)}
    removed = [path for path, _ in ranked if path.name not in kept]
    for path in removed:
        gone = path.rename(path.with_name(f"{GONE}{path.name}"))
        shutil.rmtree(gone, ignore_errors=True)
    return [path.name for path in removed]


def clear(folder: RunFolder) -> None:
    """Removes what killed writers left. Only the holder of the run folder may do so."""
    for prefix in (WRITING, GONE):
        for left in folder.checkpoints.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)


def is_checkpoint(path: Path) -> bool:
    """Whether the folder `path` is a finished checkpoint."""
    return (path / MANIFEST).is_file()


def _folders(folder: RunFolder) -> list[Path]:
    """All checkpoints by step, and those of one step in the order of their names' numbers."""
    with suppress(FileNotFoundError):
        found = [(path, match) for path in folder.checkpoints.iterdir() if (match := _NAME.fullmatch(path.name))]
        return [path for path, _ in sorted(found, key=lambda pair: (int(pair[1][1]), len(pair[0].name), pair[0].name))]
    return []


def _read(folder: RunFolder) -> tuple[list[tuple[Path, Manifest]], list[SkippedCheckpoint]]:
    """Checkpoints with their manifests, the newest first, and those without a readable one."""
    readable, skipped = [], []
    for path in _folders(folder):
        try:
            readable.append((path, read_manifest(path)))
        except CheckpointError as error:
            skipped.append(SkippedCheckpoint(path.name, str(error)))
    return sorted(readable, key=lambda pair: -pair[1].serial), skipped
