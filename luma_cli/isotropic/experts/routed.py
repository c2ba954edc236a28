"""An FFN of which every token meets a few: router, dispatch, experts, and what training wants to know of the routing.

B images, N tokens, C channels, E experts, k choices per token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from luma_cli.isotropic.experts.dispatch import Dispatch, assign, capacity_of, combine, gather
from luma_cli.isotropic.experts.router import Router
from luma_cli.isotropic.experts.stack import Experts


@dataclass(frozen=True, slots=True)
class Routing:
    """choices, gates: [B, N, k] experts of every token and the factor of each result. priority: [B, N], who goes first.

    loss: how unbalanced the choices are, a scalar in the graph; None outside training.
    """

    choices: Tensor
    gates: Tensor
    priority: Tensor | None = None
    loss: Tensor | None = None


class RoutedMlp(nn.Module, ABC):
    """Tokens [B, N, C] -> [B, N, C] through k of E experts.

    A forward in training mode leaves `balance_loss` (in the graph, already weighted) and two buffers outside the state
    dict: `tokens_per_expert` [E], choices before any were dropped, and `dropped_share`, of all choices.
    """

    tokens_per_expert: Tensor
    dropped_share: Tensor

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_experts: int,
        num_choices: int,
        capacity_factor: float,
        balance_weight: float,
        router_bias: bool,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        drop: float = 0.0,
        **_unused: Any,  # what timm's Block says about its own Mlp
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.num_choices = num_choices
        self.capacity_factor = capacity_factor
        self.balance_weight = balance_weight
        self.router = Router(in_features, num_experts, bias=router_bias)
        self.experts = Experts(num_experts, num_choices, in_features, hidden_features, act_layer, drop)
        self.register_buffer("tokens_per_expert", torch.zeros(num_experts), persistent=False)
        self.register_buffer("dropped_share", torch.zeros(()), persistent=False)
        self.balance_loss: Tensor | None = None

    @abstractmethod
    def route(self, logits: Tensor) -> Routing:
        """Choices and gates from float32 logits [B, N, E]."""

    def capacity(self, num_tokens: int) -> int:
        """Slots per expert for an image of `num_tokens` tokens."""
        return capacity_of(num_tokens, self.num_experts, self.num_choices, self.capacity_factor)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]; a token for which no chosen expert has room gets zero."""
        routing = self.route(self.router(tokens))
        dispatch = assign(routing.choices, self.num_experts, self.capacity(tokens.shape[1]), routing.priority)
        if self.training:
            self._record(routing, dispatch)
        return combine(self.experts(gather(tokens, dispatch, self.num_experts)), dispatch, routing.gates)

    def _record(self, routing: Routing, dispatch: Dispatch) -> None:
        self.balance_loss = routing.loss
        experts = torch.arange(self.num_experts, device=routing.choices.device)
        self.tokens_per_expert.copy_((routing.choices[..., None] == experts).sum(dim=(0, 1, 2)))
        self.dropped_share.copy_(1 - dispatch.kept.float().mean())

    def __getstate__(self) -> dict[str, Any]:
        """Without the last loss, which belongs to a graph and can be neither copied nor stored."""
        return {**self.__dict__, "balance_loss": None}


def balance_loss(module: nn.Module) -> Tensor:
    """The sum of every routed FFN's balance loss in `module` at its last forward in training mode, in the graph.

    Add it to the task's loss. Zero where nothing is routed, as in a dense or a Soft MoE model. Raises RuntimeError when
    a router that learns left a loss without a graph: a forward without gradients, as that of re-entrant checkpointing.
    """
    routed = [part for part in module.modules() if isinstance(part, RoutedMlp) and part.balance_loss is not None]
    found = [part.balance_loss for part in routed if part.balance_loss is not None]
    learns = any(part.router.weight.requires_grad for part in routed)
    if torch.is_grad_enabled() and learns and not all(loss.requires_grad for loss in found):
        raise RuntimeError(
            "the balance loss has no gradient, as the last forward ran without; "
            "checkpoint gradients with use_reentrant=False, timm's default, or read the loss under torch.no_grad()"
        )
    return torch.stack(found).sum() if found else torch.zeros(())
