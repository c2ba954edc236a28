"""What was done to a checkpoint so that it fits, found by comparing the file's tensors with those that were loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isqrt

import torch
from torch import Tensor

_MAX_PREFIX = 16  # class and register tokens that a position embedding may hold before its grid
_NUM_SHAPES_NAMED = 4


def conversions(file: Mapping[str, Tensor], loaded: Mapping[str, Tensor], interpolation: str) -> tuple[str, ...]:
    """One short text for each kind of change from the tensors of the `file` to those that were `loaded`.

    interpolation: how position embeddings were resampled, e.g. `bicubic`.

    >>> conversions({"a": torch.zeros(1, 3)}, {"a": torch.zeros(1, 3)}, "bicubic")
    ()
    """
    sources = _sources(file, loaded)
    pairs = {key: (file[source], loaded[key]) for key, source in sources.items()}
    resized = {key: pair for key, pair in pairs.items() if _resized(*pair)}
    renamed = [f"{source} -> {key}" for key, source in sources.items() if source != key]
    changed = [key for key, pair in pairs.items() if _other_values(*pair)]
    used = set(sources.values())
    left = dict.fromkeys(_part(key) for key, value in file.items() if key not in used and value.is_floating_point())
    return (
        *_sizes(resized, interpolation),
        *_listed("keys renamed", renamed),
        *_listed("values converted", changed),
        *_listed("left out, as the map needs none of it", list(left)),
    )


def _sources(file: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> dict[str, str]:
    """Loaded key -> key in the file: of the same name, else the same memory, else the same name behind a prefix."""
    places = {value.data_ptr(): key for key, value in file.items() if value.data_ptr()}
    tails = {key.partition(".")[2]: key for key in file}
    found = {}
    for key, value in loaded.items():
        source = key if key in file else places.get(value.data_ptr()) or tails.get(key)
        if source:
            found[key] = source
    return found


def _part(key: str) -> str:
    """The part of a model that a key belongs to: `head` of `head.fc.weight`."""
    return key.partition(".")[0]


def _resized(old: Tensor, new: Tensor) -> bool:
    """Whether the shape is another one, and not only written otherwise (a linear layer as a 1 x 1 convolution)."""
    return old.shape != new.shape and not (old.numel() == new.numel() and old.ndim != new.ndim)


def _other_values(old: Tensor, new: Tensor) -> bool:
    same = old.shape != new.shape or old.data_ptr() == new.data_ptr() or old.is_meta or new.is_meta
    return not same and not torch.equal(old, new)


def _sizes(resized: Mapping[str, tuple[Tensor, Tensor]], interpolation: str) -> Iterable[str]:
    """Patch, absolute and relative positions, then anything else by its shapes."""
    relative: dict[str, int] = {}
    for key, (old, new) in sorted(resized.items()):
        name = key.rpartition(".")[2]
        if old.ndim == new.ndim == 4 and old.shape[:2] == new.shape[:2]:
            yield f"patch {old.shape[-1]} -> {new.shape[-1]} by resampling"
        elif name == "pos_embed":
            yield f"position embedding {_grids(old, new)} by {interpolation} resampling"
        elif name.startswith("rel"):
            sizes = f"{_side(old, new)} -> {_side(new, old)}"
            relative[sizes] = relative.get(sizes, 0) + 1
        else:
            yield f"{key} {list(old.shape)} -> {list(new.shape)}"
    if relative:
        count = sum(relative.values())
        yield f"{count} table{'s' if count > 1 else ''} of relative positions resampled, {_some(list(relative))}"


def _grids(old: Tensor, new: Tensor) -> str:
    """`37 x 37 -> 32 x 32`, or the numbers of tokens where they are not a grid behind the same prefix tokens."""
    if old.ndim == 4:
        return f"{old.shape[1]} x {old.shape[2]} -> {new.shape[1]} x {new.shape[2]}"
    counts = old.shape[1], new.shape[1]
    for prefix in range(min(_MAX_PREFIX, *counts)):
        before, after = (isqrt(count - prefix) for count in counts)
        if (before**2 + prefix, after**2 + prefix) == counts:
            return f"{before} x {before} -> {after} x {after}"
    return f"{counts[0]} -> {counts[1]} tokens"


def _side(table: Tensor, other: Tensor) -> str:
    """How many relative positions: per side of a square table, `13 x 13`, else in all."""
    if table.ndim == 3:
        return f"{table.shape[1]} x {table.shape[2]}"
    for extra in (0, 3):  # BEiT's tables hold three entries for the class token
        side, other_side = isqrt(len(table) - extra), isqrt(len(other) - extra)
        if (side**2 + extra, other_side**2 + extra) == (len(table), len(other)):
            return f"{side} x {side}"
    return str(len(table))


def _listed(what: str, names: Sequence[str]) -> tuple[str, ...]:
    return (f"{what}: {_some(names)}",) if names else ()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NUM_SHAPES_NAMED} more" if len(names) > _NUM_SHAPES_NAMED else ""
    return ", ".join(names[:_NUM_SHAPES_NAMED]) + more
