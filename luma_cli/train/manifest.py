"""The list of a checkpoint's files with length and SHA-256, written last: a folder without one is not finished.

No torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luma_cli.errors import CheckpointError

MANIFEST = "manifest.json"
SCHEMA = 1


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
    return _decode(file, values)


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


def _decode(file: Path, values: Any) -> Manifest:
    known = values if isinstance(values, dict) else {}
    if known.get("schema") != SCHEMA:
        text = f"{file} has schema {known.get('schema')}, this luma knows {SCHEMA}"
        raise CheckpointError(f"{text}; use the luma that wrote it, or `pip install -U luma-seg`")
    try:
        files = {_plain(name): FileFact(**fact) for name, fact in known["files"].items()}
        rest = {name: known[name] for name in ("run_id", "step", "serial", "best", "versions")}
        return Manifest(**rest, files=files)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file} is not a manifest of luma: {error}") from error


def _plain(name: str) -> str:
    if name != os.path.basename(name) or name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no file name")
    return name


def _fact(path: Path) -> FileFact:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileFact(path.stat().st_size, digest)
