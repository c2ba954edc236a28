"""Exact multiply-adds of a forward pass, from the operators that it dispatches.

Meant for modules and inputs on the meta device: nothing is computed, and every operator is seen. On real tensors the
same count holds wherever the operators are the same. The module must be eager (a compiled one hides its operators).

The pass runs in inference mode, where composite operators (linear, attention) arrive whole: half as many as their
parts, and attention is never lost to a backend's fused kernel (pytorch issue 195460: its CPU kernel counts as zero).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from luma_cli.measure.operators import applies, formulas, known_zero, meta_shapes, operator_name

# Operators whose outputs are activations in the sense of timm's `macts` column (fvcore's ActivationCountAnalysis).
_LAYER_PREFIXES = ("aten.conv", "aten._conv", "aten.cudnn_convolution")
_LAYERS = frozenset(f"aten.{name}" for name in ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum"))


@dataclass(frozen=True, slots=True)
class Count:
    """What one forward pass costs.

    macs: multiply-adds. by_op: multiply-adds per operator, zeros left out. ops_seen: calls per operator.
    activations: elements put out by convolutions, linear layers and matrix products, as timm's `macts` (in millions)
    has it; what a fused attention keeps inside (its N x N weights) is no activation, as it is never written.
    unknown_ops: operators with neither a formula nor a place in the list of known zeros; `macs` is then a lower bound.
    """

    macs: int
    activations: int
    by_op: Mapping[str, int] = field(default_factory=dict)
    ops_seen: Mapping[str, int] = field(default_factory=dict)
    unknown_ops: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every operator was either counted or is known to do no multiply-adds."""
        return not self.unknown_ops


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, counts every operator that is dispatched; `result()` is the count so far.

    `on_macs` is told the multiply-adds of every counted operator as it runs.
    """

    supports_higher_order_operators = True

    def __init__(self, on_macs: Callable[[int], None] = lambda macs: None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._formulas = formulas()
        self._zero = known_zero()
        self._shapes = meta_shapes()
        self._on_macs = on_macs
        self._macs: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._unknown: set[str] = set()
        self._activations = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func` and count it; a composite operator without a formula is taken apart first."""
        kwargs = kwargs or {}
        name = operator_name(func)
        formula = self._formulas.get(name)
        if formula is None and name not in self._zero:
            parts = self._decomposed(func, args, kwargs)
            if parts is not NotImplemented:
                return parts
            self._unknown.add(name)
        shape = self._shapes.get(str(func))
        out = shape(args) if shape is not None and applies(args, kwargs) else func(*args, **kwargs)
        self._seen[name] += 1
        if formula is not None:
            macs = formula(args, kwargs, out)
            self._macs[name] += macs
            self._on_macs(macs)
            if isinstance(out, Tensor) and (name in _LAYERS or name.startswith(_LAYER_PREFIXES)):
                self._activations += out.numel()
        return out

    def _decomposed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not isinstance(func, torch._ops.OpOverload):
            return NotImplemented
        with self:
            return func.decompose(*args, **kwargs)

    def result(self) -> Count:
        """The count of everything that ran under this mode."""
        return Count(
            macs=self._macs.total(),
            activations=self._activations,
            by_op=MappingProxyType(dict(self._macs)),
            ops_seen=MappingProxyType(dict(self._seen)),
            unknown_ops=tuple(sorted(self._unknown)),
        )


def count(module: Callable[..., Any], *inputs: Any) -> Count:
    """Multiply-adds of `module(*inputs)`, module and inputs on the meta device (see the top of this file).

    >>> layer = torch.nn.Linear(3, 5, device="meta")
    >>> count(layer, torch.empty(2, 3, device="meta")).macs
    30
    """
    counting = Counting()
    with torch.inference_mode(), counting:
        module(*inputs)
    return counting.result()
