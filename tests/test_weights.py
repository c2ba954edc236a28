"""Weights come from a seed or from files that cannot run code, and foreign ones are refused by name."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_backbones import spec

from luma_cli.backbone.create import attach, create_backbone, inspect
from luma_cli.backbone.timm_model import build, recipe_for
from luma_cli.backbone.weights import fit
from luma_cli.catalogue.cards import candidates
from luma_cli.catalogue.costs import load_costs
from luma_cli.catalogue.timm_index import load_index
from luma_cli.errors import WeightsError


def checkpoint(name: str, **arguments: object) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return timm.create_model(name, **arguments).state_dict()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
def test_a_full_checkpoint_loads_with_its_classifier_left_out(tmp_path: Path, suffix: str) -> None:
    state, path = checkpoint("test_vit"), tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    backbone = create_backbone(spec("test_vit"), 160, weights=str(path))
    torch.testing.assert_close(
        backbone.model.state_dict()["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"]
    )
    assert backbone.weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert backbone.weights.ignored == ("head.bias", "head.weight")


@pytest.mark.parametrize("wrapper", ["state_dict_ema", "model", "model_state", "module", "encoder"])
def test_a_checkpoint_of_an_objectives_own_code_is_unwrapped(tmp_path: Path, wrapper: str) -> None:
    state, path = checkpoint("test_vit"), tmp_path / "weights.pth"
    torch.save({wrapper: {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, path)
    loaded = create_backbone(spec("test_vit"), 160, weights=str(path)).model.state_dict()
    assert torch.equal(loaded["norm.weight"], state["norm.weight"])


def test_positions_are_resampled_as_timm_does(tmp_path: Path) -> None:
    state, path = checkpoint("test_vit"), tmp_path / "weights.safetensors"
    save_file(state, path)
    ours = create_backbone(spec("test_vit"), 96, weights=str(path)).model.state_dict()
    theirs = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay={"file": str(path)}, img_size=96, num_classes=0
    ).state_dict()
    torch.testing.assert_close(ours["pos_embed"], theirs["pos_embed"], rtol=0, atol=0)
    assert ours["pos_embed"].shape != state["pos_embed"].shape


def test_patch_14_becomes_16() -> None:
    backbone = create_backbone(spec("vit_small_patch14_dinov2"), 512, device="meta")
    assert (backbone.stride, backbone.grid) == (16, (32, 32))


def test_weights_of_a_pruned_backbone_load_again(tmp_path: Path) -> None:
    first = create_backbone(spec("test_efficientnet"), 64, seed=5)
    path = tmp_path / "pruned.safetensors"
    save_file(first.model.state_dict(), path)
    again = create_backbone(spec("test_efficientnet"), 64, weights=str(path))
    torch.testing.assert_close(again.state_dict(), first.state_dict(), rtol=0, atol=0)


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, same, other = (create_backbone(spec("test_vit"), 64, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    key = "model.blocks.0.attn.qkv.weight"
    assert torch.equal(first[key], same[key])
    assert not torch.equal(first[key], other[key])


def test_another_architecture_is_refused_by_key_and_shape(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file(checkpoint("test_vit", embed_dim=32, num_heads=2), path)
    with pytest.raises(WeightsError, match=r"does not fit test_vit: .*is \[.*32.*\], expected \[.*64.*\]") as caught:
        create_backbone(spec("test_vit"), 160, weights=str(path))
    assert "\n" not in str(caught.value)


def test_a_deeper_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deeper.safetensors"
    save_file(checkpoint("test_vit", depth=8), path)
    with pytest.raises(WeightsError, match=r"blocks\.6\.\S+ \S+ is not in the model"):
        create_backbone(spec("test_vit"), 160, weights=str(path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused_by_key(tmp_path: Path, value: float) -> None:
    state, path = checkpoint("test_vit"), tmp_path / "weights.pth"
    state["blocks.1.mlp.fc1.weight"][0, 0] = value
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"blocks\.1\.mlp\.fc1\.weight holds NaN or infinite values"):
        create_backbone(spec("test_vit"), 160, weights=str(path))


def test_values_that_are_no_numbers_in_the_classifier_do_not_matter(tmp_path: Path) -> None:
    state, path = checkpoint("test_vit"), tmp_path / "weights.pth"
    state["head.weight"][0, 0] = float("nan")
    torch.save(state, path)
    assert create_backbone(spec("test_vit"), 160, weights=str(path)).weights.ignored == ("head.bias", "head.weight")


def test_quantised_values_are_refused_and_half_precision_is_not(tmp_path: Path) -> None:
    state, path = checkpoint("test_vit"), tmp_path / "weights.pth"
    torch.save({key: value.to(torch.int8) for key, value in state.items()}, path)
    with pytest.raises(WeightsError, match=r"is int8, expected floating-point numbers"):
        create_backbone(spec("test_vit"), 160, weights=str(path))
    torch.save({key: value.bfloat16() for key, value in state.items()}, path)
    loaded = create_backbone(spec("test_vit"), 160, weights=str(path)).model.state_dict()["norm.weight"]
    assert torch.equal(loaded, state["norm.weight"].bfloat16().float())


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError,
        match="is a folder without model.safetensors or pytorch_model.bin, whole or in shards; give a file",
    ):
        create_backbone(spec("test_vit"), 160, weights=str(tmp_path))


def test_a_missing_parameter_is_refused(tmp_path: Path) -> None:
    state, path = checkpoint("test_vit"), tmp_path / "short.safetensors"
    del state["blocks.5.mlp.fc2.weight"]
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"blocks\.5\.mlp\.fc2\.weight \[64, 192\] is missing"):
        create_backbone(spec("test_vit"), 160, weights=str(path))


REGISTERS = {"class_token": True, "reg_tokens": 4, "no_embed_class": True}


@pytest.mark.parametrize(
    ("file", "model", "message"),
    [
        ({"reg_tokens": 4}, {}, r"reg_token \[1, 4, 64\] is not in the model"),
        ({}, {"reg_tokens": 4}, r"reg_token \[1, 4, 64\] is missing"),
        (REGISTERS, {}, r"reg_token \[1, 4, 64\] is not in the model|pos_embed is \[1, 100, 64\]"),
        ({}, REGISTERS, r"pos_embed is \[1, 101, 64\]|reg_token \[1, 4, 64\] is missing"),
        ({}, {"class_token": False, "global_pool": "avg"}, r"cls_token \[1, 1, 64\] is not in the model"),
        ({"init_values": 1e-5}, {}, r"blocks\.0\.ls1\.gamma \[64\] is not in the model"),
        ({"qk_norm": True}, {}, r"blocks\.0\.attn\.\S+ \[32\] is not in the model"),
        ({"pre_norm": True}, {}, r"norm_pre\.\w+ \[64\] is not in the model"),
    ],
)
@pytest.mark.parametrize("resolution", [160, 64])
def test_what_would_be_dropped_or_left_random_is_refused(
    tmp_path: Path, file: dict[str, object], model: dict[str, object], message: str, resolution: int
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(checkpoint("test_vit", **file), path)
    with pytest.raises(WeightsError, match=f"does not fit test_vit: .*({message})") as caught:
        create_backbone(spec("test_vit", arguments=model), resolution, weights=str(path))
    assert "\n" not in str(caught.value)


def test_what_the_map_does_not_need_is_left_out_and_named(tmp_path: Path) -> None:
    state, path = checkpoint("test_vit"), tmp_path / "weights.safetensors"
    extra = {
        "mask_token": torch.ones(1, 1, 64),
        "decoder_pos_embed": torch.ones(1, 9, 32),
        "decoder.0.weight": torch.ones(2),
    }
    save_file(state | extra, path)
    loaded = create_backbone(spec("test_vit"), 160, weights=str(path)).weights
    assert loaded.conversions == (
        "left out, as the map needs none of it: decoder, decoder_pos_embed, head, mask_token",
    )
    assert set(loaded.ignored) >= {"head.weight", "decoder.0.weight"}


def one_of_each_class() -> list[str]:
    """The smallest card size with public weights of every model class: its timm name."""
    found: dict[str, tuple[int, str]] = {}
    for one in candidates():
        entry = load_index().get(one.architecture)
        if entry is not None and one.public_weights and (row := load_costs().get((one.architecture, 512))):
            found[entry.cls] = min((row.params, one.timm_name), found.get(entry.cls, (row.params + 1, "")))
    return sorted(name for _, name in found.values())


@pytest.mark.parametrize("name", one_of_each_class())
def test_the_checkpoint_of_every_class_fits_at_another_size(name: str) -> None:
    """Names and shapes alone, on the meta device: what no filter and no resampling brings to size is refused."""
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    recipe = recipe_for(spec(name))
    model = build(recipe, 448, torch.device("meta"))
    names = inspect(attach(model, spec(name), 448, recipe.module, recipe.architecture))
    with warnings.catch_warnings(action="ignore"):  # counters of batch norms are copied from meta, which is nothing
        fit(model, state, recipe, Path("made.safetensors"), names)


class Malicious:
    """Touches a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_pickle_that_runs_code_is_refused_without_running_it(tmp_path: Path, wrapped: bool) -> None:
    target, path = tmp_path / "ran", tmp_path / "evil.pth"
    if wrapped:
        torch.save({"state_dict": Malicious(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(target)))
    with pytest.raises(WeightsError, match="was refused: it holds .*more than tensors and could run code"):
        create_backbone(spec("test_vit"), 64, weights=str(path))
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"junk", "is not a safetensors file"),
        ("a.safetensors", b"", "is not a safetensors file"),
        ("a.pth", b"", "cannot be read as PyTorch weights"),
        ("a.onnx", b"junk", "unknown kind of file"),
    ],
)
def test_junk_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        create_backbone(spec("test_vit"), 64, weights=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [4, 1000, 0.5, 0.999])
def test_a_truncated_safetensors_file_is_refused(tmp_path: Path, part: float) -> None:
    path = tmp_path / "whole.safetensors"
    save_file(checkpoint("test_vit"), path)
    whole = path.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: int(part * len(whole)) if part < 1 else int(part)])
    with pytest.raises(WeightsError, match="cut.safetensors is not a safetensors file") as caught:
        create_backbone(spec("test_vit"), 64, weights=str(cut))
    assert "\n" not in str(caught.value)


def test_a_file_without_tensors_and_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsError, match="holds no named tensors"):
        create_backbone(spec("test_vit"), 64, weights=str(path))
    with pytest.raises(WeightsError, match="no such file"):
        create_backbone(spec("test_vit"), 64, weights=str(tmp_path / "none.pth"))


def test_pretrained_without_network_says_which_file_and_what_to_do() -> None:
    with pytest.raises(WeightsError, match=r"model.safetensors of timm/test_vit.r160_in1k .* or use --weights FILE"):
        create_backbone(spec("test_vit"), 64, weights="pretrained")


def test_pretrained_without_public_weights_says_so() -> None:
    with pytest.raises(WeightsError, match="has no public weights in timm"):
        create_backbone(spec("coatnet_nano_cc_224"), 64, weights="pretrained")


def test_luma_s_own_architecture_takes_its_own_weights_and_has_no_public_ones(tmp_path: Path) -> None:
    own = create_backbone(spec("hydra_vit_tiny_patch16_224"), 64)
    path = tmp_path / "own.safetensors"
    save_file(own.model.state_dict(), path)
    again = create_backbone(spec("hydra_vit_tiny_patch16_224"), 96, weights=str(path))
    assert "position embedding 4 x 4 -> 6 x 6 by bicubic resampling" in again.weights.conversions
    with pytest.raises(WeightsError, match="has no public weights in timm"):
        create_backbone(spec("hydra_vit_tiny_patch16_224"), 64, weights="pretrained")


def test_a_local_folder_gives_architecture_and_weights(tmp_path: Path) -> None:
    state = checkpoint("test_vit")
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit", "num_classes": 1000}))
    source = f"local-dir:{tmp_path}"
    for backbone in (
        create_backbone(spec(source), 160, weights="pretrained"),
        create_backbone(spec("test_vit"), 160, weights=source),
    ):
        torch.testing.assert_close(backbone.model.state_dict()["norm.weight"], state["norm.weight"])
        assert backbone.weights.sha256
    assert create_backbone(spec(source), 64).weights.source == "random"


def test_a_hub_repository_that_is_not_cached_is_not_fetched() -> None:
    with pytest.raises(WeightsError, match="hf download owner/repo"):
        create_backbone(spec("hf-hub:owner/repo"), 64)
