"""Mixtures of experts in the place of a block's FFN: Switch, V-MoE and Soft MoE, with static shapes.

In Switch and V-MoE a router sends every token to its k best experts, through buffers of fixed capacity and by indices
alone: no shape depends on the data, and nothing multiplies by one-hot matrices, whose cost would grow with the square
of the tokens. The tokens of one image are a group of their own, so that what becomes of an image never depends on the
others in the batch. Soft MoE chooses and drops nothing: its experts see weighted means of all tokens.
B images, N tokens, C channels, E experts, k choices per token, S slots per expert and image.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from itertools import count
from typing import Any, Literal

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import normalize

from luma_cli.isotropic.vit import without_autocast

NUM_EXPERTS = 8  # as the WTF benchmark's switch_8 and the authors' public V-MoE B/16; the papers have up to 128


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Who sits where.

    slots: [B, N, k] slot of every choice, counted through experts, then images, then places; the image's first one
    where dropped. kept: [B, N, k] whether the expert had room. tokens: [E B S] the token (counted through the batch) in
    every slot; an empty slot repeats the image's first token. What is dropped or empty thus counts zero times a value
    of its own image, so that not even an infinity in one image reaches another.
    """

    slots: Tensor
    kept: Tensor
    tokens: Tensor


def capacity_of(num_tokens: int, num_experts: int, num_choices: int, capacity_factor: float) -> int:
    """Slots per expert for the tokens of one image: ceil(factor k N / E), at least 1 and at most N.

    >>> capacity_of(197, 8, 1, 1.25), capacity_of(1, 8, 1, 1.25)
    (31, 1)
    """
    return max(1, min(num_tokens, math.ceil(capacity_factor * num_choices * num_tokens / num_experts)))


def places(choices: Tensor, num_experts: int, priority: Tensor | None = None) -> Tensor:
    """The place [B, N, k] of every choice in its expert's queue, from 0; choices are [B, N, k].

    All first choices come before all second ones (arXiv 2106.05974, algorithm 1), tokens in the image's order, or those
    of higher `priority` [B, N] first (algorithm 2, batch priority routing).
    """
    if priority is not None:
        order = priority.argsort(dim=1, descending=True, stable=True)
        sorted_choices = choices.gather(1, order[..., None].expand_as(choices))
        return places(sorted_choices, num_experts).gather(1, order.argsort(dim=1)[..., None].expand_as(choices))
    batch, num_tokens, num_choices = choices.shape
    queue = choices.mT.reshape(batch, 1, num_choices * num_tokens)
    experts = torch.arange(num_experts, device=choices.device)[:, None]
    ahead = (queue == experts).cumsum(dim=-1).gather(1, queue) - 1
    return ahead.reshape(batch, num_choices, num_tokens).mT


def assign(choices: Tensor, num_experts: int, capacity: int, priority: Tensor | None = None) -> Dispatch:
    """Seat every choice [B, N, k] whose place is below the capacity; the others are dropped."""
    batch, num_tokens, num_choices = choices.shape
    place = places(choices, num_experts, priority)
    kept = place < capacity
    image = torch.arange(batch, device=choices.device)[:, None, None]
    slots = (choices * batch + image) * capacity + place
    num_slots = num_experts * batch * capacity
    token = torch.arange(batch * num_tokens, device=choices.device).reshape(batch, num_tokens, 1)
    # the last seat takes all that are dropped
    seats = torch.arange(num_slots + 1, device=choices.device) // capacity % batch * num_tokens
    seats = seats.scatter(0, slots.where(kept, num_slots).flatten(), token.expand_as(choices).flatten())
    return Dispatch(slots.where(kept, image * capacity), kept, seats[:-1])


def gather(tokens: Tensor, dispatch: Dispatch, num_experts: int) -> Tensor:
    """Tokens [B, N, C] -> every expert's rows [E, B S, C]."""
    rows = tokens.flatten(0, 1).index_select(0, dispatch.tokens)
    return rows.reshape(num_experts, -1, tokens.shape[-1])


def combine(rows: Tensor, dispatch: Dispatch, gates: Tensor) -> Tensor:
    """Experts' results [E, B S, C] -> sum over each token's choices of gate times result [B, N, C]; gates [B, N, k].

    What was dropped adds zero: the token keeps its residual alone.
    """
    batch, num_tokens, num_choices = gates.shape
    weights = (gates * dispatch.kept).to(rows.dtype)
    results = rows.flatten(0, 1)
    chosen = (
        weights[..., choice, None]
        * results.index_select(0, dispatch.slots[..., choice].flatten()).reshape(batch, num_tokens, -1)
        for choice in range(num_choices)
    )
    return reduce(torch.add, chosen)


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
    idle = 0
    for experts in (part for part in module.modules() if isinstance(part, Experts)):
        per_expert = sum(parameter.numel() for parameter in experts.parameters()) // experts.num_experts
        idle += per_expert * (experts.num_experts - experts.num_active)
    return idle


class Router(nn.Linear):
    """Tokens [..., C] -> logits [..., E], always in float32 (arXiv 2101.03961, section 2.4)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., C] -> [..., E]."""
        bias = None if self.bias is None else self.bias.float()
        with without_autocast(tokens.device):
            return F.linear(tokens.float(), self.weight.float(), bias)


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
        num_experts: int = NUM_EXPERTS,
        num_choices: int,
        capacity_factor: float,
        balance_weight: float = 0.01,  # of both papers: alpha in section 2.2 of Switch, and V-MoE's code
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


class SwitchMlp(RoutedMlp):
    """The Switch layer: y = p_i(x) E_i(x) of the most probable expert i (arXiv 2101.03961, section 2, equations 1, 2).

    capacity_factor: the middle one of the paper's table 1. The router has a bias, which the paper's lacks and the WTF
    benchmark's has. `unit_gates`, kept in the state dict, tells that the weights were trained with y = E_i(x) (the gate
    passes gradients alone), as the WTF benchmark's were.
    """

    unit_gates: Tensor

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        capacity_factor: float = 1.25,
        **options: Any,
    ) -> None:
        super().__init__(
            in_features, hidden_features, num_choices=1, capacity_factor=capacity_factor, router_bias=True, **options
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


class VMoeMlp(RoutedMlp):
    """The sparse layer of V-MoE: every token goes to its k best experts (arXiv 2106.05974, section 2).

    y = sum over the k greatest g_i(x) of g_i(x) E_i(x), g = softmax(W x + noise), not renormalised.
    num_choices, capacity_factor: of github.com/google-research/vmoe, vmoe/configs/vmoe_paper/pretrain_imagenet21k.py.
    Noise of deviation 1 / E is drawn in training alone. priority: tokens of greater g go first when an expert has not
    room for all (batch priority routing, section 4), here among the tokens of one image.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_choices: int = 2,
        capacity_factor: float = 1.05,
        priority: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            in_features,
            hidden_features,
            num_choices=num_choices,
            capacity_factor=capacity_factor,
            router_bias=False,
            **options,
        )
        self.priority = priority

    def route(self, logits: Tensor) -> Routing:
        """Logits [B, N, E] -> k choices per token, best first."""
        noisy = logits + torch.randn_like(logits) / self.num_experts if self.training else logits
        gates, choices = noisy.softmax(dim=-1).topk(self.num_choices, dim=-1)
        loss = None
        if self.training:  # the two losses of the paper's appendix A, over all tokens of the batch
            threshold = noisy.gather(-1, choices[..., -1:])
            loss = self.balance_weight * ((importance_loss(logits) + load_loss(logits, threshold)) / 2)
        return Routing(choices, gates, gates[..., 0] if self.priority else None, loss)


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


class SoftMlp(nn.Module):
    """Soft MoE: experts see weighted means of all tokens (arXiv 2308.00951). E experts of p slots each, S = E p slots.

    Y = C f(D^T X): D the softmax over tokens, C that over slots, of the logits X Phi (section 2.1). The paper's models
    have 128 experts with one slot; 8 x 25 = 200 slots for the 197 tokens at 224 pixels are as many FFNs as a dense
    block has. X and Phi are normalised first, Phi scaled by a learned number (section 2.3). The number of slots
    is a property of the model: at every resolution the experts see equally many.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_experts: int = NUM_EXPERTS,
        slots_per_expert: int = 25,
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
        by_expert = slots.reshape(len(slots), self.num_experts, -1, slots.shape[2]).transpose(0, 1)  # [E, B, p, C]
        results = self.experts(by_expert.flatten(1, 2)).reshape(by_expert.shape).transpose(0, 1).flatten(1, 2)
        mixed: Tensor = logits.softmax(dim=2).to(results.dtype) @ results
        return mixed

    def logits(self, tokens: Tensor) -> Tensor:
        """Tokens [B, N, C] -> [B, N, S] in float32."""
        phi = self.scale.float() * normalize(self.phi.float(), dim=0)
        with without_autocast(tokens.device):
            return normalize(tokens.float(), dim=-1) @ phi


class ExpertBlock(Block):
    """A block whose `mlp` is a RoutedMlp: queries go through router and experts, each as a group of its own."""


class SoftExpertBlock(Block):
    """A block whose `mlp` is a SoftMlp: its experts see mixtures of tokens, so a query alone has no FFN to run."""


Placement = Literal["every", "every_2", "last_2", "second_half"]


class ExpertViT(VisionTransformer):
    """A VisionTransformer whose `placement` blocks have `experts` as their FFN; other arguments are timm's.

    experts: makes the FFN from `in_features`, `hidden_features` and options; experts_options: further ones.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        *,
        experts: Callable[..., nn.Module],
        placement: Placement,
        block: type[ExpertBlock | SoftExpertBlock] = ExpertBlock,
        experts_options: dict[str, Any] | None = None,
        depth: int = 12,
        class_token: bool = True,
        global_pool: Literal["", "avg", "token"] = "token",
        **arguments: Any,
    ) -> None:
        layers, options, built = expert_layers(placement, depth), experts_options or {}, count()

        def make_block(*, mlp_layer: Any, **common: Any) -> Block:
            if next(built) not in layers:
                return Block(mlp_layer=mlp_layer, **common)
            made = block(mlp_layer=partial(experts, **options), **common)  # type: ignore[arg-type]  # only called
            return made.to(device=common.get("device"), dtype=common.get("dtype"))

        super().__init__(
            img_size=img_size,
            depth=depth,
            class_token=class_token,
            no_embed_class=True,
            global_pool=global_pool,
            fc_norm=False,  # the final norm stays on the patch map, where the head reuses it
            block_fn=make_block,  # type: ignore[arg-type]  # only called
            **arguments,
        )

    def balance_loss(self) -> Tensor:
        """What to add to the task's loss after a forward in training mode."""
        return balance_loss(self)


def expert_layers(placement: Placement, depth: int) -> frozenset[int]:
    """Indices of the blocks with experts, from 0: all, the even ones counted from 1, the last two of those, or the
    second half.

    The second and third are V-MoE's (github.com/google-research/vmoe, configs/vmoe_paper/pretrain_imagenet21k.py), the
    last is Soft MoE's (arXiv 2308.00951, section 3).

    >>> sorted(expert_layers("last_2", 12))
    [9, 11]
    """
    even = range(1, depth, 2)
    chosen = {"every": range(depth), "every_2": even, "last_2": even[-2:], "second_half": range(depth // 2, depth)}
    return frozenset(chosen[placement])
