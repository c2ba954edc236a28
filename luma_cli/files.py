"""Where the content folders `models/`, `profiles/` and `db/` are, in a wheel or in a checkout.

Files that appear whole or not at all.
"""

from __future__ import annotations

import csv
import os
import tempfile
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

from luma_cli.errors import BadCard

_PACKAGE = Path(__file__).resolve().parent


@cache
def root() -> Path:
    """Folder that holds `models/`, `profiles/` and `db/`: inside the wheel, else the checkout."""
    packed = _PACKAGE / "_content"
    return packed if packed.is_dir() else _PACKAGE.parent


def user_folder(kind: Literal["cache", "config", "data"]) -> Path:
    """Where luma keeps files of this kind for the user; a folder that cannot exist where no home folder is known."""
    import platformdirs

    try:
        return Path(getattr(platformdirs, f"user_{kind}_dir")("luma", appauthor=False))
    except RuntimeError:  # no HOME, and no such user: a container that runs under any number
        return Path(os.devnull) / "luma"


def read_toml(path: Path) -> dict[str, Any]:
    """The TOML file at `path`. Raises BadCard, naming file and line, when it does not parse."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise BadCard(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, nested too deeply
        raise BadCard(f"{path}: cannot be read: {error}") from error


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
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes it private
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
