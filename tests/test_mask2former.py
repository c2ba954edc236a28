"""Mask2Former's decoders against transformers' and grid_sample, with weights redrawn so that nothing hides at zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample
from transformers import Mask2FormerConfig
from transformers.models.mask2former import modeling_mask2former as reference

from luma_cli.catalogue.costs import Level
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.mask2former import LevelOffer, plan_mask2former
from luma_cli.errors import BuildError
from luma_cli.head.mask2former import TransformerDecoder, attended
from luma_cli.head.parts import HeadOutput
from luma_cli.head.pixel_decoder import DeformableAttention, PixelDecoder, centres, sample
from luma_cli.head.segmenter import Segmenter, build

WIDTHS = (24, 48, 96, 192)
HEAD = HeadConfig("mask2former", num_queries=7, num_classes=5)
HIERARCHICAL = tuple(Level(width, stride, "fresh") for width, stride in zip(WIDTHS, (4, 8, 16, 32), strict=True))
PLAN = plan_mask2former(LevelOffer(HIERARCHICAL, 4, 128), HEAD)
_NAMES = {
    "self_attn.sampling_offsets": "attention.offsets",
    "self_attn.attention_weights": "attention.weights",
    "self_attn.value_proj": "attention.values",
    "self_attn.output_proj": "attention.out",
    "encoder.layers": "layers",
    "input_projections": "enter",
    "adapter_1": "lateral",
    "layer_1": "smooth",
    "mask_projection": "masks",
    "level_embed": "levels",
    "queries_embedder": "places",
    "queries_features": "queries",
    "decoder.layers": "layers",
    "decoder.layernorm": "norm",
    "mask_predictor.mask_embedder": "mask",
    "cross_attn_layer_norm": "cross_norm",
    "cross_attn.out_proj": "cross.out",
    "self_attn.q_proj": "own.query",
    "self_attn.k_proj": "own.key",
    "self_attn.v_proj": "own.value",
    "self_attn.out_proj": "own.out",
    "final_layer_norm": "ffn_norm",
    "fc1": "grow",
    "fc2": "shrink",
}


def redraw(module: nn.Module, seed: int = 0) -> None:
    """Every parameter anew, large enough that sampling points leave their cells and masks have both signs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))


def converted(theirs: nn.Module, norm_of_attention: str) -> dict[str, Tensor]:
    """The state of a module of transformers under our names."""
    state = {}
    for name, value in theirs.state_dict().items():
        if "in_proj" in name:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                path = name.replace("decoder.layers", "layers").replace("cross_attn.in_proj_", f"cross.{part}.")
                state[path] = rows
            continue
        for old, new in {"self_attn_layer_norm": norm_of_attention, **_NAMES}.items():
            name = name.replace(old, new)
        parts = name.split(".")
        if parts[0] == "decoder":
            name = ".".join(parts[1:])
        if name.startswith("mask."):  # Linear, ReLU, Linear, ReLU, Linear
            index, rest = int(name.split(".")[1]), name.split(".")[-1]
            name = f"mask.{2 * index}.{rest}"
        state[name] = value
    return state


def maps(rows: int = 2, columns: int = 3, seed: int = 1) -> list[Tensor]:
    """Maps of strides 4, 8, 16, 32 whose coarsest has so many rows and columns."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(rows * factor, columns * factor) for factor in (8, 4, 2, 1)]
    drawn = [torch.randn(2, width, *size, generator=generator) for width, size in zip(WIDTHS, sizes, strict=True)]
    return [each.double() for each in drawn]


def pixel_decoders() -> tuple[PixelDecoder, nn.Module]:
    theirs = reference.Mask2FormerPixelDecoder(Mask2FormerConfig(), list(WIDTHS)).double().eval()
    redraw(theirs)
    ours = PixelDecoder(PLAN).double()
    ours.load_state_dict(converted(theirs, "attention_norm"))
    return ours, theirs


def transformer_decoders() -> tuple[TransformerDecoder, nn.Module]:
    theirs = reference.Mask2FormerTransformerModule(256, Mask2FormerConfig(num_queries=7)).double().eval()
    redraw(theirs, 2)
    ours = TransformerDecoder(HEAD).double()
    ours.load_state_dict(converted(theirs, "own_norm"))
    return ours, theirs


def close(found: Tensor, expected: Tensor, part: float = 1e-12) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= part * expected.abs().max()


@pytest.mark.parametrize("size", [(2, 3), (4, 4)])
def test_the_pixel_decoder_is_transformers(size):
    ours, theirs = pixel_decoders()
    masks, levels = ours(maps(*size))
    expected = theirs(maps(*size), return_dict=True)
    close(masks, expected.mask_features)
    for level, other in zip(levels, expected.multi_scale_features, strict=True):
        close(level, other)


@pytest.mark.parametrize("size", [(2, 3), (4, 4)])
def test_all_predictions_of_the_transformer_decoder_are_transformers(size):
    ours, theirs = transformer_decoders()
    masks, levels = pixel_decoders()[0](maps(*size))
    found = ours(masks, levels, keep_all=True)
    expected = theirs(list(levels), masks)
    assert len(found) == len(expected.masks_queries_logits) == 10
    for (queries, logits), other, their_logits in zip(
        found, expected.intermediate_hidden_states, expected.masks_queries_logits, strict=True
    ):
        close(queries, other.transpose(0, 1), 1e-11)
        close(logits, their_logits, 1e-11)
    (last,) = ours(masks, levels, keep_all=False)
    assert torch.equal(last[1], found[-1][1])


def test_queries_with_empty_masks_see_all_as_transformers():
    (ours, theirs), (masks, levels) = transformer_decoders(), pixel_decoders()[0](maps())
    flat = masks.mean((2, 3), keepdim=True).expand_as(masks)  # every mask is all or nothing
    found, expected = ours(flat, levels, keep_all=True), theirs(list(levels), flat).masks_queries_logits
    assert any((logits < 0).flatten(2).all(2).any() for _, logits in found[:-1])
    for (_, logits), their_logits in zip(found, expected, strict=True):
        close(logits, their_logits, 1e-11)


def test_gradients_are_transformers():
    (ours, theirs), (decoder, their_decoder) = pixel_decoders(), transformer_decoders()
    inputs, their_inputs = ([each.requires_grad_() for each in maps()] for _ in range(2))
    masks, levels = ours(inputs)
    outputs = theirs(their_inputs, return_dict=True)
    for _, logits in decoder(masks, levels, keep_all=True):
        logits.pow(2).sum().backward(retain_graph=True)
    for logits in their_decoder(list(outputs.multi_scale_features), outputs.mask_features).masks_queries_logits:
        logits.pow(2).sum().backward(retain_graph=True)
    for found, expected in zip(inputs, their_inputs, strict=True):
        close(found.grad, expected.grad, 1e-9)
    named = converted_gradients(theirs)
    for name, parameter in ours.named_parameters():
        close(parameter.grad, named[name], 1e-8)


def converted_gradients(theirs: nn.Module) -> dict[str, Tensor]:
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)
    return converted(theirs, "attention_norm")


def test_sampling_is_grid_samples_with_zeros_outside():
    sizes, heads, points, width = ((4, 6), (2, 3)), 3, 4, 5
    generator = torch.Generator().manual_seed(0)
    values, positions, weights = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((2, 30, heads, width), (2, 7, heads, 2, points, 2), (2, 7, heads, 2, points))
    )
    positions = 4 * positions + 1
    expected = torch.zeros(2, heads, width, 7, dtype=torch.float64)
    for level, ((rows, columns), part) in enumerate(zip(sizes, values.split([24, 6], dim=1), strict=True)):
        grids = part.permute(0, 2, 3, 1).reshape(2 * heads, width, rows, columns)
        where = (positions[:, :, :, level] + 0.5) / torch.tensor([columns, rows]) * 2 - 1
        read = grid_sample(grids, where.transpose(1, 2).flatten(0, 1), align_corners=False)
        share = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]
        expected += (read * share).sum(-1).view(2, heads, width, 7)
    close(sample(values, sizes, positions, weights), expected.permute(0, 3, 1, 2).reshape(2, 7, heads * width))


def test_a_position_that_is_not_finite_gives_nan_and_reads_nothing_else():
    values, weights = torch.ones(1, 6, 1, 2), torch.ones(1, 2, 1, 1, 1)
    positions = torch.zeros(1, 2, 1, 1, 1, 2)
    positions[0, 1] = float("nan")
    found = sample(values, ((2, 3),), positions, weights)
    assert found[0, 0].tolist() == [1, 1]
    assert found[0, 1].isnan().all()


def test_queries_see_their_mask_or_all_where_it_is_empty():
    logits = torch.tensor([[[[1.0, -1.0], [0.0, -2.0]], [[-1.0, -1.0], [-3.0, -1.0]]]])
    assert attended(logits, (2, 2)).tolist() == [[[[True, False, True, False], [True] * 4]]]


def test_16_bits_stay_within_a_hundredth():
    """Positions in 16 bits would be off by up to half a cell, and the output by a quarter of itself."""
    torch.manual_seed(0)
    attention = DeformableAttention(64, 64, 4, 1)
    redraw(attention)
    for layer in (attention.values, attention.out):
        nn.init.zeros_(layer.bias)  # what is read must not drown in it
    sizes = ((80, 80),)
    tokens = torch.randn(1, 6400, 64)
    places = centres(sizes, tokens)
    with torch.no_grad():
        exact = attention(tokens, places, tokens, sizes)
        with torch.autocast("cpu", torch.bfloat16):
            found = attention(tokens, places, tokens, sizes)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).norm() < 0.01 * exact.norm()


# as a head


def redrawn(backbone: str, variant: str = "paper-page", side: int = 64) -> Segmenter:
    model = build(backbone, side, head=HeadConfig("mask2former", 7, 5, variant=variant))
    assert model.head is not None
    redraw(model.head)
    return model


@pytest.mark.parametrize("variant", ["paper-page", "no-pixel-decoder", "single-scale"])
@pytest.mark.parametrize("backbone", ["test_vit", "swin_t", "test_convnext", "test_efficientnet"])
def test_it_predicts_ten_times_of_which_the_last_is_the_answer(backbone, variant):
    model = redrawn(backbone, variant)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        answer, found = model(images), model.predictions(images)
    assert len(found) == 10
    assert isinstance(answer, HeadOutput)
    assert answer.class_logits.shape == (2, 7, 6)
    assert answer.mask_logits.shape == (2, 7, 16, 16)
    assert torch.equal(answer.mask_logits, found[-1].mask_logits)
    assert torch.equal(answer.class_logits, found[-1].class_logits)


def test_images_need_not_be_square():
    model = redrawn("test_convnext")
    with torch.no_grad():
        answer = model(torch.rand(1, 3, 64, 96))
    assert isinstance(answer, HeadOutput)
    assert answer.mask_logits.shape == (1, 7, 16, 24)


@pytest.mark.parametrize(
    ("backbone", "side", "variant", "said"),
    [
        ("swin_t", 224, "adapter", "without --adapter"),
        ("test_vit", 80, "paper-page", "--res 64 or 96"),
        ("test_vit", 80, "no-pixel-decoder", "--res 64 or 96"),
    ],
)
def test_what_cannot_be_built_says_what_would_work(backbone, side, variant, said):
    with pytest.raises(BuildError, match=said):
        build(backbone, side, head=HeadConfig("mask2former", variant=variant), device="meta")


def test_a_level_is_the_backbones_own_or_made_of_its_nearest():
    three = LevelOffer(tuple(Level(width, stride, "none") for width, stride in ((8, 8), (16, 16), (32, 32))), 4, 128)
    found = [(each.source, each.steps) for each in plan_mask2former(three, HEAD).maps]
    assert found == [(0, 1), (0, 0), (1, 0), (2, 0)]
    plain = LevelOffer((Level(64, 16, "own"),), 8, 128)
    assert [each.steps for each in plan_mask2former(plain, HEAD).maps] == [2, 1, 0, -1]
    assert [each.cells for each in plan_mask2former(plain, HEAD).maps] == [1024, 256, 64, 16]


# the adapter, against its equations composed slowly


def plain_attention(attention: DeformableAttention, queries: Tensor, tokens: Tensor, sizes, grids) -> Tensor:
    """Deformable attention of queries on `grids` over tokens of maps of `sizes`, by grid_sample."""
    batch, number, heads = len(queries), queries.shape[1], attention.num_heads
    values = attention.values(tokens).unflatten(2, (heads, -1))
    offsets = attention.offsets(queries).view(batch, number, heads, len(sizes), 4, 2)
    weights = attention.weights(queries).view(batch, number, heads, -1).softmax(-1).view(offsets.shape[:-1])
    sides = [[(torch.arange(side).double() + 0.5) / side for side in grid] for grid in grids]
    places = torch.cat([torch.stack(torch.meshgrid(*each, indexing="ij"), -1).flatten(0, 1) for each in sides]).flip(-1)
    found = torch.zeros(batch, number, heads, values.shape[-1], dtype=torch.float64)
    for level, (part, size) in enumerate(zip(values.split([a * b for a, b in sizes], 1), sizes, strict=True)):
        where = places[:, None, None] + offsets[:, :, :, level] / torch.tensor(size[::-1])
        for head in range(heads):
            pixels = part[:, :, head].transpose(1, 2).unflatten(2, size)
            read = grid_sample(pixels, 2 * where[:, :, head] - 1, align_corners=False)
            found[:, :, head] += (read * weights[:, None, :, head, level]).sum(-1).transpose(1, 2)
    return attention.out(found.flatten(2))


def test_the_adapter_is_its_equations():
    model = build("test_vit", 96, head=HeadConfig("mask2former", 5, 4, variant="adapter")).double()
    redraw(model)
    adapter, blocks = model.head.pyramid, model.backbone.model.blocks
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, dtype=torch.float64) + 0.5)
    images = torch.rand(2, 3, 96, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    grid, sizes = (6, 6), ((12, 12), (6, 6), (3, 3))

    def extract(part, levels: Tensor, patches: Tensor) -> Tensor:
        read = part.read
        normed = read.norm_queries(levels), read.norm_tokens(patches)
        levels = levels + plain_attention(read.attention, *normed, (grid,), sizes)
        hidden = part.grow(part.norm(levels)).transpose(1, 2).split([144, 36, 9], 2)
        smooth = [part.smooth(each.unflatten(2, size)).flatten(2) for each, size in zip(hidden, sizes, strict=True)]
        return levels + part.shrink(nn.functional.gelu(torch.cat(smooth, 2).transpose(1, 2)))

    with torch.no_grad():
        found = adapter(adapter.read(model.backbone, images), model.backbone)
        maps = adapter.stem(images)
        coarser = [each.flatten(2).transpose(1, 2) for each in maps[1:]]
        levels = torch.cat([each + row for each, row in zip(coarser, adapter.levels, strict=True)], 1)
        vit = model.backbone.model
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        prefix, outputs = tokens.shape[1] - 36, []
        ends = [round(len(blocks) * number / 4) for number in range(5)]
        for number in range(4):
            injector, patches = adapter.injectors[number], tokens[:, prefix:]
            normed = injector.read.norm_queries(patches), injector.read.norm_tokens(levels)
            read = plain_attention(injector.read.attention, *normed, sizes, (grid,))
            tokens = torch.cat([tokens[:, :prefix], patches + injector.gate * read], 1)
            for block in blocks[ends[number] : ends[number + 1]]:
                tokens = block(tokens)
            levels = extract(adapter.extractors[number], levels, tokens[:, prefix:])
            outputs.append(tokens[:, prefix:].transpose(1, 2).unflatten(2, grid))
        for part in adapter.extra:
            levels = extract(part, levels, tokens[:, prefix:])
        parts = levels.split([144, 36, 9], 1)
        middle = [each.transpose(1, 2).unflatten(2, size) for each, size in zip(parts, sizes, strict=True)]
        expected = [maps[0] + adapter.enlarge(middle[0]), *middle]
        for norm, own, output, ours in zip(adapter.norms, expected, outputs, found, strict=True):
            resized = nn.functional.interpolate(output, own.shape[2:], mode="bilinear", align_corners=False)
            close(ours, norm(own + resized))


def test_a_fresh_adapter_leaves_the_transformer_as_it_was():
    model = build("test_vit", 96, head=HeadConfig("mask2former", 5, 4, variant="adapter"))
    images = torch.rand(1, 3, 96, 96)
    seen: list[Tensor] = []
    model.backbone.model.blocks[-1].register_forward_hook(lambda block, taken, given: seen.append(given))
    with torch.no_grad():
        model(images)
        features = model.backbone(images)
    prefix = seen[0].shape[1] - 36
    assert torch.equal(seen[0][:, prefix:].transpose(1, 2).reshape(features.shape), features)
