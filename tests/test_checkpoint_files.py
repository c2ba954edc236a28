"""One backbone in the wrappings in which people have weights, and what is refused in words."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from tiny_backbones import spec
from torch import Tensor

from luma_cli.backbone.create import create_backbone
from luma_cli.backbone.timm_model import build, recipe_for
from luma_cli.backbone.weights import fit
from luma_cli.errors import WeightsError

State = dict[str, Tensor]


def state() -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return timm.create_model("test_vit", num_classes=10, img_size=64).state_dict()


def under(prefix: str, tensors: State) -> State:
    return {prefix + key: value for key, value in tensors.items()}


def load(path: Path) -> tuple[State, str]:
    backbone = create_backbone(spec("test_vit"), 64, weights=str(path))
    return backbone.model.state_dict(), "; ".join(backbone.weights.conversions)


WRAPPED = {
    "teacher": lambda s: {"teacher": {**under("backbone.", s), "dino_head.mlp.0.weight": torch.zeros(2, 2)}},
    "moco": lambda s: {"state_dict": under("module.base_encoder.", s)},
    "lightning": lambda s: {"state_dict": under("model.", s), "epoch": 3},
    "encoder": lambda s: under("encoder.", s),
    "compiled": lambda s: {"network": under("_orig_mod.", s)},
    "ema": lambda s: {"ema": s},
    "model_state_dict": lambda s: {"model_state_dict": s},
    "nested": lambda s: {"model": {"student_net": {"trunk": s}}},
    "timm's train.py": lambda s: {"state_dict": s, "args": argparse.Namespace(model="test_vit", out=Path("x"))},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_usual_wrappings_load(tmp_path: Path, wrapping: str) -> None:
    torch.save(WRAPPED[wrapping](state()), tmp_path / "w.pth")
    loaded, _ = load(tmp_path / "w.pth")
    assert all(torch.equal(value, state()[key]) for key, value in loaded.items())


@pytest.mark.parametrize(
    ("better", "worse"), [("teacher.backbone.", "student.backbone."), ("ema.", "model."), ("state_dict_ema.", "")]
)
def test_teachers_and_averaged_weights_come_first_and_it_is_said(tmp_path: Path, better: str, worse: str) -> None:
    other = {key: value + 1 for key, value in state().items()}
    torch.save({**under(worse, other), **under(better, state())}, tmp_path / "w.pth")
    loaded, said = load(tmp_path / "w.pth")
    assert torch.equal(loaded["norm.weight"], state()["norm.weight"])
    assert f"prefix {better} removed" in said
    assert "is there as well" in said


def test_shards_of_a_folder_are_read_together_and_a_missing_one_is_named(tmp_path: Path) -> None:
    keys = sorted(state())
    shards = {"a.safetensors": keys[:40], "b.safetensors": keys[40:]}
    for name, part in shards.items():
        save_file({key: state()[key] for key in part}, tmp_path / name)
    index = {key: name for name, part in shards.items() for key in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert torch.equal(load(tmp_path)[0]["norm.weight"], state()["norm.weight"])
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names the shard b\.safetensors, which is not beside it"):
        load(tmp_path)


def test_half_a_model_under_a_prefix_is_refused_by_prefix_and_key(tmp_path: Path) -> None:
    half = {key: value for key, value in state().items() if not key.startswith("blocks.5.")}
    torch.save(under("net.", half), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"under net\. blocks\.5\.\S+ \S+ is missing"):
        load(tmp_path / "w.pth")


def test_a_file_of_another_kind_shows_its_keys(tmp_path: Path) -> None:
    torch.save({"visual.conv.weight": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"it holds visual\.conv\.weight, expected such keys as cls_token"):
        load(tmp_path / "w.pth")


def test_a_whole_module_is_refused_with_what_to_save(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit"), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"whole module and could run code; save model\.state_dict\(\)"):
        load(tmp_path / "w.pth")


def dinov3_names(model: Eva, bias: float) -> State:
    names = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    found: State = {}
    for key, value in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        found[key] = value
    return {**found, "blocks.0.attn.qkv.bias": torch.full((1152,), bias), "mask_token": torch.zeros(1, 384)}


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_biases_that_timm_would_drop_are_refused_unless_zero(capsys: pytest.CaptureFixture[str], bias: float) -> None:
    recipe = recipe_for(spec("vit_small_patch16_dinov3"))
    model = build(recipe, 64, torch.device("cpu"))
    file = dinov3_names(model, bias)
    if bias:
        with pytest.raises(WeightsError, match=r"blocks\.0\.attn\.qkv\.bias \[1152\] .*vit_small_patch16_dinov3_qkvb"):
            fit(model, file, recipe, Path("w.pth"), [])
    else:
        fit(model, file, recipe, Path("w.pth"), [])
    assert capsys.readouterr().out == ""


SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
PLAIN = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 64, "patch_size": 16, "num_classes": 0}


@pytest.mark.parametrize("kind", ["2", "2 gated", "2 registers", "3", "3 gated"])
def test_features_equal_those_of_transformers(kind: str) -> None:
    import transformers as hf

    torch.manual_seed(5)
    theirs: Any
    model: Any
    if kind.startswith("3"):
        gated = kind == "3 gated"
        config = hf.DINOv3ViTConfig(**SMALL, intermediate_size=128, num_register_tokens=4, use_gated_mlp=gated)
        theirs, name = hf.DINOv3ViTModel(config), "vit_small_patch16_dinov3_qkvb"
        mlp = {"swiglu_mlp": True, "scale_mlp": False, "swiglu_align_to": 8} if gated else {}
        arguments = {"qkv_bias": True, "class_token": True, "num_reg_tokens": 4, "no_embed_class": True, **mlp}
        config.hidden_act = "silu" if gated else "gelu"
        theirs = hf.DINOv3ViTModel(config)
        rope = {"use_abs_pos_emb": False, "use_rot_pos_emb": True, "rope_type": "dinov3", "rope_temperature": 100}
        more = {
            "init_values": 1e-5,
            "use_fc_norm": False,
            "mlp_ratio": 2,
            "rope_rotate_half": True,
        }
        model = Eva(**PLAIN, **arguments, **rope, **more, norm_layer=partial(timm.layers.LayerNorm, eps=1e-5))
    else:
        registers, gated = kind == "2 registers", kind == "2 gated"
        config = (hf.Dinov2WithRegistersConfig if registers else hf.Dinov2Config)(**SMALL, use_swiglu_ffn=gated)
        theirs = (hf.Dinov2WithRegistersModel if registers else hf.Dinov2Model)(config)
        name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
        options: dict[str, Any] = {"reg_tokens": 4, "no_embed_class": True} if registers else {}
        if gated:
            options = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU, "mlp_ratio": 352 / 64}
        model = VisionTransformer(**PLAIN, init_values=1e-5, **options)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    said = fit(model.eval(), theirs.state_dict(), recipe_for(spec(name)), Path("w"), [])[1]
    assert any("transformers' DINOv" in text for text in said)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            model.forward_features(images), theirs.eval()(images).last_hidden_state, rtol=1e-5, atol=1e-5
        )
