"""Files: the content folders `models/`, `profiles/` and `db/`, TOML and CSV of people, writing whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import re
import secrets
import stat
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

from luma_cli.errors import BadCard

_PACKAGE = Path(__file__).resolve().parent
_MAX_TOML_BYTES, _MAX_CSV_BYTES = 1 << 20, 1 << 28
_ENDLESS_KEY = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){100}""")
_ENDLESS_NUMBER = re.compile(r"(?<![\d_])[\d_]{4300}")


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
    """The TOML file at `path`, with or without a byte order mark. Raises BadCard, naming the file and the place."""
    text = _read_text(path, _MAX_TOML_BYTES)
    if _ENDLESS_KEY.search(text):  # for which tomllib takes minutes
        raise BadCard(f"{path}: a key of more than 100 parts, expected a few; write tables")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise BadCard(f"{path}: nested too deeply, expected lists and tables in a few levels") from error
    except ValueError as error:
        if isinstance(error, tomllib.TOMLDecodeError):
            raise BadCard(f"{path}: {error}") from error
        number = _ENDLESS_NUMBER.search(text)
        line = text.count("\n", 0, number.start()) + 1 if number else 1
        raise BadCard(f"{path}: a number of thousands of digits (at line {line})") from error


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of the CSV file at `path`, as text, keyed by its header. Lines that start with # are comments.

    Raises BadCard, naming the file and the place.
    """
    lines = (line for line in io.StringIO(_read_text(path, _MAX_CSV_BYTES), newline="") if not line.startswith("#"))
    reader = csv.DictReader(lines)
    try:
        return list(reader)
    except csv.Error as error:
        raise BadCard(f"{path}: {error} (at line {reader.line_num})") from error


def _read_text(path: Path, limit: int) -> str:
    """The content of a regular file in UTF-8, without a byte order mark."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait
            raise BadCard(f"{path} cannot be read: it is no file, expected one of text")
        if status.st_size > limit:
            raise BadCard(f"{path} cannot be read: {status.st_size:,} bytes, expected at most {limit:,}")
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadCard(f"{path}: no such file" + (", but a link to one" if path.is_symlink() else "")) from None
    except OSError as error:
        raise BadCard(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadCard(f"{path} cannot be read: it is not UTF-8 (at line {line}); save it as UTF-8") from error


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
