"""Whether a run may go on with what is asked for now: known from configurations alone, before a GPU is touched.

No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from luma_cli.catalogue.names import resolve
from luma_cli.errors import LumaError, RunError
from luma_cli.train.run_config import RunConfig

# How it is computed, not what: these may change, and then the last bits of the numbers may.
_COMPUTED = ("micro_batch", "grad_checkpoint", "compile", "imports", "skip_bad")
# Where it is and how it is called: these may change and nothing else does.
_CALLED = ("data_root", "recipe_changed", "recipe.name", "recipe.source", "recipe.eval_every_epochs")
_TAKEN_OVER = ("data_root", *_COMPUTED)
_UNCOMPARED = frozenset({"schema", "recipe_changed", "recipe.source"})


def check_same(saved: RunConfig, asked: RunConfig) -> tuple[str, ...]:
    """Differences that make the resumed run not equal bit for bit, one line each; empty for none.

    Raises RunError, naming both values, for a difference in what is learnt: backbone, weights, resolution, head, data,
    recipe or seed.
    """
    differences = {name: pair for name, pair in _differences(saved, asked) if name not in _CALLED}
    refused = [_told(name, pair) for name, pair in differences.items() if name not in _COMPUTED]
    if refused:
        text = f"this run cannot go on as asked: {'; '.join(refused)}"
        raise RunError(f"{text}; leave out what differs, or start a new run without --resume")
    return tuple(_told(name, pair) for name, pair in differences.items())


def continued(saved: RunConfig, asked: RunConfig) -> RunConfig:
    """`saved` with what may change between its sessions, as asked for now; `check_same` has refused all else."""
    carried_out = {name: getattr(asked, name) for name in _TAKEN_OVER}
    recipe = replace(saved.recipe, eval_every_epochs=asked.recipe.eval_every_epochs)
    return replace(saved, recipe=recipe, **carried_out)


def _told(name: str, pair: tuple[Any, Any]) -> str:
    return f"{name} was {_short(pair[0])} and is {_short(pair[1])}"


def _short(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return f"{text[:12]}...'" if len(text) > 64 and isinstance(value, str) else text


def _differences(saved: RunConfig, asked: RunConfig) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Dotted name and both values of everything that differs."""
    for field in fields(RunConfig):
        one, other = getattr(saved, field.name), getattr(asked, field.name)
        if field.name in ("head", "recipe"):
            pairs = ((f"{field.name}.{inner.name}", inner.name) for inner in fields(one))
            yield from (
                (full, (getattr(one, name), getattr(other, name)))
                for full, name in pairs
                if getattr(one, name) != getattr(other, name)
            )
        elif one != other and not _same(field.name, one, other):
            yield field.name, (one, other)


def _same(name: str, one: Any, other: Any) -> bool:
    """Whether two spellings mean the same."""
    if name == "backbone":
        return _timm_name(one) == _timm_name(other)
    return name == "data_fingerprint" and not (one and other)


def _timm_name(backbone: str) -> str:
    try:
        return resolve(backbone, imported=True).timm_name
    except LumaError:
        return backbone


def config_differences(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Dotted name -> value by run, of everything in which the configurations (as in config.json) are not all alike."""
    flat = {run_id: dict(_flat(config)) for run_id, config in configs.items()}
    names = list(dict.fromkeys(name for values in flat.values() for name in values if name not in _UNCOMPARED))
    found = {name: {run_id: values.get(name) for run_id, values in flat.items()} for name in names}
    return {name: values for name, values in found.items() if len({repr(value) for value in values.values()}) > 1}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
