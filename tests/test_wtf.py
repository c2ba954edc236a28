"""Checkpoints with the names and shapes of the WTF benchmark's code become the same function here, or are refused.

The layouts are made here from random numbers; each mixer's output is compared with its sum written from the layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from tiny_backbones import spec
from torch import Tensor, nn
from torch.nn.functional import elu, layer_norm, linear

from luma_cli.backbone.create import create_backbone
from luma_cli.catalogue.own import architecture
from luma_cli.errors import WeightsError
from luma_cli.isotropic.checkpoints import convert, from_wtf
from luma_cli.isotropic.entrypoints import register

C, H, DEPTH, SIDE = 32, 2, 2, 64
N = (SIDE // 16) ** 2 + 1
SMALL = {"embed_dim": C, "depth": DEPTH, "num_heads": H}
State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
F_FIRST = round(math.sqrt(N))
F_SECOND = math.ceil(N / F_FIRST)
PADDED = 8 * math.ceil(N / 8)
register()

SEPARATE: Shapes = {f"to_{part}.weight": (C, C) for part in "qkv"}
OUT: Shapes = {"to_out.weight": (C, C), "to_out.bias": (C,)}
FUSED: Shapes = {"qkv.weight": (3 * C, C), "qkv.bias": (3 * C,)}
VALUE: Shapes = {"v.weight": (C, C), "v.bias": (C,), "proj.weight": (C, C), "proj.bias": (C,)}
LAYOUTS: dict[str, Shapes] = {
    "hydra_vit": {**FUSED, "out.weight": (C, C), "out.bias": (C,)},
    "linear_vit": {**FUSED, "proj.weight": (C, C), "proj.bias": (C,)},
    "performer_vit": {
        **SEPARATE,
        **{f"to_{part}.bias": (C,) for part in "qkv"},
        **OUT,
        "fast_attention.projection_matrix": (128, C // H),
    },
    "linformer_vit": {**SEPARATE, **OUT, "proj_k": (N, 256), "proj_v": (N, 256)},
    "synthesizer_vit": {
        "f_a.weight": (H * F_FIRST, C),
        "f_a.bias": (H * F_FIRST,),
        "f_b.weight": (H * F_SECOND, C),
        "f_b.bias": (H * F_SECOND,),
        **VALUE,
    },
    "synthesizer_fr_vit": {"random_attn_1": (H, PADDED, 8), "random_attn_2": (H, 8, PADDED), **VALUE},
}


def layout(kind: str) -> State:
    """A whole `model_state`, LayerScales included, with matrices that keep the size of their input."""
    block = {
        **{f"attn.{name}": shape for name, shape in LAYOUTS[kind].items()},
        **{f"norm{i}.{part}": (C,) for i in (1, 2) for part in ("weight", "bias")},
        **{f"ls{i}.gamma": (C,) for i in (1, 2)},
        **{"mlp.fc1.weight": (4 * C, C), "mlp.fc1.bias": (4 * C,), "mlp.fc2.weight": (C, 4 * C), "mlp.fc2.bias": (C,)},
    }
    shapes: Shapes = {f"blocks.{i}.{name}": shape for i in range(DEPTH) for name, shape in block.items()}
    shapes |= {"cls_token": (1, 1, C), "pos_embed": (1, N - 1, C), "norm.weight": (C,), "norm.bias": (C,)}
    shapes |= {"patch_embed.proj.weight": (C, 3, 16, 16), "patch_embed.proj.bias": (C,)}
    shapes |= {"head.weight": (10, C), "head.bias": (10,)}
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) / (math.prod(shape[1:]) ** 0.5 if len(shape) == 2 else 4.0)
        for name, shape in shapes.items()
    }


def save(state: State, folder: Path) -> Path:
    """A file as the benchmark's training writes it from a compiled model."""
    path = folder / "ep_90_top1_79.tar"
    torch.save(
        {
            "epoch": 90,
            "model_state": {f"_orig_mod.module.{name}": value for name, value in state.items()},
            "run_name": "mine",
            "args": {"model": "linformer_vit_small_patch16", "imsize": SIDE, "dropout": 0.0, "seed": None},
            "stats": {"top1": 0.79},
            "optimizer_state": {"state": {}, "param_groups": [{"lr": 1e-3, "params": [0, 1]}]},
        },
        path,
    )
    return path


def loaded(kind: str, state: State, folder: Path, side: int = SIDE) -> nn.Module:
    path = save(state, folder)
    return create_backbone(spec(architecture(kind, "tiny"), arguments=SMALL), side, weights=str(path)).model


def split(x: Tensor) -> Tensor:
    return x.reshape(1, N, H, C // H).transpose(1, 2)


def merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(1, N, C)


def hydra(p: State, x: Tensor) -> Tensor:
    q, k, v = linear(x, p["qkv.weight"], p["qkv.bias"]).chunk(3, -1)
    summed = (k / k.norm(dim=-1, keepdim=True) * v).sum(-2, keepdim=True)
    return linear(q / q.norm(dim=-1, keepdim=True) * summed, p["out.weight"], p["out.bias"])


def normalised(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = q @ k.mT
    return merge(weights / weights.sum(-1, keepdim=True) @ v)


def linear_attention(p: State, x: Tensor) -> Tensor:
    q, k, v = map(split, linear(x, p["qkv.weight"], p["qkv.bias"]).chunk(3, -1))
    return linear(normalised(elu(q) + 1, elu(k) + 1, v), p["proj.weight"], p["proj.bias"])


def performer(p: State, x: Tensor) -> Tensor:
    q, k, v = (split(linear(x, p[f"to_{part}.weight"], p[f"to_{part}.bias"])) for part in "qkv")

    def features(y: Tensor, dims: tuple[int, ...]) -> Tensor:
        y = y * (C // H) ** -0.25
        dots = torch.einsum("bhnd,md->bhnm", y, p["fast_attention.projection_matrix"])
        return torch.exp(dots - y.square().sum(-1, keepdim=True) / 2 - dots.amax(dims, keepdim=True)) + 1e-4

    return linear(normalised(features(q, (-1,)), features(k, (-1, -2)), v), p["to_out.weight"], p["to_out.bias"])


def linformer(p: State, x: Tensor) -> Tensor:
    q, k, v = (linear(x, p[f"to_{part}.weight"]) for part in "qkv")
    k, v = p["proj_k"].T @ k, p["proj_v"].T @ v
    k, v = (y.reshape(1, 256, H, C // H).transpose(1, 2) for y in (k, v))
    weights = (split(q) @ k.mT * (C // H) ** -0.5).softmax(-1)
    return linear(merge(weights @ v), p["to_out.weight"], p["to_out.bias"])


def by_scores(p: State, x: Tensor, scores: Tensor) -> Tensor:
    values = split(linear(x, p["v.weight"], p["v.bias"]))
    return linear(merge(scores[..., :N, :N].softmax(-1) @ values), p["proj.weight"], p["proj.bias"])


def synthesizer_fd(p: State, x: Tensor) -> Tensor:
    a = linear(x, p["f_a.weight"], p["f_a.bias"]).reshape(1, N, H, F_FIRST).transpose(1, 2)
    b = linear(x, p["f_b.weight"], p["f_b.bias"]).reshape(1, N, H, F_SECOND).transpose(1, 2)
    columns = torch.arange(F_FIRST * F_SECOND)
    return by_scores(p, x, a[..., columns // F_SECOND] * b[..., columns // F_FIRST])


def synthesizer_fr(p: State, x: Tensor) -> Tensor:
    return by_scores(p, x, p["random_attn_1"] @ p["random_attn_2"])


FUNCTIONS: dict[str, Callable[[State, Tensor], Tensor]] = {
    "hydra_vit": hydra,
    "linear_vit": linear_attention,
    "performer_vit": performer,
    "linformer_vit": linformer,
    "synthesizer_vit": synthesizer_fd,
    "synthesizer_fr_vit": synthesizer_fr,
}
EVERY_KIND = pytest.mark.parametrize("kind", FUNCTIONS)


@EVERY_KIND
@torch.no_grad()
def test_a_checkpoint_gives_the_same_function(kind: str, tmp_path: Path) -> None:
    state = layout(kind)
    model = loaded(kind, state, tmp_path)
    x = torch.randn(1, N, C, generator=torch.Generator().manual_seed(1))
    for index, block in enumerate(model.blocks):
        start = f"blocks.{index}."
        own = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
        mixer = {name.removeprefix("attn."): value for name, value in own.items() if name.startswith("attn.")}
        normed = layer_norm(x, (C,), own["norm1.weight"], own["norm1.bias"], 1e-6)
        torch.testing.assert_close(block.attn(normed), FUNCTIONS[kind](mixer, normed), rtol=1e-4, atol=1e-5)
        assert torch.equal(block.ls1.gamma, own["ls1.gamma"])
    assert torch.equal(model.norm.weight, state["norm.weight"])


@EVERY_KIND
def test_it_loads_at_another_resolution(kind: str, tmp_path: Path) -> None:
    model = loaded(kind, layout(kind), tmp_path, side=128)
    with torch.no_grad():
        assert model.forward_features(torch.randn(1, 3, 128, 128)).isfinite().all()


@EVERY_KIND
def test_without_layer_scale_or_bias_ones_and_zeros_stand_in(kind: str, tmp_path: Path) -> None:
    """`-no_layer_scale -no_qkv_bias`."""
    optional = ("qkv.bias", "to_q.bias", "to_k.bias", "to_v.bias", "f_a.bias", "f_b.bias", ".v.bias", ".gamma")
    state = {name: value for name, value in layout(kind).items() if not name.endswith(optional)}
    model = loaded(kind, state, tmp_path)
    block = model.blocks[1]
    assert torch.equal(block.ls2.gamma, torch.ones(C))
    filled = [name for name, _ in block.attn.named_parameters() if name.endswith("bias") and name != "proj.bias"]
    assert not any(block.attn.get_parameter(name).any() for name in filled)


def test_one_missing_bias_or_projection_is_no_option(tmp_path: Path) -> None:
    state = layout("hydra_vit")
    del state["blocks.1.attn.qkv.bias"]
    with pytest.raises(WeightsError, match=r"blocks\.1\.attn\.qkv\.bias \[96\] is missing"):
        loaded("hydra_vit", state, tmp_path)
    state = layout("performer_vit")
    del state["blocks.0.attn.to_k.weight"]
    with pytest.raises(WeightsError, match=r"blocks\.0\.attn\.qkv\.weight"):
        loaded("performer_vit", state, tmp_path)


@pytest.mark.parametrize(("given", "wanted"), [("linformer_vit", "hydra_vit"), ("hydra_vit", "synthesizer_vit")])
def test_another_mixer_s_checkpoint_is_refused_in_one_line(given: str, wanted: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not fit") as caught:
        loaded(wanted, layout(given), tmp_path)
    assert "\n" not in str(caught.value)


def test_switch_with_and_without_layer_scale() -> None:
    """Its experts are converted elsewhere; what they share with the mixers is here."""
    model = timm.create_model(architecture("switch_vit", "tiny"), img_size=SIDE, **SMALL)
    state = model.state_dict()
    without = {name: value for name, value in state.items() if not name.endswith("gamma")}
    converted = convert(without, model)
    assert converted.keys() == state.keys()
    assert torch.equal(converted["blocks.1.ls2.gamma"], torch.ones(C))


def test_fnet_s_norm_is_taken_and_afno_s_is_not() -> None:
    model = timm.create_model(architecture("hydra_vit", "tiny"), img_size=SIDE, **SMALL)
    norm = {"fc_norm.weight": torch.ones(C), "fc_norm.bias": torch.zeros(C)}
    assert {"norm.weight", "norm.bias"} <= from_wtf(norm, model).keys()
    assert "norm.weight" not in from_wtf({**norm, "blocks.0.attn.w1": torch.ones(1)}, model)


@pytest.mark.parametrize(
    ("kind", "side", "published"),
    [
        ("linformer_vit", 224, 23_256_040),
        ("synthesizer_vit", 224, 19_315_216),
        ("fnet_vit", 224, 14_963_176),
        ("tome_vit", 224, 22_059_496),
        ("switch_vit", 224, 121_348_168),
        ("synthesizer_fr_vit", 224, 18_741_736 - 12 * 2 * 6 * 3 * 8),  # 200 rows are stored for 197 tokens there
        ("synthesizer_fr_vit", 384, 19_330_024 - 12 * 2 * 6 * 7 * 8),  # 584 for 577
    ],
)
def test_sizes_are_those_that_the_benchmark_published(kind: str, side: int, published: int) -> None:
    """Parameters of the small models in tobna/WTF-Benchmark-Dashboard, data/data.json."""
    with torch.device("meta"):
        model = timm.create_model(architecture(kind, "small"), img_size=side)
    assert sum(parameter.numel() for parameter in model.parameters()) == published
