"""Switch layers in the layout of the WTF benchmark's public code (arXiv 2308.09372), brought to ours."""

from __future__ import annotations

import re

import torch
from torch import Tensor

_ROUTER = re.compile(r"(.*\.mlp\.)switch\.(weight|bias)")
_EXPERT = re.compile(r"(.*\.mlp\.experts\.)(\d+)\.(fc[12]\.(?:weight|bias))")


def wtf_switch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the Switch layers of that code as ours; others untouched.

    Experts one by one become stacks, `switch` becomes `router`. Those layers were trained without multiplying by the
    gate and without dropping tokens: the first is kept in the weights (`unit_gates`), the second needs a capacity
    factor of as many as there are experts.
    """
    converted: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        if router := _ROUTER.fullmatch(key):
            converted[f"{router[1]}router.{router[2]}"] = value
            converted[f"{router[1]}unit_gates"] = torch.tensor(True)
        elif expert := _EXPERT.fullmatch(key):
            stacks.setdefault(expert[1] + expert[3], {})[int(expert[2])] = value
        else:
            converted[key] = value
    return converted | {key: _stacked(experts) for key, experts in stacks.items()}


def _stacked(experts: dict[int, Tensor]) -> Tensor:
    """Weights [out, in] of every expert as [E, in, out], biases [out] as [E, out]."""
    ordered = (experts[index] for index in range(len(experts)))
    return torch.stack([value.mT if value.ndim == 2 else value for value in ordered])
