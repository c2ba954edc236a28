"""The sparse layer of V-MoE: every token goes to its k best experts (arXiv 2106.05974, section 2).

Losses as in the paper's appendix A, over all tokens of the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from luma_cli.isotropic.experts.routed import RoutedMlp, Routing

VMOE_NUM_EXPERTS = 8  # as in the authors' public B/16; most of the paper's have 32, and a query runs every expert once
# Of github.com/google-research/vmoe: vmoe/configs/vmoe_paper/pretrain_imagenet21k.py
NUM_CHOICES = 2
VMOE_CAPACITY_FACTOR = 1.05
VMOE_BALANCE_WEIGHT = 0.01


class VMoeMlp(RoutedMlp):
    """y = sum over the k greatest g_i(x) of g_i(x) E_i(x), g = softmax(W x + noise), not renormalised.

    Noise of deviation 1 / E is drawn in training alone. priority: tokens of greater g go first when an expert has not
    room for all (batch priority routing, section 4), here among the tokens of one image.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_experts: int = VMOE_NUM_EXPERTS,
        num_choices: int = NUM_CHOICES,
        capacity_factor: float = VMOE_CAPACITY_FACTOR,
        balance_weight: float = VMOE_BALANCE_WEIGHT,
        priority: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            in_features,
            hidden_features,
            num_experts=num_experts,
            num_choices=num_choices,
            capacity_factor=capacity_factor,
            balance_weight=balance_weight,
            router_bias=False,
            **options,
        )
        self.priority = priority

    def route(self, logits: Tensor) -> Routing:
        """Logits [B, N, E] -> k choices per token, best first."""
        noisy = logits + torch.randn_like(logits) / self.num_experts if self.training else logits
        gates, choices = noisy.softmax(dim=-1).topk(self.num_choices, dim=-1)
        loss = self.balance_weight * self._loss(logits, noisy, choices) if self.training else None
        return Routing(choices, gates, gates[..., 0] if self.priority else None, loss)

    def _loss(self, logits: Tensor, noisy: Tensor, choices: Tensor) -> Tensor:
        threshold = noisy.gather(-1, choices[..., -1:])
        return (importance_loss(logits) + load_loss(logits, threshold)) / 2


def importance_loss(logits: Tensor) -> Tensor:
    """Squared coefficient of variation over experts of the sum of softmax(W x) over tokens; logits [B, N, E].

    Equal importance gives 0.
    """
    return _squared_variation(logits.softmax(dim=-1).sum(dim=(0, 1)))


def load_loss(logits: Tensor, threshold: Tensor) -> Tensor:
    """Squared coefficient of variation over experts of the expected load: the sum over tokens of the probability that
    expert i were among the k best if its noise alone were drawn again.

    logits: [B, N, E] without noise. threshold: [B, N, 1], the k-th greatest with noise.
    """
    num_experts = logits.shape[-1]
    chance = torch.special.ndtr((logits - threshold) * num_experts)
    return _squared_variation(chance.sum(dim=(0, 1)))


def _squared_variation(values: Tensor) -> Tensor:
    return values.var(correction=0) / values.mean().square()
