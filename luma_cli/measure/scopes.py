"""Multiply-adds per module, by who called it: a module that two parts share is counted in each for its own calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from luma_cli.measure.count import Count, Counting

SEPARATOR = " > "  # between a caller and a module that it does not own


class Scopes:
    """The stack of modules that are running, each under its path from the root.

    A module that its caller owns has its own name (`backbone.model.blocks.11.mlp`); one that the caller only borrows
    has the caller's before it (`head > backbone.model.blocks.11.mlp`).
    """

    def __init__(self, root: nn.Module) -> None:
        self._names = {module: name for name, module in root.named_modules()}
        self._stack: list[str] = []
        self.macs: Counter[str] = Counter()

    def on_macs(self, macs: int) -> None:
        """Attribute `macs` to every module on the stack, once each."""
        for path in dict.fromkeys(self._stack):
            self.macs[path] += macs

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While open, modules of the root announce themselves; the hooks are gone afterwards, whatever happens."""
        with ExitStack() as hooks:
            for module in self._names:
                hooks.enter_context(module.register_forward_pre_hook(self._enter))
                hooks.enter_context(module.register_forward_hook(self._leave, always_call=True))
            yield

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        self._stack.append(self._path(self._names[module]))

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._stack.pop()

    def _path(self, name: str) -> str:
        if not self._stack:
            return name
        caller, _, owner = self._stack[-1].rpartition(SEPARATOR)
        prefix = caller + SEPARATOR if caller else ""
        owned = not owner or name.startswith(f"{owner}.")
        return f"{prefix}{name}" if owned else f"{self._stack[-1]}{SEPARATOR}{name}"


def count_by_module(
    root: nn.Module, *inputs: Any, call: Callable[..., Any] | None = None
) -> tuple[Count, Counter[str]]:
    """The count of `root(*inputs)` and the multiply-adds of every module under its path, the root's being ''."""
    scopes = Scopes(root)
    counting = Counting(scopes.on_macs)
    with scopes.watched(), torch.inference_mode(), counting:
        (call or root)(*inputs)
    return counting.result(), scopes.macs
