"""Records as JSON lines between the sweep and its workers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.measure.imports import Import
from luma_cli.measure.timing import Rule
from luma_cli.store.records import Configuration, Metric, Status


@dataclass(frozen=True, slots=True)
class Options:
    """What a worker needs beside the configurations: limits, threads, the GPU's UUID, modules to import first."""

    rule: Rule = field(default_factory=Rule)
    num_threads: int = 0
    uuid: str = ""
    imports: tuple[Import, ...] = ()
    energy_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a worker found for one configuration; the sweep adds the environment's identity and the facts."""

    status: Status
    reason: str = ""
    batch: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def dump_request(configurations: list[Configuration], options: Options) -> bytes:
    """One line that asks for the configurations."""
    request = {"configurations": [asdict(c) for c in configurations], "options": asdict(options)}
    return json.dumps(request, allow_nan=False).encode() + b"\n"


def load_request(line: bytes) -> tuple[list[Configuration], Options]:
    """What `dump_request` wrote."""
    request = json.loads(line)
    options = request["options"]
    options["rule"] = Rule(**options["rule"])
    options["imports"] = tuple(Import(**item) for item in options["imports"])
    return [_configuration(values) for values in request["configurations"]], Options(**options)


def _configuration(values: dict[str, Any]) -> Configuration:
    """A configuration from its fields."""
    return Configuration(**{**values, "head": HeadConfig(**values["head"])})


def dump_result(result: Result) -> dict[str, Any]:
    """The result as plain values. Numbers that are not finite make json refuse it."""
    return asdict(result)


def load_result(values: dict[str, Any]) -> Result:
    """What `dump_result` made. Raises KeyError, TypeError or ValueError when it is something else."""
    metrics = {
        name: Metric(**{**metric, "samples": tuple(metric["samples"])}) for name, metric in values["metrics"].items()
    }
    return Result(**{**values, "metrics": metrics})
