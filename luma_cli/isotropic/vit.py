"""timm's Vision Transformer with another token mixer in its blocks.

Everything but the mixer is timm's (patch and position embedding, class token, `forward_intermediates`, parameter
groups), so that the mixer is all that differs between two of them. As in the WTF benchmark (arXiv 2308.09372), whose
checkpoints `wtf.py` converts, the class token has no position and both branches of a block have a LayerScale, which
`vit_*_patch16_224` lacks (`init_values=None` leaves it out here too).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from timm.layers.helpers import to_2tuple
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from luma_cli.isotropic.block import MakeMixer, MixerBlock
from luma_cli.isotropic.mixer import Sequence

LAYER_SCALE = 1e-4  # the benchmark's config.py


class IsotropicViT(VisionTransformer):
    """A VisionTransformer of MixerBlocks; all other arguments are timm's."""

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        *,
        mixer: MakeMixer,
        block_fn: Callable[..., nn.Module] = MixerBlock,
        class_token: bool = True,
        global_pool: Literal["", "avg", "token"] = "token",
        init_values: float | None = LAYER_SCALE,
        **arguments: Any,
    ) -> None:
        sequence = Sequence(patch_grid(img_size, patch_size), int(class_token) + arguments.get("reg_tokens", 0))
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            class_token=class_token,
            no_embed_class=True,
            global_pool=global_pool,
            init_values=init_values,
            fc_norm=False,  # the final norm stays on the patch map, where the head reuses it
            block_fn=partial(block_fn, mixer=mixer, sequence=sequence),  # type: ignore[arg-type]  # only called
            **arguments,
        )


def patch_grid(img_size: int | tuple[int, int], patch_size: int | tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of whole patches in an image.

    >>> patch_grid((64, 100), 16)
    (4, 6)
    """
    (height, width), (rows, columns) = to_2tuple(img_size), to_2tuple(patch_size)
    return height // rows, width // columns
