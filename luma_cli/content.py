"""Where the content folders `models/`, `profiles/` and `db/` are, in a wheel or in a checkout."""

from __future__ import annotations

import csv
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
