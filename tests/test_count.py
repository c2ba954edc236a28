"""Counting: against torch's own counter, closed forms, real tensors, timm's published numbers, and faults."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from luma_cli.measure.count import count, formulas, known_zero


def meta(name: str, side: int = 224, **options) -> tuple[nn.Module, torch.Tensor]:
    with torch.device("meta"):
        model = timm.create_model(name, **options).eval().requires_grad_(False)
    return model, torch.empty(1, 3, side, side, device="meta")


def torch_macs(call, *inputs) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(*inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("test_vit", 160, {}),
        ("test_vit2", 160, {}),
        ("test_convnext", 160, {}),
        ("test_efficientnet", 160, {}),
        ("test_resnet", 160, {}),
        ("swin_tiny_patch4_window7_224", 224, {"depths": (1, 2, 1, 1)}),
        ("cait_xxs24_224", 224, {"depth": 2}),
        ("mvitv2_tiny", 224, {}),
        ("mobilevit_xxs", 256, {}),
        ("levit_128s", 224, {}),
        ("halonet26t", 256, {}),
    ],
)
def test_equals_torchs_own_counter(name, side, options):
    model, images = meta(name, side, **options)
    counted = count(model, images)
    assert counted.macs == torch_macs(model, images) > 0
    assert counted.complete, counted.unknown_ops
    assert counted.macs == sum(counted.by_op.values())


@pytest.mark.parametrize("side", [224, 512, 1024])
@pytest.mark.parametrize(("name", "depth", "width"), [("base", 12, 768), ("large", 24, 1024)])
def test_equals_the_closed_form_of_a_vit(name, depth, width, side):
    model, images = meta(f"vit_{name}_patch16_224", side, img_size=side)
    patches = (side // 16) ** 2
    tokens, hidden = patches + 1, 4 * width
    per_block = 4 * tokens * width**2 + 2 * tokens * width * hidden + 2 * tokens**2 * width
    assert count(model.forward_features, images).macs == patches * 3 * 16**2 * width + depth * per_block


def test_vit_base_at_512_is_107_03_gmacs():
    model, images = meta("vit_base_patch16_224", 512, img_size=512)
    assert round(count(model.forward_features, images).macs / 1e9, 2) == 107.03


@pytest.mark.parametrize(
    ("name", "side", "millions"),
    [  # column `macts` of timm's results/benchmark-infer CSVs
        ("vit_base_patch16_224", 224, 16.49),
        ("resnet50", 224, 11.11),
        ("convnext_base", 224, 28.75),
        ("swin_tiny_patch4_window7_224", 224, 17.06),
    ],
)
def test_activations_are_timms(name, side, millions):
    assert round(count(*meta(name, side)).activations / 1e6, 2) == millions


@pytest.mark.parametrize("name", ["test_vit", "test_vit3", "test_convnext", "test_nfnet", "test_mambaout"])
def test_real_tensors_with_math_attention_give_the_same(name):
    model, images = meta(name, 160)
    real = timm.create_model(name).eval()
    with sdpa_kernel(SDPBackend.MATH):
        assert count(real, torch.zeros(1, 3, 160, 160)).macs == count(model, images).macs


def test_real_tensors_with_fused_attention_give_the_same():
    model, images = meta("test_vit", 160)
    assert count(timm.create_model("test_vit").eval(), torch.zeros(1, 3, 160, 160)).macs == count(model, images).macs


def test_parameters_that_want_gradients_and_outer_modes_change_nothing():
    with torch.device("meta"):
        model = timm.create_model("cait_xxs24_224", depth=2).eval()  # torch's own counter fails here unless frozen
    images = torch.empty(1, 3, 224, 224, device="meta")
    expected = count(model, images).macs
    with torch.enable_grad():
        assert count(model, images).macs == expected
    with torch.inference_mode():
        assert count(model, images).macs == expected


def test_is_linear_in_the_batch():
    model, images = meta("test_vit", 160)
    assert count(model, images.expand(3, -1, -1, -1)).macs == 3 * count(model, images).macs


@pytest.mark.parametrize(
    ("call", "shapes", "macs"),
    [
        (lambda x: torch.fft.fft2(x + 0j), [(1, 2, 8, 8)], 2 * 64 * 6 * 5 // 2),
        (torch.fft.rfft2, [(1, 2, 8, 8)], 2 * 64 * 6 * 5 // 4),
        (lambda x: nn.functional.interpolate(x, (5, 7), mode="bilinear"), [(1, 2, 3, 3)], 4 * 2 * 35),
        (lambda x: nn.functional.interpolate(x, (5, 7), mode="bicubic"), [(1, 2, 3, 3)], 16 * 2 * 35),
        (lambda x: nn.functional.interpolate(x, (5, 7), mode="nearest"), [(1, 2, 3, 3)], 0),
        (
            lambda x: nn.functional.interpolate(x, (4, 4), mode="bilinear", antialias=True),
            [(1, 1, 8, 8)],
            4 * (8 * 4 + 4 * 4),
        ),
        (lambda x, grid: nn.functional.grid_sample(x, grid, align_corners=False), [(1, 2, 3, 3), (1, 5, 7, 2)], 280),
        (torch.cdist, [(2, 5, 3), (2, 7, 3)], 2 * 5 * 7 * 3),
        (lambda x, y: torch.einsum("bqc,bchw->bqhw", x, y), [(2, 5, 3), (2, 3, 4, 4)], 2 * 5 * 3 * 16),
        (nn.functional.scaled_dot_product_attention, [(1, 2, 5, 8), (1, 2, 7, 8), (1, 2, 7, 4)], 2 * 5 * 7 * 12),
        (nn.functional.bilinear, [(2, 3), (2, 4), (5, 3, 4)], None),
    ],
)
def test_single_operators(call, shapes, macs):
    counted = count(call, *(torch.empty(shape, device="meta") for shape in shapes))
    if macs is None:
        assert not counted.complete or counted.macs > 0
    else:
        assert (counted.macs, counted.complete) == (macs, True)


@pytest.mark.parametrize("direction", [1, 2])
def test_recurrent_layers_take_no_steps(direction):
    layer = nn.LSTM(6, 5, num_layers=2, batch_first=True, bidirectional=direction == 2, device="meta")
    weights = sum(parameter.numel() for parameter in layer.parameters() if parameter.dim() == 2)
    outputs = []
    counted = count(lambda x: outputs.append(layer(x)[0]), torch.empty(3, 7, 6, device="meta"))
    assert counted.macs == 3 * 7 * weights
    assert outputs[0].shape == (3, 7, 5 * direction)


def test_transposed_and_grouped_convolutions():
    for layer in (nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv1d(8, 4, 3)):
        layer = layer.to("meta")
        images = torch.empty((1, 8, 6, 6)[: 2 + (layer.weight.dim() - 2)], device="meta")
        assert count(layer, images).macs == torch_macs(layer, images) > 0


def test_an_unknown_operator_makes_the_count_a_lower_bound():
    with torch.library._scoped_library("luma_test", "DEF") as library:
        library.define("mixer(Tensor x) -> Tensor")
        library.impl("mixer", lambda x: x.clone(), "Meta")
        counted = count(lambda x: torch.ops.luma_test.mixer(x) @ x, torch.empty(4, 4, device="meta"))
    assert counted.macs == 64
    assert counted.unknown_ops == ("luma_test.mixer",)
    assert not counted.complete


def test_a_custom_operator_made_of_known_ones_is_taken_apart():
    with torch.library._scoped_library("luma_test", "DEF") as library:
        library.define("double_product(Tensor x) -> Tensor")
        library.impl("double_product", lambda x: x @ x @ x, "CompositeImplicitAutograd")
        counted = count(lambda x: torch.ops.luma_test.double_product(x), torch.empty(4, 4, device="meta"))
    assert (counted.macs, counted.complete) == (128, True)


def test_no_matrix_product_is_on_the_list_of_zeros():
    suspects = (
        ".mm",
        "matmul",
        "conv",
        "linear",
        "attention",
        "einsum",
        "bmm",
        "addmv",
        "fft_c",
        "fft_r",
        "lstm",
        "cdist",
    )
    assert not [name for name in known_zero() for suspect in suspects if suspect in name]
    assert not known_zero() & set(formulas())


def test_meta_shapes_are_those_that_torch_gives():
    """Every short way of `meta_shapes` against the operator itself."""
    tokens = torch.randn(2, 5, 8)
    cases = [
        (torch.ops.aten.linear.default, (tokens, torch.randn(3, 8), None)),
        (torch.ops.aten.layer_norm.default, (tokens.transpose(0, 1), [8])),
        (torch.ops.aten.rms_norm.default, (tokens, [8])),
        (torch.ops.aten.gelu.default, (tokens.transpose(1, 2),)),
        (torch.ops.aten.silu.default, (tokens,)),
        (torch.ops.aten.relu.default, (tokens,)),
        (torch.ops.aten.sigmoid.default, (tokens,)),
        (torch.ops.aten.dropout.default, (tokens, 0.1, False)),
        (torch.ops.aten.scaled_dot_product_attention.default, (torch.randn(2, 3, 5, 8),) * 3),
        (
            torch.ops.aten.batch_norm.default,
            (torch.randn(2, 4, 3, 3), None, None, torch.zeros(4), torch.ones(4), False, 0.1, 1e-5, True),
        ),
    ]
    from luma_cli.measure.count import meta_shapes

    shapes = meta_shapes()
    assert {str(operator) for operator, _ in cases} | {"aten.lstm.input"} == set(shapes)
    for operator, arguments in cases:
        expected, found = operator(*arguments), shapes[str(operator)](arguments)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), operator
        assert math.prod(found.shape) == expected.numel()
