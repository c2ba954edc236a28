"""The EoMT head: queries join the backbone's own last blocks (arXiv 2503.19108), to be compared with LUMA.

B batch, K queries, P prefix tokens, N = h w patch tokens, T = P + K + N, D channels, J joint blocks, C classes.
Queries see patches and patches see queries: unlike under LUMA, the features are not those of the backbone alone.
Joint blocks are freed of their masks one after the other, the earliest first, so that the trained model needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from luma_cli.backbone.backbone import (
    Backbone,
    TokenSequence,
    add_queries,
    num_prefix_tokens,
    run_joint_block,
    tokens_before,
)
from luma_cli.catalogue.heads import EomtPlan, HeadConfig
from luma_cli.errors import UsageError
from luma_cli.head.parts import NORM_EPS, HeadOutput, MaskModule

_Kind = Literal["all", "drawn", "none"]  # which queries are masked in a joint block


@dataclass(frozen=True, slots=True)
class MaskAnnealing:
    """Steps of the optimiser between which each joint block goes from always masked to never (section 3.3).

    Schedules: https://github.com/tue-mps/eomt, configs/ and training/lightning_module.py.

    >>> MaskAnnealing.published(600, 4).probabilities(250)
    (0.0, 0.535886731268146, 1.0, 1.0)
    """

    starts: tuple[float, ...]
    ends: tuple[float, ...]
    power: float = 0.9  # of the polynomial decay, section 4.1

    def __post_init__(self) -> None:
        """Raise UsageError for a schedule that does not say an interval of steps per block."""
        if len(self.starts) != len(self.ends) or not self.starts:
            raise UsageError(f"{len(self.starts)} starts and {len(self.ends)} ends, expected one of each per block")
        for start, end in zip(self.starts, self.ends, strict=True):
            if not 0 <= start <= end:
                raise UsageError(f"masks are annealed from step {start} to {end}, expected 0 or more, start before end")

    @classmethod
    def published(cls, num_steps: int, num_joint: int) -> MaskAnnealing:
        """As in all configurations released for DINOv2: starts from a sixth to two thirds, a sixth of the steps each.

        A head of one joint block has the first of them, which is the same for every number of blocks.
        """
        phase = num_steps / 6
        firsts = [1 + 3 * block / max(1, num_joint - 1) for block in range(num_joint)]
        return cls(tuple(first * phase for first in firsts), tuple((first + 1) * phase for first in firsts))

    def probabilities(self, step: int) -> tuple[float, ...]:
        """Per joint block, the probability that a query of an image is masked in optimiser step `step`, from 0."""
        return tuple(self._probability(step, *ends) for ends in zip(self.starts, self.ends, strict=True))

    def _probability(self, step: int, start: float, end: float) -> float:
        if step < start:
            return 1.0
        return 0.0 if step >= end else (1 - (step - start) / (end - start)) ** self.power


class EomtHead(MaskModule):
    """Queries, and the mask module that predicts from them and the patches after (in training also before) each block.

    Holds no parameter of the backbone, which comes with every call. A backbone without a final norm gets a fresh one,
    shared by queries and patches as its own would be.
    `mask_probabilities`, one per joint block and 1 at first, is what `MaskAnnealing` says for the current step; it is
    no part of the state dict, as the step decides it. A compiled head reads it as a tensor, and is compiled again only
    when a block begins or ends to be annealed.
    """

    mask_thresholds: Tensor

    def __init__(self, plan: EomtPlan, config: HeadConfig) -> None:
        super().__init__(plan.width, config.num_classes, plan.num_scale_blocks)
        self.plan = plan
        self.queries = nn.Embedding(config.num_queries, plan.width)
        self.norm = None if plan.shares_final_norm else nn.LayerNorm(plan.width, eps=NORM_EPS)
        self.register_buffer("mask_thresholds", torch.ones(plan.num_joint), persistent=False)
        self.anneal((1.0,) * plan.num_joint)

    def anneal(self, probabilities: Sequence[float]) -> None:
        """Set the probabilities that a query is masked, one per joint block from 0 to 1. Raises UsageError."""
        given, expected = tuple(probabilities), self.plan.num_joint
        if len(given) != expected or not all(0 <= value <= 1 for value in given):
            raise UsageError(f"mask probabilities {given}, expected {expected} from 0 to 1, one per block")
        self.mask_probabilities = given
        self._kinds: tuple[_Kind, ...] = tuple("none" if p == 0 else "all" if p == 1 else "drawn" for p in given)
        self.mask_thresholds.copy_(torch.tensor(self.mask_probabilities))

    def read(self, backbone: Backbone, images: Tensor) -> TokenSequence:
        """What the head takes from the backbone: the tokens of images [B, 3, H, W] before the joint blocks."""
        return tokens_before(backbone, images, self.plan.num_joint)

    def forward(self, sequence: TokenSequence, mask_size: tuple[int, int], backbone: Backbone) -> HeadOutput:
        """Tokens before the joint blocks and the side lengths of the masks -> the final prediction.

        Without masked attention, unless the head keeps it.
        """
        if self.plan.masked:
            return self.predictions(sequence, mask_size, backbone, None)[-1]
        joined = add_queries(sequence, self.queries.weight, num_prefix_tokens(backbone))
        for number in range(self.plan.num_joint):
            joined = run_joint_block(backbone, joined, number)
        return self._predict(joined, mask_size, backbone)

    def predictions(
        self, sequence: TokenSequence, mask_size: tuple[int, int], backbone: Backbone, draws: Tensor | None
    ) -> tuple[HeadOutput, ...]:
        """All supervised predictions, one before each joint block and the final one last, under masked attention.

        draws: numbers [B, J, K] from U[0, 1) that decide which queries go unmasked where a probability lies between 0
        and 1. Raises UsageError when they are missing there.
        """
        joined = add_queries(sequence, self.queries.weight, num_prefix_tokens(backbone))
        found = []
        for number, kind in enumerate(self._kinds):
            found.append(self._predict(joined, mask_size, backbone))
            mask = None
            if kind != "none":
                spared = self._spared(number, draws) if kind == "drawn" else None
                mask = self._mask(found[-1].mask_logits, joined.grid, num_prefix_tokens(backbone), spared)
            joined = run_joint_block(backbone, joined, number, mask)
        return (*found, self._predict(joined, mask_size, backbone))

    def _spared(self, number: int, draws: Tensor | None) -> Tensor:
        """Boolean [B, K, 1]: which queries of which images go unmasked in a joint block, by numbers [B, J, K]."""
        if draws is None:
            raise UsageError("masks are annealed, some queries by chance: pass numbers [B, J, K] to draw by")
        return draws[:, number, :, None] >= self.mask_thresholds[number]

    def _predict(self, joined: TokenSequence, mask_size: tuple[int, int], backbone: Backbone) -> HeadOutput:
        """Class and mask logits of the tokens [B, T, D] after the final norm."""
        tokens = backbone.norm_tokens(joined.tokens) if self.norm is None else self.norm(joined.tokens)
        first = num_prefix_tokens(backbone)
        last = first + self.queries.num_embeddings
        return self.predict(tokens[:, first:last], tokens[:, last:], joined.grid, mask_size)

    @staticmethod
    def _mask(mask_logits: Tensor, grid: tuple[int, int], num_prefix: int, spared: Tensor | None) -> Tensor:
        """Boolean [B, 1, T, T]: a masked query sees the patches of its own mask, all else sees all.

        spared: boolean [B, K, 1], queries that are not masked; None for none. No row is ever empty, as every query sees
        queries and prefix tokens.
        """
        resized = interpolate(mask_logits.detach(), grid, mode="bilinear", align_corners=False)
        allowed = resized.flatten(2) > 0
        if spared is not None:
            allowed = allowed | spared
        batch, num_queries, num_patches = allowed.shape
        num_tokens = num_prefix + num_queries + num_patches
        mask = allowed.new_ones(batch, 1, num_tokens, num_tokens)
        mask[:, 0, num_prefix : num_prefix + num_queries, -num_patches:] = allowed
        return mask
