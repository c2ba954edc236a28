"""Multiply-adds of single operators, from the shapes that went in and came out.

A formula takes the operator's arguments and its output and returns an integer. Conventions, where an operator is not
a plain sum of products:
- interpolation: one multiply-add per weighted neighbour of each output value (bilinear 4, bicubic 16); antialiased
  interpolation is separable, two passes with the filter's own width; nearest 0.
- FFT: radix 2, 5 N log2 N floating-point operations for a complex transform of N points (Cooley and Tukey 1965, as
  FFTW reports it), half of that for a real one, two of them to a multiply-add, rounded up.
- fused attention: the products of queries with keys and of weights with values; a mask saves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

Formula = Callable[[tuple[Any, ...], Mapping[str, Any], Any], int]
_INTERPOLATION_TAPS = {"linear1d": 2, "bilinear2d": 4, "trilinear3d": 8, "bicubic2d": 16}
_GRID_SAMPLE_BICUBIC, _GRID_SAMPLE_NEAREST = 2, 1


def formulas() -> dict[str, Formula]:
    """Every operator that multiplies and adds, by its name without overload, e.g. `aten.linear`.

    Ours come first; what torch itself has a formula for (at 2 FLOPs each, halved here) fills the rest.
    """
    return {**_from_torch(), **_products(), **_convolutions(), **_attentions(), **_resampling(), **_others()}


def operator_name(operator: Any) -> str:
    """`aten.linear` for `torch.ops.aten.linear.default`."""
    return str(getattr(operator, "_overloadpacket", operator))


def _from_torch() -> dict[str, Formula]:
    def halved(flops: Callable[..., int]) -> Formula:
        return lambda args, kwargs, out: int(flops(*args, **kwargs, out_val=out)) // 2

    return {operator_name(operator): halved(flops) for operator, flops in flop_registry.items()}


def _products() -> dict[str, Formula]:
    """Matrix products: as many multiply-adds per output value as the contracted dimension is long."""

    def contracts(position: int) -> Formula:
        return lambda args, kwargs, out: int(out.numel() * args[position].shape[-1])

    plain = {f"aten.{name}": contracts(0) for name in ("linear", "matmul", "mm", "bmm", "mv", "dot", "vdot", "inner")}
    added = {f"aten.{name}": contracts(1) for name in ("addmm", "addmm_", "baddbmm", "baddbmm_", "addmv")}
    return {**plain, **added, "aten.addbmm": lambda args, kwargs, out: int(args[1].numel() * args[2].shape[-1])}


def _convolutions() -> dict[str, Formula]:
    """Convolutions: every output value, or for transposed ones every input value, meets one filter."""

    def forward(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        return int(out.numel() * args[1][0].numel())

    def transposed(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        return int(args[0].numel() * args[1][0].numel())

    def either(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        return transposed(args, kwargs, out) if args[6] else forward(args, kwargs, out)

    return {
        **{f"aten.conv{n}d": forward for n in (1, 2, 3)},
        **{f"aten.conv_transpose{n}d": transposed for n in (1, 2, 3)},
        "aten.convolution": either,
        "aten._convolution": either,
        "aten._conv_depthwise2d": forward,
        "torchvision.deform_conv2d": _deformable_convolution,
    }


def _deformable_convolution(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    """A convolution whose every input value is first sampled bilinearly from 4 neighbours."""
    image, weight = args[0], args[1]
    filter_size = weight.shape[2] * weight.shape[3]
    sampled = image.shape[0] * image.shape[1] * out.shape[2] * out.shape[3] * filter_size
    return int(out.numel() * weight[0].numel() + 4 * sampled)


def _attentions() -> dict[str, Formula]:
    def attention(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        query, key, value = args[:3]
        scores = query[..., 0].numel() * key.shape[-2]
        return int(scores * (query.shape[-1] + value.shape[-1]))

    return {
        "aten.scaled_dot_product_attention": attention,
        "aten._scaled_dot_product_attention_math": attention,
        "aten._scaled_dot_product_flash_attention_for_cpu": attention,
    }


def _resampling() -> dict[str, Formula]:
    def taps(number: int) -> Formula:
        return lambda args, kwargs, out: int(out.numel() * number)

    def antialiased(filter_width: int) -> Formula:
        def separable(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
            (rows_in, columns_in), (rows, columns) = args[0].shape[-2:], out.shape[-2:]
            across = math.ceil(filter_width * max(1.0, columns_in / columns))
            down = math.ceil(filter_width * max(1.0, rows_in / rows))
            maps = out.shape[0] * out.shape[1]
            return int(maps * columns * (rows_in * across + rows * down))

        return separable

    def grid_sample(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        per_side = {_GRID_SAMPLE_NEAREST: 0, _GRID_SAMPLE_BICUBIC: 4}.get(args[2], 2)
        return int(out.numel() * per_side ** (args[0].dim() - 2))

    return {
        **{f"aten.upsample_{kind}": taps(number) for kind, number in _INTERPOLATION_TAPS.items()},
        "aten._upsample_bilinear2d_aa": antialiased(2),
        "aten._upsample_bicubic2d_aa": antialiased(4),
        **{f"aten.{name}": grid_sample for name in ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")},
    }


def _others() -> dict[str, Formula]:
    def recurrent(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        steps = args[0][..., 0].numel()
        weights = next(arg for arg in args[2:4] if isinstance(arg, (list, tuple)) and arg[0].dim() == 2)
        return int(steps * sum(weight.numel() for weight in weights if weight.dim() == 2))

    def distances(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        return int(out.numel() * args[0].shape[-1])

    def fft(args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
        full = max((args[0], out), key=Tensor.numel) if not torch.is_complex(args[0]) else args[0]
        real = not (torch.is_complex(args[0]) and torch.is_complex(out))
        signal = out if real and torch.is_complex(args[0]) else full
        points = math.prod(signal.shape[dim] for dim in args[1])
        flops = 5 * signal.numel() * math.log2(points) if points > 1 else 0.0
        return math.ceil(flops / (4 if real else 2))

    return {
        **{f"aten.{name}": recurrent for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
        **{f"aten.{name}": distances for name in ("cdist", "_cdist_forward", "_euclidean_dist")},
        **{f"aten._fft_{kind}": fft for kind in ("c2c", "r2c", "c2r")},
    }
