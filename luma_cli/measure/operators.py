"""Operators by name: multiply-adds by formula, those known to need none, and short ways to their outputs' shapes.

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

Arguments = tuple[Any, ...]
Keywords = Mapping[str, Any]
Formula = Callable[[Arguments, Keywords, Any], int]
MetaShape = Callable[[Arguments], Any]

_FLOPS_PER_MAC = 2  # as torch's own formulas count

# Operators without multiply-adds worth counting. Every published count leaves element-wise work, norms, softmax,
# pooling, reductions, indexing and views at zero (a fraction of a percent). The list is explicit so that a matrix
# product can never hide in it: what is neither here nor has a formula is unknown. In this order: views, copies,
# creation, element-wise, reductions, norms, pooling, bookkeeping.
_ZERO = """
alias as_strided as_strided_ broadcast_to chunk contiguous detach detach_ diagonal expand expand_as flatten lift_fresh
movedim moveaxis mH mT narrow numpy_T permute pixel_shuffle pixel_unshuffle ravel real imag reshape reshape_as
select slice split split_with_sizes squeeze squeeze_ swapaxes swapdims t t_ tensor_split transpose transpose_ unbind
unflatten unfold unsqueeze unsqueeze_ view view_as view_as_complex view_as_real _conj _reshape_alias _unsafe_view
resolve_conj resolve_neg hsplit vsplit unsafe_chunk unsafe_split unsafe_split_with_sizes _neg_view conj
_to_copy to type_as clone copy copy_ cat concat concatenate stack hstack vstack dstack pad constant_pad_nd
_pad_enum reflection_pad1d reflection_pad2d replication_pad2d roll repeat repeat_interleave tile flip fliplr flipud
rot90 gather scatter scatter_ scatter_add scatter_add_ scatter_reduce index index_select index_put index_put_
_unsafe_index index_add index_add_ index_copy index_copy_ masked_fill masked_fill_ masked_select masked_scatter where
take take_along_dim embedding one_hot im2col col2im tril triu tril_ triu_ channel_shuffle native_channel_shuffle
upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d unfold_copy diag diag_embed block_diag
arange empty empty_like empty_strided eye fill fill_ full full_like linspace logspace meshgrid new_empty new_full
new_ones new_zeros new_empty_strided ones ones_like rand rand_like randn randn_like randint randperm scalar_tensor zero
zero_ zeros zeros_like bernoulli bernoulli_ normal_ uniform_ random_ exponential_ multinomial _efficientzerotensor
abs abs_ add add_ addcdiv addcdiv_ addcmul addcmul_ bitwise_and bitwise_not bitwise_or bitwise_xor ceil ceil_ celu
clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clip clip_ cos cosh deg2rad div div_ divide elu elu_ eq erf erfc
erfinv exp exp2 exp_ expm1 floor floor_ floor_divide fmod ge gelu gelu_ glu greater gt hardshrink hardsigmoid
hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ isfinite isinf isnan le leaky_relu leaky_relu_ lerp lerp_ less
log log10 log1p log2 log_ log_sigmoid logical_and logical_not logical_or logical_xor logit lt maximum minimum mish
mish_ mul mul_ multiply nan_to_num ne neg neg_ negative pow pow_ prelu _prelu_kernel reciprocal relu relu6 relu6_ relu_
remainder round round_ rsqrt rsqrt_ rsub rrelu selu selu_ sgn sigmoid sigmoid_ sign silu silu_ sin sinh softplus
softshrink sqrt sqrt_ square sub sub_ subtract tan tanh tanh_ threshold threshold_ trunc true_divide xlogy float_power
complex polar angle dropout dropout_ feature_dropout alpha_dropout native_dropout log_sigmoid_forward hypot atan2
heaviside
all amax amin any aminmax argmax argmin argsort bincount bucketize count_nonzero cummax cummin cumprod cumsum
frobenius_norm kthvalue linalg_norm linalg_vector_norm logsumexp max mean median min mode nansum nonzero norm prod
searchsorted sort std std_mean sum topk unique unique_consecutive _unique2 var var_mean equal is_nonzero item
_local_scalar_dense allclose isclose sym_size
batch_norm _batch_norm_impl_index _native_batch_norm_legit _native_batch_norm_legit_no_training native_batch_norm
cudnn_batch_norm group_norm native_group_norm instance_norm layer_norm native_layer_norm rms_norm _fused_rms_norm
local_response_norm normalize softmax _softmax log_softmax _log_softmax _safe_softmax softmin weight_norm
_weight_norm _weight_norm_interface l1_loss cosine_similarity
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d
avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool1d_with_indices
fractional_max_pool2d max_unpool2d
_assert_async _assert_scalar _assert_tensor_metadata _has_compatible_shallow_copy_type is_contiguous is_same_size size
stride storage_offset numel dim sym_numel sym_stride is_pinned record_stream fft_fftshift fft_ifftshift result_type
"""


def known_zero() -> frozenset[str]:
    """Names without overload, e.g. `aten.gelu`, of the operators that count as zero."""
    return frozenset(f"aten.{name}" for name in _ZERO.split()) | {"prim.device", "prim.layout"}


def operator_name(operator: Any) -> str:
    """`aten.linear` for `torch.ops.aten.linear.default`."""
    return str(getattr(operator, "_overloadpacket", operator))


def formulas() -> dict[str, Formula]:
    """Every operator that multiplies and adds, by its name without overload, e.g. `aten.linear`.

    Ours come first; what torch itself has a formula for (at 2 FLOPs each, halved here) fills the rest.
    """
    ours: list[tuple[Formula, str]] = [
        (_contracts(0), "linear matmul mm bmm mv dot vdot inner cdist _cdist_forward _euclidean_dist"),
        (_contracts(1), "addmm addmm_ baddbmm baddbmm_ addmv"),
        (lambda args, kwargs, out: int(args[1].numel() * args[2].shape[-1]), "addbmm"),
        (_convolution, "conv1d conv2d conv3d _conv_depthwise2d"),
        (_transposed_convolution, "conv_transpose1d conv_transpose2d conv_transpose3d"),
        (_either_convolution, "convolution _convolution"),
        (_attention, "scaled_dot_product_attention _scaled_dot_product_attention_math"),
        (_attention, "_scaled_dot_product_flash_attention_for_cpu"),
        (_per_output(2), "upsample_linear1d"),
        (_per_output(4), "upsample_bilinear2d"),
        (_per_output(8), "upsample_trilinear3d"),
        (_per_output(16), "upsample_bicubic2d"),
        (_antialiased(2), "_upsample_bilinear2d_aa"),
        (_antialiased(4), "_upsample_bicubic2d_aa"),
        (_grid_sample, "grid_sampler grid_sampler_2d grid_sampler_3d"),
        (_recurrent, "lstm gru rnn_tanh rnn_relu"),
        (_fft, "_fft_c2c _fft_r2c _fft_c2r"),
    ]
    return {
        **{operator_name(operator): _halved(flops) for operator, flops in flop_registry.items()},
        **{f"aten.{name}": formula for formula, names in ours for name in names.split()},
        "torchvision.deform_conv2d": _deformable_convolution,
    }


def _halved(flops: Callable[..., int]) -> Formula:
    return lambda args, kwargs, out: int(flops(*args, **kwargs, out_val=out)) // _FLOPS_PER_MAC


def _contracts(position: int) -> Formula:
    """As many multiply-adds per output value as the last dimension of this argument is long."""
    return lambda args, kwargs, out: int(out.numel() * args[position].shape[-1])


def _per_output(number: int) -> Formula:
    """So many multiply-adds per output value."""
    return lambda args, kwargs, out: int(out.numel() * number)


def _convolution(args: Arguments, kwargs: Keywords, out: Any) -> int:
    """Every output value meets one filter."""
    return int(out.numel() * args[1][0].numel())


def _transposed_convolution(args: Arguments, kwargs: Keywords, out: Any) -> int:
    """Every input value meets one filter."""
    return int(args[0].numel() * args[1][0].numel())


def _either_convolution(args: Arguments, kwargs: Keywords, out: Any) -> int:
    is_transposed = args[6]
    return _transposed_convolution(args, kwargs, out) if is_transposed else _convolution(args, kwargs, out)


def _deformable_convolution(args: Arguments, kwargs: Keywords, out: Any) -> int:
    """A convolution whose every input value is first sampled bilinearly from 4 neighbours."""
    image, weight = args[0], args[1]
    filter_size = weight.shape[2] * weight.shape[3]
    sampled = image.shape[0] * image.shape[1] * out.shape[2] * out.shape[3] * filter_size
    return int(out.numel() * weight[0].numel() + 4 * sampled)


def _attention(args: Arguments, kwargs: Keywords, out: Any) -> int:
    query, key, value = args[:3]
    scores = query[..., 0].numel() * key.shape[-2]
    return int(scores * (query.shape[-1] + value.shape[-1]))


def _antialiased(filter_width: int) -> Formula:
    def separable(args: Arguments, kwargs: Keywords, out: Any) -> int:
        (rows_in, columns_in), (rows, columns) = args[0].shape[-2:], out.shape[-2:]
        across = math.ceil(filter_width * max(1.0, columns_in / columns))
        down = math.ceil(filter_width * max(1.0, rows_in / rows))
        maps = out.shape[0] * out.shape[1]
        return int(maps * columns * (rows_in * across + rows * down))

    return separable


def _grid_sample(args: Arguments, kwargs: Keywords, out: Any) -> int:
    nearest, bicubic = 1, 2  # torch's numbers of the modes; bilinear is 0
    per_side = {nearest: 0, bicubic: 4}.get(args[2], 2)
    return int(out.numel() * per_side ** (args[0].dim() - 2))


def _recurrent(args: Arguments, kwargs: Keywords, out: Any) -> int:
    steps = args[0][..., 0].numel()
    weights = next(arg for arg in args[2:4] if isinstance(arg, (list, tuple)) and arg[0].dim() == 2)
    return int(steps * sum(weight.numel() for weight in weights if weight.dim() == 2))


def _fft(args: Arguments, kwargs: Keywords, out: Any) -> int:
    full = max((args[0], out), key=Tensor.numel) if not torch.is_complex(args[0]) else args[0]
    real = not (torch.is_complex(args[0]) and torch.is_complex(out))
    signal = out if real and torch.is_complex(args[0]) else full
    points = math.prod(signal.shape[dim] for dim in args[1])
    flops = 5 * signal.numel() * math.log2(points) if points > 1 else 0.0
    return math.ceil(flops / (4 if real else 2))


def meta_shapes() -> Mapping[str, MetaShape]:
    """By operator and overload, e.g. `aten.gelu.default`: positional arguments -> an output without data.

    torch derives outputs on the meta device in Python, at 0.2 to 1 ms per call, which is half of the time of a count;
    these cost 5 microseconds. Only operators whose output follows plainly from their inputs are here.
    """
    same = ("gelu", "silu", "relu", "sigmoid", "batch_norm", "dropout")
    return {
        **{f"aten.{name}.default": lambda args: torch.empty_like(args[0]) for name in same},
        **{f"aten.{name}.default": _contiguous_like_first for name in ("layer_norm", "rms_norm")},
        "aten.linear.default": lambda args: args[0].new_empty((*args[0].shape[:-1], args[1].shape[0])),
        "aten.scaled_dot_product_attention.default": lambda args: args[0].new_empty(
            (*args[0].shape[:-1], args[2].shape[-1])
        ),
        "aten.lstm.input": _lstm,
    }


def applies(args: Arguments, kwargs: Keywords) -> bool:
    """Whether an operator with these arguments may take the short way: meta tensors only, nothing by keyword."""
    return not kwargs and all(arg.is_meta for arg in args if isinstance(arg, Tensor))


def _contiguous_like_first(args: Arguments) -> Tensor:
    return torch.empty_like(args[0], memory_format=torch.contiguous_format)


def _lstm(args: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    """Output of every step, last hidden state, last cell state; `args[7]` tells whether both directions run."""
    steps, (hidden, cell) = args[0], args[1]
    directions = 2 if args[7] else 1
    return (
        steps.new_empty((*steps.shape[:2], directions * hidden.shape[-1])),
        torch.empty_like(hidden),
        torch.empty_like(cell),
    )
