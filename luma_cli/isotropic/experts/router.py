"""A router: one linear layer from tokens to logits of experts, always in float32 (arXiv 2101.03961, section 2.4)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Router(nn.Linear):
    """Tokens [..., C] -> logits [..., E] in float32, whatever the model's or autocast's precision."""

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., C] -> [..., E]."""
        bias = None if self.bias is None else self.bias.float()
        with full_precision(tokens):
            return F.linear(tokens.float(), self.weight.float(), bias)


def full_precision(tokens: Tensor) -> AbstractContextManager[object]:
    """No autocast on the device of `tokens`; the meta device has none."""
    return nullcontext() if tokens.is_meta else torch.autocast(tokens.device.type, enabled=False)
