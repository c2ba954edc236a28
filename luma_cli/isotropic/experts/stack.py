"""Experts: equal FFNs whose weights are stacked, so that all of them are two batched matrix products.

E experts, S rows per expert, C channels, H hidden channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """E linear layers at once: [E, S, in] -> [E, S, out]. weight: [E, in, out]. bias: [E, out]."""

    def __init__(self, num_experts: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(num_experts, out_features))
        self.init_weights()

    def init_weights(self) -> None:
        """As timm draws every linear layer of a ViT; timm calls this by its name."""
        nn.init.trunc_normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """[E, S, in] -> [E, S, out]."""
        return torch.baddbmm(self.bias[:, None], rows, self.weight)


class Experts(nn.Module):
    """E FFNs, each on its own rows: [E, S, C] -> [E, S, C].

    num_active: how many of them one token meets; the rest of the parameters is idle for it.
    """

    def __init__(
        self,
        num_experts: int,
        num_active: int,
        width: int,
        hidden: int,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.num_active = num_active
        self.fc1 = StackedLinear(num_experts, width, hidden)
        self.act = act_layer()
        self.drop = nn.Dropout(drop)
        self.fc2 = StackedLinear(num_experts, hidden, width)

    def forward(self, rows: Tensor) -> Tensor:
        """[E, S, C] -> [E, S, C]."""
        result: Tensor = self.drop(self.fc2(self.drop(self.act(self.fc1(rows)))))
        return result


def idle_params(module: nn.Module) -> int:
    """Parameters of `module` that one token does not meet: those of the experts that it is not sent to."""
    found = (part for part in module.modules() if isinstance(part, Experts))
    return sum(
        sum(parameter.numel() for parameter in experts.parameters())
        // experts.num_experts
        * (experts.num_experts - experts.num_active)
        for experts in found
    )
