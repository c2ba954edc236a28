"""The table behind `--by-module`: fvcore's count of every module, checked against ours.

fvcore traces the model on the CPU; it has no handle for fused attention (fvcore issue 143), so it gets ours, and its
norm and pooling handles are taken off, since both columns are multiply-adds. It only warns about operators that it
does not know; here anything outside our own list of known zeros is an error.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from luma_cli.errors import MeasureError
from luma_cli.head.segmenter import Segmenter
from luma_cli.measure.facts import RGB, meta_twin, num_parameters
from luma_cli.measure.operators import known_zero
from luma_cli.measure.scopes import SEPARATOR, count_by_module

_NO_MULTIPLY_ADDS = ("batch_norm", "group_norm", "layer_norm", "instance_norm", "adaptive_avg_pool2d")


@dataclass(frozen=True, slots=True)
class ModuleCost:
    """Multiply-adds of one module, everything that it calls included, by our count and by fvcore's.

    path: dotted name; `caller > name` for a module that the caller borrows, such as the reused FFN in the head.
    fvcore_macs: None where fvcore, which knows names only, cannot tell a borrowed call from an owned one.
    """

    path: str
    macs: int
    fvcore_macs: int | None
    params: int


def by_module(segmenter: Segmenter, max_depth: int = 5) -> list[ModuleCost]:
    """Every module that does multiply-adds, in the model's order and down to `max_depth` dots; the first is the whole.

    `segmenter` is on the CPU with data, as fvcore runs it. Raises MeasureError for operators that fvcore cannot count.
    """
    side = segmenter.backbone.resolution
    _, ours = count_by_module(meta_twin(segmenter), torch.empty(1, RGB, side, side, device="meta"))
    theirs = fvcore_macs(segmenter, torch.zeros(1, RGB, side, side))
    params = {name: num_parameters(module) for name, module in segmenter.named_modules()}
    names = {path: path.rpartition(SEPARATOR)[2] for path, macs in ours.items() if macs}
    borrowed = {name for path, name in names.items() if path != name}
    return [
        ModuleCost(path, ours[path], None if name in borrowed else theirs[name], params[name])
        for path, name in names.items()
        if name.count(".") < max_depth
    ]


def fvcore_macs(module: nn.Module, *inputs: torch.Tensor) -> Counter[str]:
    """Fvcore's multiply-adds per module name, called modules counted with their caller.

    Raises MeasureError when it meets an operator that neither it nor our list of known zeros knows.
    """
    with _quiet(), torch.no_grad():
        from fvcore.nn import FlopCountAnalysis  # its import alone warns about torch.jit

        analysis = FlopCountAnalysis(module, inputs)
        analysis.ancestor_mode("caller").unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention)
        for name in _NO_MULTIPLY_ADDS:
            analysis.set_op_handle(f"aten::{name}", lambda inputs, outputs: Counter())
        found = analysis.by_module()
        _refuse_unknown(analysis.unsupported_ops())
        return Counter({name: int(macs) for name, macs in found.items()})


def disagreement(ours: int, theirs: int) -> float:
    """How far fvcore's count is from ours, as a fraction of ours."""
    return abs(theirs - ours) / ours if ours else math.inf


def _refuse_unknown(unsupported: Counter[str]) -> None:
    zero = {name.replace(".", "::") for name in known_zero()}
    unknown = sorted(name for name in unsupported if name not in zero)
    if unknown:
        listed = ", ".join(unknown)
        raise MeasureError(f"fvcore cannot count {listed}; leave out --by-module, the total of `luma cost` has them")


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Products of queries with keys and of weights with values, from the sizes in the trace."""
    query, key, value = (item.type().sizes() for item in inputs[:3])
    macs = math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return Counter({"attention": macs})


@contextmanager
def _quiet() -> Iterator[None]:
    """Fvcore traces with torch.jit and warns about both that and every operator; what matters is raised instead."""
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
