"""EoMT segmenters of the official code and of transformers are read as they are, or refused in words that help."""

from __future__ import annotations

import json
import re
from pathlib import Path

import eomt_conversion
import pytest
import torch
from drawn_data import write_sample
from safetensors.torch import save_file
from torch import Tensor

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.cli.app import run
from luma_cli.errors import CheckpointError, WeightsError
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.train.foreign import built, foreign_config, import_run, read_foreign
from luma_cli.train.restore import restore

ARCHITECTURES = {"plain": "vit_small_patch14_reg4_dinov2", "dinov3": "vit_small_patch16_dinov3_qkvb"}
HEAD = HeadConfig(name="eomt", num_queries=6, num_classes=150, l2=2)
# Our name -> that of the official code, written by hand.
OFFICIAL = (
    (r"^backbone\.model\.", "encoder.backbone."),
    (r"^head\.queries\.", "q."),
    (r"^head\.classify\.", "class_head."),
    (r"^head\.mask\.", "mask_head."),
    (r"^head\.upscale\.(\d)\.enlarge\.", r"upscale.\1.conv1."),
    (r"^head\.upscale\.(\d)\.smooth\.", r"upscale.\1.conv2."),
    (r"^head\.upscale\.", "upscale."),
)


def as_official(segmenter: Segmenter) -> dict[str, Tensor]:
    """The state dict of the official Lightning module with the weights of `segmenter`."""
    state = {
        "attn_mask_probs": torch.zeros(HEAD.l2),
        "encoder.pixel_mean": torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1),
        "encoder.pixel_std": torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1),
    }
    for key, value in segmenter.state_dict().items():
        for pattern, name in OFFICIAL:
            key = re.sub(pattern, name, key)
        state[key] = value.clone()
    named = {f"network.{key}": value for key, value in state.items()}
    return {**named, "criterion.empty_weight": torch.ones(HEAD.num_classes + 1)}


@pytest.fixture(scope="module")
def official() -> Segmenter:
    return build("test_vit", 64, head=HEAD, seed=5)


@pytest.fixture
def checkpoint(official: Segmenter, tmp_path: Path) -> Path:
    """A checkpoint as Lightning writes it."""
    path = tmp_path / "epoch=30-step=9.ckpt"
    torch.save({"state_dict": as_official(official), "global_step": 9, "hyper_parameters": {"lr": 1e-4}}, path)
    return path


def same(one: Segmenter, other: Segmenter) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == again and torch.equal(a, b) for (name, a), (again, b) in pairs)


def folder_of(kind: str, tmp_path: Path) -> tuple[torch.nn.Module, Path, str]:
    """Transformers' tiny model, the folder that it was saved in, and the backbone of its shape."""
    theirs = getattr(eomt_conversion, kind)()[0]
    theirs.config.layer_norm_eps = 1e-3  # of no backbone
    for module in theirs.modules():
        if isinstance(module, torch.nn.LayerNorm) and "2d" not in type(module).__name__.lower():
            module.eps = 1e-3
    theirs.save_pretrained(tmp_path / "saved")
    arguments = {"embed_dim": 32, "depth": 4, "num_heads": 2, "init_values": 1.0}
    (tmp_path / "shape").mkdir()
    shape = {"architecture": ARCHITECTURES[kind], "model_args": arguments}
    (tmp_path / "shape" / "config.json").write_text(json.dumps(shape))
    return theirs, tmp_path / "saved", f"local-dir:{tmp_path / 'shape'}"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_transformers_folders_give_transformers_logits(kind: str, tmp_path: Path) -> None:
    theirs, folder, backbone = folder_of(kind, tmp_path)
    found = read_foreign(folder, backbone)
    ours = built(found)
    assert (found.resolution, found.head.num_queries, found.head.l2, found.names) == (64, 7, 3, ())
    theirs.attn_mask_probs.zero_()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, output = theirs.eval()(images), ours(images)
    torch.testing.assert_close(output.class_logits, expected.class_queries_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.mask_logits, expected.masks_queries_logits, rtol=1e-5, atol=3e-5)


def test_an_official_checkpoint_becomes_a_run(
    official: Segmenter,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUMA_DB", str(tmp_path / "luma.db"))
    assert run(["import", str(checkpoint), "--as", "eomt", "--data", "ade20k", "--backbone", "test_vit"]) == 0
    restored = restore("eomt")
    assert same(restored.segmenter, official)
    assert (restored.config.resolution, restored.config.head, restored.run_id) == (64, HEAD, "eomt")
    assert restored.config.recipe.name == "imported"
    assert restored.config.recipe.source == f"{checkpoint}, sha256 {read_foreign(checkpoint, 'test_vit').sha256}"
    write_sample("ade20k", tmp_path / "ade", 5, short_side=64)
    assert run(["eval", "eomt", "--root", "ade", "--no-boundary"]) == 0
    capsys.readouterr()
    assert run(["train", "--resume", "eomt"]) == 1
    assert "was imported, without an optimiser; start from it: --init eomt" in capsys.readouterr().err
    assert run(["import", str(checkpoint), "--as", "eomt", "--data", "ade20k", "--backbone", "test_vit"]) == 1
    assert "holds run eomt" in capsys.readouterr().err


def test_a_compiled_network_and_safetensors(official: Segmenter, tmp_path: Path) -> None:
    state = {key.replace("network.", "network._orig_mod."): value for key, value in as_official(official).items()}
    save_file(state, tmp_path / "model.safetensors")
    assert same(built(read_foreign(tmp_path / "model.safetensors", "test_vit")), official)


def test_differences_are_added_to_their_base(tmp_path: Path) -> None:
    theirs, folder, backbone = folder_of("dinov3", tmp_path)
    whole = built(read_foreign(folder, backbone, 64))
    base = {key: torch.randn_like(value) for key, value in whole.backbone.model.state_dict().items()}
    state = as_official(whole)
    for key, value in base.items():
        state[f"network.encoder.backbone.{key}"] -= value
    for name in ("mean", "std"):
        state[f"network.encoder.pixel_{name}"].zero_()
    torch.save(state, tmp_path / "delta.bin")
    save_file(base, tmp_path / "base.safetensors")
    delta = read_foreign(tmp_path / "delta.bin", backbone, 64)
    found = built(delta, str(tmp_path / "base.safetensors")).state_dict()
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5)
    with pytest.raises(CheckpointError, match="differences from the weights of .* add --base FILE"):
        built(delta)
    with pytest.raises(CheckpointError, match="does not say its size: luma import .* --res 512"):
        read_foreign(tmp_path / "delta.bin", backbone)
    with pytest.raises(CheckpointError, match="whole weights, to which nothing is added; leave --base out"):
        built(read_foreign(folder, backbone), "any")


def test_what_is_no_whole_eomt_is_refused(official: Segmenter, checkpoint: Path, tmp_path: Path) -> None:
    def refused(state: dict[str, Tensor], **asked: str) -> str:
        torch.save(state, tmp_path / "bad.bin")
        with pytest.raises(CheckpointError) as caught:
            built(read_foreign(tmp_path / "bad.bin", asked.get("backbone", "test_vit")))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    state = as_official(official)
    assert "no EoMT segmenter" in refused({key: value for key, value in state.items() if "encoder" in key})
    assert "does not fit test_vit: blocks.5" in refused({k: v for k, v in state.items() if "blocks.5.norm1" not in k})
    assert "does not fit test_vit2" in refused(state, backbone="test_vit2")
    assert "head.mask.4.bias has nothing" in refused({k: v for k, v in state.items() if "mask_head.4.bias" not in k})
    assert "teacher.weight has (2,), expected no such name" in refused(
        {**state, "network.teacher.weight": torch.ones(2)}
    )
    with pytest.raises(CheckpointError, match="backbone of 64 channels and 6 blocks; name it: luma import"):
        read_foreign(checkpoint)
    with pytest.raises(CheckpointError, match="positions for 64 pixels, not for 128"):
        read_foreign(checkpoint, "test_vit", 128)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(
        json.dumps({"architectures": ["Mask2FormerForUniversalSegmentation"]})
    )
    with pytest.raises(CheckpointError, match="holds Mask2FormerForUniversalSegmentation, expected EomtFor"):
        restore(str(tmp_path / "other"))
    (tmp_path / "other" / "config.json").write_text(json.dumps({"architectures": ["EomtForUniversalSegmentation"]}))
    (tmp_path / "other" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "1.safetensors"}}))
    with pytest.raises(WeightsError, match="names the shard 1.safetensors, which is not beside it; copy it"):
        restore(str(tmp_path / "other"))


def test_classes_are_those_of_the_dataset_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder, backbone = folder_of("plain", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    card = tmp_path / "mine.toml"
    card.write_text(
        'classes = ["road", "car", "sky", "tree", "dog"]\nimage_suffixes = [".jpg"]\nlabel_suffix = ".png"\n'
        '[splits.train]\nimages = "a"\nlabels = "b"\n[splits.val]\nimages = "c"\nlabels = "d"\n'
    )

    def named(*names: str) -> None:
        config["id2label"] = dict(enumerate(names))
        (folder / "config.json").write_text(json.dumps(config))

    named("Road", "car", "sky", "tree", "dog")
    assert foreign_config(read_foreign(folder, backbone), str(card)).head.num_classes == 5
    named("car", "road", "sky", "tree", "dog")
    with pytest.raises(CheckpointError, match="class 0 is 'car', the dataset's 'road'"):
        foreign_config(read_foreign(folder, backbone), str(card))
    with pytest.raises(CheckpointError, match="it has 5, the dataset 150"):
        foreign_config(read_foreign(folder, backbone), "ade20k")
    with pytest.raises(CheckpointError, match=r"does not say of which dataset its 5 classes \(car, road, sky, ...\)"):
        foreign_config(read_foreign(folder, backbone))
    monkeypatch.chdir(tmp_path)
    named("Road", "car", "sky", "tree", "dog")
    assert import_run(folder, "mine", str(card), backbone).is_dir()
