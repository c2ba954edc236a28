"""LUMA's options (several blocks, their input, prefix tokens) against their equations composed slowly, step by step."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from option_backbones import MODELS
from torch import Tensor, nn

from luma_cli.catalogue.head_cost import head_macs
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BuildError
from luma_cli.head.luma import LumaHead, Tapped
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.measure.facts import backbone_facts

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SMALL = {"num_queries": 5, "num_classes": 4}


OPTIONS = [
    *({"l2": l2, "tap": tap, "ffn": "auto"} for l2, tap in itertools.product((1, 2, 4), ("output", "input"))),
    {"l2": 3, "tap": "input", "ffn": "fresh"},
]


def make(name, seed: int = 0, **options) -> Segmenter:
    """A segmenter at 64 pixels with every norm and scale redrawn, so that none can be left out unseen."""
    segmenter = build(MODELS.get(name, name), 64, head=HeadConfig(**SMALL, **options), seed=seed)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    return segmenter


# the equations, written with the blocks of these models by hand


def blocks_of(segmenter: Segmenter) -> list[nn.Module]:
    model = segmenter.backbone.model
    if hasattr(model, "stages"):
        return [block for stage in model.stages for block in stage.blocks]
    return [block for layer in getattr(model, "layers", [model]) for block in layer.blocks]


def tokens_of(tensor: Tensor, name: str) -> Tensor:
    return tensor.flatten(2).transpose(1, 2) if name == "convnext" else tensor.flatten(1, -2)


def own_ffn(block: nn.Module, queries: Tensor, name: str) -> Tensor:
    if name == "convnext":
        grid = queries[:, None]  # norm and MLP of this model see NHWC
        return queries + block.gamma * block.mlp(block.norm(grid))[:, 0]
    scale = getattr(block, "ls2", nn.Identity())
    return queries + scale(block.mlp(block.norm2(queries)))


def watched(segmenter: Segmenter, images: Tensor, tap: str) -> tuple[Tensor, list[Tensor]]:
    """The map, and the input or output of every block."""
    seen: list[Tensor] = []
    if tap == "input":
        hooks = [b.register_forward_pre_hook(lambda m, x: seen.append(x[0].clone())) for b in blocks_of(segmenter)]
    else:
        hooks = [b.register_forward_hook(lambda m, x, y: seen.append(y.clone())) for b in blocks_of(segmenter)]
    features = segmenter.backbone(images)
    for hook in hooks:
        hook.remove()
    return features, seen


def attend(attention: nn.Module, queries: Tensor, tokens: Tensor) -> Tensor:
    """Scores head by head: no fused kernel, no mask."""
    heads = attention.num_heads
    asked = attention.query(attention.norm_queries(queries)).chunk(heads, -1)
    keys, values = attention.key_value(attention.norm_tokens(tokens)).chunk(2, -1)
    read = [
        torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v
        for q, k, v in zip(asked, keys.chunk(heads, -1), values.chunk(heads, -1), strict=True)
    ]
    return queries + attention.out(torch.cat(read, -1))


def composed(segmenter: Segmenter, images: Tensor, prefix_tokens: int = 0) -> tuple[Tensor, Tensor]:
    """Class logits and mask logits, block by block."""
    head, config, name = segmenter.head, segmenter.config, segmenter.backbone.spec.name
    features, seen = watched(segmenter, images, config.tap)
    queries = head.queries.weight.expand(len(images), -1, -1)
    steps = [*head.earlier, head]
    for step, block, tensor in zip(steps, blocks_of(segmenter)[-config.l2 :], seen[-config.l2 :], strict=True):
        tokens = tokens_of(tensor, name)[:, 0 if config.prefix else prefix_tokens :]
        queries = attend(step.attention, queries, tokens)
        queries = own_ffn(block, queries, name) if config.ffn == "auto" else step.ffn(queries)
        if step is not head and not isinstance(step.widen, nn.Identity):
            queries = queries @ step.widen.weight.T + step.widen.bias
    patches = features.flatten(2).transpose(1, 2)
    if head.norm_queries is None:
        norm = segmenter.backbone.model.norm
        queries, patches = norm(queries), norm(patches)
    else:
        queries, patches = head.norm_queries(queries), head.norm_pixels(patches)
    pixels = head.upscale(patches.transpose(1, 2).unflatten(2, features.shape[2:]))
    return head.classify(queries), torch.einsum("bkd,bdhw->bkhw", head.mask(queries), pixels)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("name", "prefix"), [("test_vit", 1), ("swin", 0), ("convnext", 0), ("dinov2", 5)])
def test_the_head_is_its_equations(name, prefix, options):
    if name == "dinov2" and options["l2"] == 4:
        options = {**options, "l2": 3}
    segmenter = make(name, **options)
    with torch.no_grad():
        found = segmenter(IMAGES)
        classes, masks = composed(segmenter, IMAGES, prefix)
    torch.testing.assert_close(found.class_logits, classes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.mask_logits, masks, rtol=1e-4, atol=1e-4 * float(masks.abs().max()))


@pytest.mark.parametrize("tap", ["output", "input"])
@pytest.mark.parametrize("l2", [1, 2])
def test_prefix_tokens_are_seen_by_queries_and_never_drawn(l2, tap):
    segmenter = make("dinov2", l2=l2, tap=tap, prefix=True)
    with torch.no_grad():
        found = segmenter(IMAGES)
        classes, masks = composed(segmenter, IMAGES)
    torch.testing.assert_close(found.class_logits, classes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.mask_logits, masks, rtol=1e-4, atol=1e-4 * float(masks.abs().max()))
    taken = segmenter.read(IMAGES)
    moved = [tokens.clone() for tokens in taken.tokens]
    moved[-1][:, 0] += 1
    assert not torch.equal(segmenter.decode(Tapped(taken.features, tuple(moved)), (64, 64)).class_logits, classes)


# what no option may do

PAIR = ("weight", "bias")
SCALE = ("enlarge.weight", "enlarge.bias", "smooth.weight", "norm.weight", "norm.bias")
CHANGED = [{"l2": 2}, {"tap": "input"}, {"prefix": True}, {"l2": 3, "tap": "input", "prefix": True, "ffn": "fresh"}]


def test_the_default_takes_the_plain_path():
    segmenter = make("test_vit")
    assert isinstance(segmenter.read(IMAGES), Tensor)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in segmenter.modules())
    assert set(segmenter.head.state_dict()) == {
        "queries.weight", "classify.weight", "classify.bias",
        *(f"attention.{n}.{p}" for n in ("norm_queries", "norm_tokens", "query", "key_value", "out") for p in PAIR),
        *(f"mask.{n}.{p}" for n in (0, 2, 4) for p in PAIR),
        *(f"upscale.{n}.{p}" for n in (0, 1) for p in SCALE),
    }  # fmt: skip


@pytest.mark.parametrize("options", CHANGED, ids=str)
def test_features_are_the_same_with_and_without_the_head(options):
    segmenter = make("dinov2", **options)
    alone = build(MODELS["dinov2"], 64, head="none").backbone
    alone.load_state_dict(segmenter.backbone.state_dict())
    assert torch.equal(segmenter.read(IMAGES).features, alone(IMAGES))


@pytest.mark.parametrize("name", ["test_vit", "swin", "hiera"], ids=str)
def test_permuted_positions_leave_queries_and_permuted_queries_permute(name):
    segmenter = make(name, l2=3, tap="input")
    features, tokens = segmenter.read(IMAGES)
    before = segmenter.decode(Tapped(features, tokens), (64, 64))
    generator = torch.Generator().manual_seed(0)
    shuffled = tuple(t[:, torch.randperm(t.shape[1], generator=generator)] for t in tokens)
    torch.testing.assert_close(
        segmenter.decode(Tapped(features, shuffled), (64, 64)).class_logits, before.class_logits, rtol=1e-3, atol=1e-3
    )
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        segmenter.head.queries.weight.copy_(segmenter.head.queries.weight[order])
    after = segmenter.decode(Tapped(features, tokens), (64, 64))
    torch.testing.assert_close(after.class_logits, before.class_logits[:, order], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after.mask_logits, before.mask_logits[:, order], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", ["test_vit", "swin", "convnext", "test_efficientnet"], ids=str)
def test_gradients_reach_every_parameter_of_the_head_and_every_reused_ffn(name):
    segmenter = make(name, l2=2, tap="input").train()
    prediction = segmenter(IMAGES)
    (prediction.class_logits.square().mean() + prediction.mask_logits.square().mean()).backward()
    assert all(parameter.grad is not None for parameter in segmenter.head.parameters())
    assert all(parameter.grad.abs().sum() > 0 for n, parameter in segmenter.head.named_parameters() if "weight" in n)


def test_a_reused_ffn_of_an_earlier_block_learns_from_queries_alone():
    segmenter = make("swin", l2=3)
    features, tokens = segmenter.read(IMAGES)
    segmenter.decode(
        Tapped(features.detach(), tuple(t.detach() for t in tokens)), (64, 64)
    ).class_logits.sum().backward()
    learning = [block.mlp.fc1.weight.grad is not None for block in blocks_of(segmenter)]
    assert learning == [False, False, False, True, True, True]


@pytest.mark.parametrize("options", [{}, *CHANGED], ids=str)
def test_it_compiles_whole(options):
    segmenter = make("dinov2", **options)
    compiled = torch.compile(segmenter, backend="eager", fullgraph=True)
    with torch.no_grad():
        for images in (IMAGES, 2 * IMAGES):  # a second call must not see what the first one kept
            found, wanted = compiled(images), segmenter(images)
            torch.testing.assert_close(found.class_logits, wanted.class_logits)
    torch._dynamo.reset()


def test_a_copy_reads_its_own_backbone():
    segmenter = make("test_vit", l2=2, tap="input")
    before = segmenter(IMAGES).class_logits
    copied = copy.deepcopy(segmenter)
    with torch.no_grad():
        for parameter in copied.backbone.parameters():
            parameter.zero_()
    assert not torch.equal(copied(IMAGES).class_logits, before)
    assert torch.equal(segmenter(IMAGES).class_logits, before)


def test_no_parameter_is_registered_twice():
    segmenter = make("swin", l2=4)
    names = [name for name, _ in segmenter.named_parameters(remove_duplicate=False)]
    assert len(names) == len(list(segmenter.parameters()))
    assert sorted(name for name, _ in segmenter.head.earlier.named_children()) == ["0", "1", "2"]


def test_widths_follow_the_stages():
    head = make("swin", l2=6).head
    assert isinstance(head, LumaHead)
    assert head.plan.widths == (16, 32, 64, 64, 128, 128)
    assert [isinstance(step.widen, nn.Linear) for step in head.earlier] == [True, True, False, True, False]
    assert head.queries.embedding_dim == 16


# what cannot be built


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("test_vit", {"l2": 7}, "test_vit: l2 is 7, its depth is 6 blocks .*; try --l2 6"),
        ("swin", {"prefix": True}, "swin has no class or register tokens that queries could see; leave out --prefix"),
        ("resnet18", {"l2": 2}, "resnet18 has no block that queries can read besides the map .*leave out --l2"),
        ("resnet18", {"tap": "input"}, "resnet18 has no block that queries can read"),
        ("test_efficientnet", {"l2": 2, "ffn": "reused"}, "has no token-wise FFN to reuse"),
    ],
    ids=str,
)
def test_what_a_backbone_does_not_have_is_refused_in_one_line(name, options, said):
    with pytest.raises(BuildError, match=said) as refused:
        build(MODELS.get(name, name), 64, head=HeadConfig(**SMALL, **options), device="meta")
    assert "\n" not in str(refused.value)
    facts = backbone_facts(build(MODELS.get(name, name), 64, head="none", device="meta").backbone)
    with pytest.raises(BuildError):
        head_macs(facts, HeadConfig(**SMALL, **options))
