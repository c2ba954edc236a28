"""timm's Vision Transformer with experts in some of its blocks; attention and all else is timm's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any, Literal

from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from luma_cli.isotropic.experts.expert_block import ExpertBlock, SoftExpertBlock
from luma_cli.isotropic.experts.routed import balance_loss

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
        """What to add to the task's loss after a forward in training mode: see `routed.balance_loss`."""
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
