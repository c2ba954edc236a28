"""Exact multiply-adds of a forward pass, from the operators that it dispatches.

Modules and inputs are on the meta device: nothing is computed, and every operator is seen. The module must be eager, as
a compiled one hides its operators. The pass runs in inference mode, where composite operators (linear, attention)
arrive whole, and attention is never lost to a fused kernel (pytorch issue 195460: the CPU's counts as zero).

A formula takes an operator's arguments and output and returns an integer. Conventions, where an operator is not a plain
sum of products:
- interpolation: one multiply-add per weighted neighbour of each output value (bilinear 4, bicubic 16); antialiased
  interpolation is separable, two passes with the filter's own width; nearest 0.
- FFT: radix 2, 5 N log2 N floating-point operations for a complex transform of N points (Cooley and Tukey 1965, as
  FFTW reports it), half of that for a real one, two of them to a multiply-add, rounded up.
- fused attention: the products of queries with keys and of weights with values; a mask saves nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# Operators whose outputs are activations in the sense of timm's `macts` column (fvcore's ActivationCountAnalysis).
_LAYER_PREFIXES = ("aten.conv", "aten._conv", "aten.cudnn_convolution")
_LAYERS = frozenset(f"aten.{name}" for name in ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum"))
Arguments = tuple[Any, ...]
Keywords = Mapping[str, Any]
Formula = Callable[[Arguments, Keywords, Any], int]
MetaShape = Callable[[Arguments], Any]

_FLOPS_PER_MAC = 2  # as torch's own formulas count

# Operators without multiply-adds worth counting, as in every published count (a fraction of a percent). The list is
# explicit so that a matrix product can never hide in it: what is neither here nor has a formula is unknown. In this
# order: views, copies, creation, element-wise, reductions, norms, pooling, bookkeeping.
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
    """Names, e.g. `aten.gelu`, of the operators that count as zero."""
    return frozenset(f"aten.{name}" for name in _ZERO.split()) | {"prim.device", "prim.layout"}


def _operator_name(operator: Any) -> str:
    """`aten.linear` for `torch.ops.aten.linear.default`."""
    return str(getattr(operator, "_overloadpacket", operator))


def formulas() -> dict[str, Formula]:
    """The formula of every operator that multiplies and adds, by name; torch's own fill the rest."""
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
        (_weighted_bags, "embedding_bag _embedding_bag _embedding_bag_forward_only"),
        (_grid_sample, "grid_sampler grid_sampler_2d grid_sampler_3d"),
        (_recurrent, "lstm gru rnn_tanh rnn_relu"),
        (_fft, "_fft_c2c _fft_r2c _fft_c2r"),
    ]
    return {
        **{_operator_name(operator): _halved(flops) for operator, flops in flop_registry.items()},
        **{f"aten.{name}": formula for formula, names in ours for name in names.split()},
        "torchvision.deform_conv2d": _deformable_convolution,
    }


def _halved(flops: Callable[..., int]) -> Formula:
    return lambda args, kwargs, out: int(flops(*args, **kwargs, out_val=out)) // _FLOPS_PER_MAC


def _contracts(position: int) -> Formula:
    """One multiply-add per output value and entry of the last dimension of this argument."""
    return lambda args, kwargs, out: int(out.numel() * args[position].shape[-1])


def _per_output(number: int) -> Formula:
    return lambda args, kwargs, out: int(out.numel() * number)


def _convolution(args: Arguments, kwargs: Keywords, out: Any) -> int:
    """Every output value meets one filter."""
    return int(out.numel() * args[1][0].numel())


def _transposed_convolution(args: Arguments, kwargs: Keywords, out: Any) -> int:
    """Every input value meets one filter."""
    return int(args[0].numel() * args[1][0].numel())


def _either_convolution(args: Arguments, kwargs: Keywords, out: Any) -> int:
    return (_transposed_convolution if args[6] else _convolution)(args, kwargs, out)


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


def _weighted_bags(args: Arguments, kwargs: Keywords, out: Any) -> int:
    """One multiply-add per value of every row that is taken with a weight; rows without weights are only added."""
    weights = args[6] if len(args) > 6 else kwargs.get("per_sample_weights")
    return 0 if weights is None else int(args[1].numel() * args[0].shape[-1])


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

    torch derives outputs on the meta device in Python, at 0.2 to 1 ms per call, half of a count's time; these: 5 us.
    """
    same = ("gelu", "silu", "relu", "sigmoid", "batch_norm", "dropout")
    return {
        **{f"aten.{name}.default": lambda args: torch.empty_like(args[0]) for name in same},
        **{
            f"aten.{name}.default": lambda args: torch.empty_like(args[0], memory_format=torch.contiguous_format)
            for name in ("layer_norm", "rms_norm")
        },
        "aten.linear.default": lambda args: args[0].new_empty((*args[0].shape[:-1], args[1].shape[0])),
        "aten.scaled_dot_product_attention.default": lambda args: args[0].new_empty(
            (*args[0].shape[:-1], args[2].shape[-1])
        ),
        "aten.lstm.input": _lstm,
    }


def _lstm(args: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    """Output of every step, last hidden state, last cell state; `args[7]`: whether both directions run."""
    steps, (hidden, cell) = args[0], args[1]
    directions = 2 if args[7] else 1
    return (
        steps.new_empty((*steps.shape[:2], directions * hidden.shape[-1])),
        torch.empty_like(hidden),
        torch.empty_like(cell),
    )


@dataclass(frozen=True, slots=True)
class Count:
    """The cost of one forward pass.

    macs: multiply-adds. by_op: multiply-adds per operator, zeros left out. ops_seen: calls per operator.
    activations: output elements of convolutions, linear layers and matrix products, as in timm's `macts`; the N x N
    weights inside a fused attention are never written and do not count.
    unknown_ops: operators with neither a formula nor a place among the known zeros; `macs` is then a lower bound.
    """

    macs: int
    activations: int
    by_op: Mapping[str, int] = field(default_factory=dict)
    ops_seen: Mapping[str, int] = field(default_factory=dict)
    unknown_ops: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether no operator is unknown."""
        return not self.unknown_ops


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operator dispatched while active; `on_macs` receives the multiply-adds of each as it runs."""

    supports_higher_order_operators = True

    def __init__(self, on_macs: Callable[[int], None] = lambda macs: None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._formulas = formulas()
        self._zero = known_zero()
        self._shapes = meta_shapes()
        self._on_macs = on_macs
        self._macs: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._unknown: set[str] = set()
        self._activations = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func` and count it; a composite operator without a formula is taken apart first."""
        kwargs = kwargs or {}
        name = _operator_name(func)
        formula = self._formulas.get(name)
        if formula is None and name not in self._zero:
            if isinstance(func, torch._ops.OpOverload):
                with self:
                    parts = func.decompose(*args, **kwargs)
                if parts is not NotImplemented:
                    return parts
            self._unknown.add(name)
        shape = self._shapes.get(str(func))
        is_plain = not kwargs and all(arg.is_meta for arg in args if isinstance(arg, Tensor))
        out = shape(args) if shape is not None and is_plain else func(*args, **kwargs)
        self._seen[name] += 1
        if formula is not None:
            macs = formula(args, kwargs, out)
            self._macs[name] += macs
            self._on_macs(macs)
            if isinstance(out, Tensor) and (name in _LAYERS or name.startswith(_LAYER_PREFIXES)):
                self._activations += out.numel()
        return out

    def result(self) -> Count:
        """The count so far."""
        return Count(
            macs=self._macs.total(),
            activations=self._activations,
            by_op=dict(self._macs),
            ops_seen=dict(self._seen),
            unknown_ops=tuple(sorted(self._unknown)),
        )


def count(module: Callable[..., Any], *inputs: Any) -> Count:
    """The count of `module(*inputs)`, both on the meta device.

    >>> layer = torch.nn.Linear(3, 5, device="meta")
    >>> count(layer, torch.empty(2, 3, device="meta")).macs
    30
    """
    counting = Counting()
    with torch.inference_mode(), counting:
        module(*inputs)
    return counting.result()
