"""Any result as JSON: names given in the class, nothing that JSON cannot hold."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np
import pytest

from luma_cli.to_json import to_json


class Kind(StrEnum):
    FLOPS = "gflops"


@dataclass(frozen=True, slots=True)
class Inner:
    kind: Kind
    limit: float = field(metadata={"json": "at_most"})
    secret: str = field(default="x", metadata={"json": None})


@dataclass(frozen=True, slots=True)
class Outer:
    JSON_ALSO: ClassVar[tuple[str, ...]] = ("num",)

    rows: tuple[Inner, ...]
    by_name: dict[str, Inner]

    @property
    def num(self) -> int:
        return len(self.rows)


class Shaped:
    def __json__(self) -> dict[str, object]:
        return {"inner": Inner(Kind.FLOPS, 1.0)}


def test_fields_properties_and_public_names() -> None:
    inner = Inner(Kind.FLOPS, 2.5)
    shown = {"kind": "gflops", "at_most": 2.5}
    assert to_json(Outer((inner,), {"a": inner})) == {"rows": [shown], "by_name": {"a": shown}, "num": 1}


def test_a_class_of_another_shape_says_its_own() -> None:
    assert to_json([Shaped()]) == [{"inner": {"kind": "gflops", "at_most": 1.0}}]


def test_what_json_cannot_hold() -> None:
    values = {
        "nan": float("nan"),
        "numbers": np.array([1.0, np.inf]),
        "one": np.float32(2),
        "set": {"b", "a"},
        "path": PurePosixPath("a/b"),
        "at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    plain = to_json(values)
    assert plain["nan"] is None
    assert plain["numbers"] == [1.0, None]
    assert plain["one"] == 2
    assert plain["set"] == ["a", "b"]
    assert plain["path"] == "a/b"
    assert plain["at"] == "2026-01-02T00:00:00+00:00"
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_a_value_without_json_form_is_an_error_not_its_repr() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        to_json({"a": object()})
