"""timm's Vision Transformer with another token mixer in its blocks, and what all mixers share.

Everything but the mixer is timm's (patch and position embedding, class token, `forward_intermediates`, parameter
groups), so that the mixer is all that differs between two models. As in the WTF benchmark (arXiv 2308.09372), whose
checkpoints `checkpoints.py` converts, the class token has no position and both branches of a block have a LayerScale,
which `vit_*_patch16_224` lacks (`init_values=None` leaves it out here too).
B batch, N tokens (P prefix tokens, then the h w patches row by row), C channels, H heads of d channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from timm.layers.drop import DropPath
from timm.layers.helpers import to_2tuple
from timm.layers.layer_scale import LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate


@dataclass(frozen=True, slots=True)
class Sequence:
    """The tokens that a model is built for: `grid` patches (rows, columns) after `num_prefix` class tokens."""

    grid: tuple[int, int]
    num_prefix: int = 0

    @property
    def length(self) -> int:
        """Tokens in all."""
        return self.num_prefix + self.grid[0] * self.grid[1]


class TokenMixer(nn.Module):
    """Tokens [B, N, C] -> tokens [B, N, C].

    A subclass takes `(width, num_heads, sequence, **options)`. num_heads: what the LUMA head follows where the mixer
    has heads of its own.
    """

    def __init__(self, width: int, num_heads: int, sequence: Sequence) -> None:
        super().__init__()
        self.width = width
        self.num_heads = num_heads
        self.sequence = sequence

    def split_heads(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, H, N, d]."""
        batch, length, _ = tokens.shape
        return tokens.reshape(batch, length, self.num_heads, -1).transpose(1, 2)

    def merge_heads(self, heads: Tensor) -> Tensor:
        """[B, H, N, d] -> [B, N, C]."""
        return heads.transpose(1, 2).flatten(2)

    def check_length(self, tokens: Tensor) -> None:
        """Raises ValueError when `tokens` [B, N, C] are not as many as a mixer bound to N was built for."""
        if tokens.shape[1] != self.sequence.length:
            raise ValueError(
                f"{tokens.shape[1]} tokens, but the mixer is built for {self.sequence.length}; "
                "build the model at this img_size, without dropping patches"
            )

    def resampled(self, name: str, value: Tensor) -> Tensor:
        """`value` of the parameter `name`, stored for another sequence, brought to this one's shape.

        Parameters that do not depend on the sequence come back as they are; so does one that cannot be resampled,
        which loading then refuses by its shape.
        """
        return value


class QkvMixer(TokenMixer):
    """A mixer of queries, keys and values, which one linear layer makes, with another layer on the result."""

    def __init__(self, width: int, num_heads: int, sequence: Sequence, qkv_bias: bool = True) -> None:
        super().__init__(width, num_heads, sequence)
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def in_heads(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values [B, H, N, d] of tokens [B, N, C]."""
        return tuple(map(self.split_heads, self.qkv(tokens).chunk(3, dim=-1)))

    def out_of_heads(self, heads: Tensor) -> Tensor:
        """[B, H, N, d] -> [B, N, C] through the last layer."""
        result: Tensor = self.proj(self.merge_heads(heads))
        return result


MakeMixer = Callable[[int, int, Sequence], TokenMixer]
# What timm's constructor says about attention and no mixer takes, as timm has it when nothing is said.
_ATTENTION = {
    "qkv_bias": True,
    "qk_norm": False,
    "proj_bias": True,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "attn_drop": 0.0,
}


class MixerBlock(nn.Module):
    """tokens + mixer(norm(tokens)), then tokens + mlp(norm(tokens)) (arXiv 2010.11929, section 3.1).

    Names of parts, LayerScale and stochastic depth are those of timm's `Block`.
    Raises ValueError for a setting of timm's that is about attention's own layers.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mixer: MakeMixer,
        sequence: Sequence,
        mlp_ratio: float,
        init_values: float | None,
        proj_drop: float,
        drop_path: float,
        norm_layer: Callable[..., nn.Module],
        act_layer: Callable[..., nn.Module],
        mlp_layer: Callable[..., nn.Module],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **attention: Any,
    ) -> None:
        super().__init__()
        usual = ((name, attention.get(name, default), default) for name, default in _ATTENTION.items())
        asked = [f"{name}={value}" for name, value, default in usual if value != default]
        if asked:
            raise ValueError(
                f"{', '.join(asked)} is about attention, in whose place a token mixer stands; leave it out"
            )
        self.norm1 = norm_layer(dim)
        self.attn = mixer(dim, num_heads, sequence)
        self.ls1 = LayerScale(dim, init_values=init_values) if init_values else nn.Identity()
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = mlp_layer(in_features=dim, hidden_features=int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.ls2 = LayerScale(dim, init_values=init_values) if init_values else nn.Identity()
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()
        self.to(device=device, dtype=dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        tokens = tokens + self.drop_path1(self.ls1(self.attn(self.norm1(tokens))))
        result: Tensor = tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))
        return result


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


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32, or `dtype` itself where it has that precision or more."""
    return torch.promote_types(dtype, torch.float32)


def widened(tensor: Tensor) -> Tensor:
    """`tensor` in float32, or as it is where it has that or more (cuFFT knows no bfloat16)."""
    return tensor.to(wide(tensor.dtype))


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Within, autocast does not turn float32 products on `device` into half-precision ones; meta has no autocast."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def over_grid(value: Tensor, sequence: Sequence, dim: int) -> Tensor:
    """`value` with one entry per token along `dim`, bilinear over the patch grid; entries of prefix tokens are kept.

    Values are interpolated, never rescaled, as in the WTF benchmark's `set_image_res`: what sums over tokens grows with
    their number. The grid that it was stored for is taken to be square. One that cannot be comes back as it is.
    """
    old_length = value.shape[dim] - sequence.num_prefix
    side = math.isqrt(max(old_length, 0))
    if value.shape[dim] == sequence.length or side == 0 or side * side != old_length:
        return value
    last = value.movedim(dim, -1)
    prefix, patches = last[..., : sequence.num_prefix], last[..., sequence.num_prefix :]
    maps = patches.reshape(1, -1, side, side).float()
    resized = interpolate(maps, size=sequence.grid, mode="bilinear", align_corners=False).to(value.dtype)
    merged = torch.cat([prefix, resized.reshape(*last.shape[:-1], -1)], dim=-1)
    return merged.movedim(-1, dim).contiguous()


def along(value: Tensor, size: int, dim: int) -> Tensor:
    """`value` with `size` entries along `dim`, linear between neighbours."""
    if value.shape[dim] == size:
        return value
    last = value.movedim(dim, -1)
    resized = interpolate(last.reshape(1, -1, last.shape[-1]).float(), size=size, mode="linear", align_corners=False)
    return resized.reshape(*last.shape[:-1], size).movedim(-1, dim).to(value.dtype).contiguous()
