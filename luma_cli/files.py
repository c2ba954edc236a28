"""Where the content folders `models/`, `profiles/` and `db/` are, in a wheel or in a checkout.

Files that appear whole or not at all.
"""

from __future__ import annotations

import csv
import os
import secrets
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from luma_cli.errors import BadCard

_PACKAGE = Path(__file__).resolve().parent


@cache
def root() -> Path:
    """Folder that holds `models/`, `profiles/` and `db/`: inside the wheel, else the checkout."""
    packed = _PACKAGE / "_content"
    return packed if packed.is_dir() else _PACKAGE.parent


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML file at `path`. Raises BadCard, naming file and line, when it does not parse."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise BadCard(f"{path}: {error}") from error


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of the CSV file at `path`, as text, keyed by its header. Lines that start with # are comments."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` by `text` in UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content`, folder made as needed: a reader sees the old content or the new.

    Raises OSError, the old file untouched, when it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = _unused(path)
    handle = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def honour_umask(path: Path) -> None:
    """Give a file or folder that was made private, as by `mkdtemp` and safetensors, the mode of any new one."""
    probe = _unused(path)
    handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o777)
    try:
        allowed = os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)
        probe.unlink()
    path.chmod(allowed if path.is_dir() else allowed & 0o666)


def _unused(path: Path) -> Path:
    """A name beside `path` that no file has. Its length is bounded, so that it fits wherever that of `path` does."""
    return path.with_name(f".{path.name[:16]}.{secrets.token_hex(4)}")
