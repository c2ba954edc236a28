"""Rows of any query: tab-separated or JSON, streamed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, TextIO


def print_rows(names: Sequence[str], rows: Iterable[Sequence[Any]], file: TextIO, as_json: bool = False) -> None:
    """Write `rows` under `names`. In JSON a list of objects, one a line; blobs as their size."""
    if as_json:
        _write_json(names, rows, file)
        return
    print("\t".join(names), file=file)
    for row in rows:
        print("\t".join(" ".join(str(_plain(value)).split()) for value in row), file=file)


def _write_json(names: Sequence[str], rows: Iterable[Sequence[Any]], file: TextIO) -> None:
    separator = "["
    for row in rows:
        values = dict(zip(names, (_plain(value, None) for value in row), strict=True))
        file.write(f"{separator}\n{json.dumps(values, allow_nan=False)}")
        separator = ","
    file.write("[]\n" if separator == "[" else "\n]\n")


def _plain(value: Any, missing: Any = "") -> Any:
    """The value as text or JSON can hold it."""
    if value is None:
        return missing
    return f"{len(value)} bytes" if isinstance(value, bytes) else value
