"""The Switch layer: every token goes to one expert (arXiv 2101.03961, section 2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from luma_cli.isotropic.experts.routed import RoutedMlp, Routing

SWITCH_NUM_EXPERTS = 8  # as the WTF benchmark's switch_8 (arXiv 2308.09372)
SWITCH_CAPACITY_FACTOR = 1.25  # the middle one of the paper's table 1
SWITCH_BALANCE_WEIGHT = 0.01  # alpha, section 2.2


class SwitchMlp(RoutedMlp):
    """y = p_i(x) E_i(x) of the most probable expert i (equations 1 and 2).

    The router has a bias, which the paper's lacks and the WTF benchmark's has. `unit_gates`, kept in the state dict,
    tells that the weights were trained with y = E_i(x) (the gate passes gradients alone), as the WTF benchmark's were.
    """

    unit_gates: Tensor

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_experts: int = SWITCH_NUM_EXPERTS,
        capacity_factor: float = SWITCH_CAPACITY_FACTOR,
        balance_weight: float = SWITCH_BALANCE_WEIGHT,
        **options: Any,
    ) -> None:
        super().__init__(
            in_features,
            hidden_features,
            num_experts=num_experts,
            num_choices=1,
            capacity_factor=capacity_factor,
            balance_weight=balance_weight,
            router_bias=True,
            **options,
        )
        self.register_buffer("unit_gates", torch.tensor(False))

    def route(self, logits: Tensor) -> Routing:
        """Logits [B, N, E] -> one choice per token."""
        shares = logits.softmax(dim=-1)
        gates, choices = shares.max(dim=-1, keepdim=True)
        loss = self.balance_weight * switch_loss(shares, choices) if self.training else None
        return Routing(choices, gates.where(~self.unit_gates, gates / gates.detach()), loss=loss)


def switch_loss(shares: Tensor, choices: Tensor) -> Tensor:
    """E sum_i f_i P_i (equations 4 to 6): f_i the share of tokens sent to expert i, P_i its mean probability.

    shares: [B, N, E] probabilities. choices: [B, N, 1]. Equal loads give 1.
    """
    num_experts = shares.shape[-1]
    sent = (choices == torch.arange(num_experts, device=choices.device)).to(shares.dtype)
    return num_experts * (sent.mean(dim=(0, 1)) * shares.mean(dim=(0, 1))).sum()
