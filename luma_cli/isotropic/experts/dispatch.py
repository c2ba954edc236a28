"""Sending tokens to experts through buffers of fixed capacity, by indices alone: no shape depends on the data.

A group is the tokens of one image, so what becomes of an image never depends on the others in the batch. Nothing here
multiplies by one-hot matrices, whose cost would grow with the square of the tokens.
B images, N tokens, E experts, k choices per token, S slots per expert and image (the capacity), C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


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
    summed = weights[..., 0, None] * _read(results, dispatch.slots[..., 0])
    for choice in range(1, num_choices):
        summed = summed + weights[..., choice, None] * _read(results, dispatch.slots[..., choice])
    return summed.reshape(batch, num_tokens, -1)


def _read(results: Tensor, slots: Tensor) -> Tensor:
    return results.index_select(0, slots.flatten()).reshape(*slots.shape, -1)
