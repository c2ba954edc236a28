"""Operators that do no multiply-adds worth counting, by name: everything not here and without a formula is unknown.

Element-wise work, norms, softmax, pooling, reductions, indexing and views are left at zero by every published count
(they are a fraction of a percent); the point of this explicit list is that a matrix product can never hide in it.
"""

from __future__ import annotations

_VIEWS = """
alias as_strided as_strided_ broadcast_to chunk contiguous detach detach_ diagonal expand expand_as flatten lift_fresh
movedim moveaxis mH mT narrow numpy_T permute pixel_shuffle pixel_unshuffle ravel real imag reshape reshape_as
select slice split split_with_sizes squeeze squeeze_ swapaxes swapdims t t_ tensor_split transpose transpose_ unbind
unflatten unfold unsqueeze unsqueeze_ view view_as view_as_complex view_as_real _conj _reshape_alias _unsafe_view
resolve_conj resolve_neg hsplit vsplit unsafe_chunk unsafe_split unsafe_split_with_sizes _neg_view conj
"""
_COPIES = """
_to_copy to type_as clone copy copy_ cat concat concatenate stack hstack vstack dstack pad constant_pad_nd
_pad_enum reflection_pad1d reflection_pad2d replication_pad2d roll repeat repeat_interleave tile flip fliplr flipud
rot90 gather scatter scatter_ scatter_add scatter_add_ scatter_reduce index index_select index_put index_put_
_unsafe_index index_add index_add_ index_copy index_copy_ masked_fill masked_fill_ masked_select masked_scatter where
take take_along_dim embedding one_hot im2col col2im tril triu tril_ triu_ channel_shuffle native_channel_shuffle
upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d unfold_copy diag diag_embed block_diag
"""
_CREATION = """
arange empty empty_like empty_strided eye fill fill_ full full_like linspace logspace meshgrid new_empty new_full
new_ones new_zeros new_empty_strided ones ones_like rand rand_like randn randn_like randint randperm scalar_tensor zero
zero_ zeros zeros_like bernoulli bernoulli_ normal_ uniform_ random_ exponential_ multinomial _efficientzerotensor
"""
_ELEMENTWISE = """
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
"""
_REDUCTIONS = """
all amax amin any aminmax argmax argmin argsort bincount bucketize count_nonzero cummax cummin cumprod cumsum
frobenius_norm kthvalue linalg_norm linalg_vector_norm logsumexp max mean median min mode nansum nonzero norm prod
searchsorted sort std std_mean sum topk unique unique_consecutive _unique2 var var_mean equal is_nonzero item
_local_scalar_dense allclose isclose sym_size
"""
_NORMS = """
batch_norm _batch_norm_impl_index _native_batch_norm_legit _native_batch_norm_legit_no_training native_batch_norm
cudnn_batch_norm group_norm native_group_norm instance_norm layer_norm native_layer_norm rms_norm _fused_rms_norm
local_response_norm normalize softmax _softmax log_softmax _log_softmax _safe_softmax softmin weight_norm
_weight_norm _weight_norm_interface l1_loss cosine_similarity
"""
_POOLING = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d
avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool1d_with_indices
fractional_max_pool2d max_unpool2d
"""
_BOOKKEEPING = """
_assert_async _assert_scalar _assert_tensor_metadata _has_compatible_shallow_copy_type is_contiguous is_same_size size
stride storage_offset numel dim sym_numel sym_stride is_pinned record_stream fft_fftshift fft_ifftshift result_type
"""


def known_zero() -> frozenset[str]:
    """Names without overload, e.g. `aten.gelu`, of the operators that count as zero."""
    groups = (_VIEWS, _COPIES, _CREATION, _ELEMENTWISE, _REDUCTIONS, _NORMS, _POOLING, _BOOKKEEPING)
    return frozenset(f"aten.{name}" for group in groups for name in group.split()) | {"prim.device", "prim.layout"}
