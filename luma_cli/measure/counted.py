"""The exact cost of every configuration of a sweep, counted before anything is timed. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import LumaError
from luma_cli.measure.cost import Cost, costs
from luma_cli.measure.count_request import Refusal
from luma_cli.store.records import Configuration

# Facts of each configuration, or why there are none.
Found = dict[str, Any] | Refusal
Facts = Callable[[Sequence[Configuration], Sequence[str]], list[Found]]


def counted_facts(configurations: Sequence[Configuration], imports: Sequence[str] = ()) -> list[Found]:
    """Multiply-adds and parameters of the parts under test, those of backbone and head beside them.

    What neither table nor cache holds is counted in one process. A Refusal stands where something cannot be counted.
    """
    found: dict[Configuration, Found] = {}
    for head in dict.fromkeys(map(_head, configurations)):
        group = [c for c in configurations if _head(c) == head]
        try:
            answers = costs([(c.backbone, c.resolution) for c in group], head, imports=imports)
        except LumaError as error:
            found |= dict.fromkeys(group, Refusal(type(error).__name__, str(error)))
            continue
        for configuration, answer in zip(group, answers, strict=True):
            found[configuration] = _facts(configuration, answer) if isinstance(answer, Cost) else answer
    return [found[configuration] for configuration in configurations]


def _head(configuration: Configuration) -> HeadConfig:
    """The head that is built: none where the backbone is the part."""
    return replace(configuration.head, name="none") if configuration.part == "backbone" else configuration.head


def _facts(configuration: Configuration, cost: Cost) -> dict[str, Any]:
    """The facts, of which `macs` and `params` are those of the part."""
    facts = cost.as_facts()
    return {**facts, "macs": cost.head_macs, "params": cost.head_params} if configuration.part == "head" else facts
