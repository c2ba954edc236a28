"""Recorded answers under tests/golden: comparing with them and, with LUMA_GOLDEN=write, recording them anew.

    OMP_NUM_THREADS=1 LUMA_GOLDEN=write python -m pytest tests/test_golden.py tests/test_golden_training.py -n 0

Review the difference that git then shows: it is what users see change.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg

GOLDEN = Path(__file__).resolve().parent / "golden"
WRITES = os.environ.get("LUMA_GOLDEN") == "write"
EXACT = 1e-9
# Another BLAS or processor ends the iterative fits a little elsewhere: 3e-7 was seen, and tables then round otherwise.
NEAR = 1e-4
RUN_ID = re.compile(r"\d{8}-\d{6}-.*-[0-9a-f]{4}")
LONGEST = 8  # a longer list is kept as its first and last items and a digest of all


@cache
def arithmetic() -> str:
    """Hash of the bits of a fixed calculation, which processor, libraries and number of threads decide."""
    draws = np.random.default_rng(0)
    square = draws.normal(size=(300, 300))
    spread = square @ square.T + np.eye(300)
    results = [spread, np.linalg.cholesky(spread), np.linalg.solve(spread, square), np.exp(square), np.log1p(square**2)]
    results += [np.linalg.eigvalsh(spread), scipy.linalg.cho_solve(scipy.linalg.cho_factor(spread), square)]
    return hashlib.sha256(b"".join(each.tobytes() for each in results)).hexdigest()


@cache
def tolerance() -> float:
    """Relative difference that floats may have: none to speak of where the golden files were written."""
    path = GOLDEN / "arithmetic.txt"
    if WRITES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{arithmetic()}\n", encoding="utf-8")
    return EXACT if path.read_text(encoding="utf-8").strip() == arithmetic() else NEAR


def check_text(name: str, text: str) -> None:
    """`text` equals the file of that name; if not, the test fails with the lines that differ."""
    path, exact = GOLDEN / name, tolerance() == EXACT
    if WRITES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    old = path.read_text(encoding="utf-8")
    if old == text or (not exact and _alike(old, text)):
        return
    changes = difflib.unified_diff(old.splitlines(), text.splitlines(), f"golden/{name}", "now", lineterm="", n=1)
    pytest.fail("\n".join(changes), pytrace=False)


def _alike(old: str, new: str) -> bool:
    """Whether two texts differ by no more than the last digits of their numbers."""
    number = r"\d+(?:\.\d+)?"
    if re.sub(number, "#", old) != re.sub(number, "#", new):
        return False
    pairs = zip(re.findall(number, old), re.findall(number, new), strict=True)
    return all(
        abs(float(a) - float(b)) <= max(1.01 * 10.0 ** -len(a.partition(".")[2]), NEAR * float(a)) for a, b in pairs
    )


def check_json(name: str, value: Any) -> None:
    """`value`, condensed, equals the file of that name: keys in any order, floats within `tolerance`."""
    path = GOLDEN / name
    kept = json.loads(json.dumps(condensed(value)))
    tolerance()
    if WRITES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept, indent=0, sort_keys=True) + "\n", encoding="utf-8")
        return
    found = list(differences(json.loads(path.read_text(encoding="utf-8")), kept))
    if found:
        pytest.fail("\n".join([f"golden/{name}: {len(found)} differences", *found[:40]]), pytrace=False)


def differences(old: Any, new: Any, where: str = "$") -> Iterator[str]:
    """Lines that say where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        yield from (f"{where}.{key}: gone" for key in sorted(old.keys() - new.keys()))
        yield from (f"{where}.{key}: new" for key in sorted(new.keys() - old.keys()))
        for key in sorted(old.keys() & new.keys()):
            yield from differences(old[key], new[key], f"{where}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{where}: {len(old)} items before, {len(new)} now"
        for index, (before, now) in enumerate(zip(old, new, strict=False)):
            yield from differences(before, now, f"{where}[{index}]")
    elif type(old) is float and type(new) is float:
        near_zero = 1e-12 if tolerance() == EXACT else NEAR
        if not math.isclose(old, new, rel_tol=tolerance(), abs_tol=near_zero):
            yield f"{where}: {old!r} before, {new!r} now"
    elif type(old) is not type(new) or old != new:
        yield f"{where}: {old!r} before, {new!r} now"


def skip_unless_exact() -> None:
    """For statistics of ranks, which a difference in the last digit changes as a whole."""
    if tolerance() != EXACT and not WRITES:
        pytest.skip("this machine calculates with other last digits than the one of the golden files")


def condensed(value: Any) -> Any:
    """`value` with each long list as some of its items, a hash of all but its floats, and sums of these by key.

    A sum weighs each float by its place, so that an exchange of two shows too.
    """
    if isinstance(value, dict):
        return {str(key): condensed(each) for key, each in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) <= LONGEST:
        return [condensed(each) for each in value]
    floats: dict[str, list[float]] = {}
    exact = json.dumps(_without_floats(value, "", floats), sort_keys=True)
    return {
        "num_items": len(value),
        "first": [condensed(each) for each in value[:2]],
        "last": condensed(value[-1]),
        "sha256_without_floats": hashlib.sha256(exact.encode()).hexdigest(),
        "sums_of_floats": {
            key: math.fsum((1 + at % 97) * number for at, number in enumerate(numbers))
            for key, numbers in floats.items()
        },
    }


def _without_floats(value: Any, key: str, floats: dict[str, list[float]]) -> Any:
    if isinstance(value, dict):
        return {name: _without_floats(value[name], f"{key}.{name}", floats) for name in sorted(value)}
    if isinstance(value, list):
        return [_without_floats(each, f"{key}[]", floats) for each in value]
    if isinstance(value, float):
        floats.setdefault(key, []).append(value)
        return "float"
    return value


def schema(value: Any, where: str = "$", *, open_keys: frozenset[str] = frozenset()) -> dict[str, str]:
    """Type by key path of a JSON value, for values that depend on the machine.

    Keys that are data are written `*`: those of the objects in `open_keys`, and ids of runs. Null counts as a type
    only where nothing else was seen.
    """
    found: dict[str, set[str]] = {}

    def visit(each: Any, path: str) -> None:
        kind = {dict: "object", list: "list", str: "text", bool: "boolean", int: "number", float: "number"}
        found.setdefault(path, set()).add("null" if each is None else kind[type(each)])
        if isinstance(each, dict):
            for name, inner in each.items():
                is_data = path.rpartition(".")[2] in open_keys or RUN_ID.fullmatch(name)
                visit(inner, f"{path}.{'*' if is_data else name}")
        elif isinstance(each, list):
            for inner in each:
                visit(inner, f"{path}[]")

    visit(value, where)
    return {path: " or ".join(sorted(kinds - {"null"} or kinds)) for path, kinds in sorted(found.items())}


def csv_header(text: str) -> list[str]:
    """Column names of CSV text."""
    return next(csv.reader(io.StringIO(text)))
