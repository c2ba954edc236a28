"""The Soft MoE layer: experts see weighted means of all tokens, so nothing is chosen or dropped (arXiv 2308.00951).

B images, N tokens, C channels, E experts of p slots each, S = E p slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from luma_cli.isotropic.experts.router import full_precision
from luma_cli.isotropic.experts.stack import Experts

SOFT_NUM_EXPERTS = 8  # as the other kinds here; the paper's models have 128 with one slot each
SLOTS_PER_EXPERT = 25  # 200 slots for the 197 tokens at 224 pixels: as many FFNs as in a dense block


class SoftMlp(nn.Module):
    """Y = C f(D^T X): D the softmax over tokens, C that over slots, of the logits X Phi (section 2.1).

    X and Phi are normalised first, Phi scaled by a learned number (section 2.3). The number of slots
    is a property of the model: at every resolution the experts see equally many.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_experts: int = SOFT_NUM_EXPERTS,
        slots_per_expert: int = SLOTS_PER_EXPERT,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        drop: float = 0.0,
        **_unused: Any,  # what timm's Block says about its own Mlp
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.phi = nn.Parameter(torch.empty(in_features, num_experts * slots_per_expert))
        self.scale = nn.Parameter(torch.ones(()))
        self.experts = Experts(num_experts, num_experts, in_features, hidden_features, act_layer, drop)
        self.init_weights()

    def init_weights(self) -> None:
        """Phi from N(0, 1 / C); its length is normalised away. timm calls this by its name."""
        nn.init.normal_(self.phi, std=self.phi.shape[0] ** -0.5)
        nn.init.ones_(self.scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        logits = self.logits(tokens)
        dispatch = logits.softmax(dim=1).to(tokens.dtype)
        slots = dispatch.mT @ tokens
        results = self._experts(slots)
        mixed: Tensor = logits.softmax(dim=2).to(results.dtype) @ results
        return mixed

    def logits(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, C] -> [B, N, S] in float32."""
        phi = self.scale.float() * normalize(self.phi.float(), dim=0)
        with full_precision(tokens):
            return normalize(tokens.float(), dim=-1) @ phi

    def _experts(self, slots: Tensor) -> Tensor:
        """Slots [B, S, C], expert by expert -> the same shape."""
        batch, _, width = slots.shape
        rows = slots.reshape(batch, self.num_experts, -1, width).transpose(0, 1).reshape(self.num_experts, -1, width)
        results: Tensor = self.experts(rows)
        return results.reshape(self.num_experts, batch, -1, width).transpose(0, 1).reshape(slots.shape)
