"""A trained segmenter comes back from its run, its checkpoint or its weights file; a foreign one is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_samples import CONFIG, RUN_ID, state_of
from safetensors.torch import load_file, save_file
from torch import nn

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import CheckpointError, RunError
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.train.checkpoint import refuse_shared, save_checkpoint
from luma_cli.train.config import check_same, config_differences
from luma_cli.train.restore import restore
from luma_cli.train.run_folder import RunFolder, started


def trained(seed: int, head: HeadConfig = CONFIG.head) -> Segmenter:
    return build("test_vit", 64, head=head, seed=seed)


def kept(folder: RunFolder, model: nn.Module, step: int, best: bool = False, **changes) -> Path:
    state = state_of(model, torch.optim.AdamW(model.parameters()), step, **changes)
    return save_checkpoint(folder, state, best=best)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == again and torch.equal(a, b) for (name, a), (again, b) in pairs)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """A run whose best checkpoint is of seed 1 with averaged weights of seed 3, and its latest of seed 2."""
    with started(tmp_path_factory.mktemp("runs") / RUN_ID, RUN_ID, CONFIG) as folder:
        kept(folder, trained(1), 5, best=True, ema=trained(3).state_dict())
        kept(folder, trained(2), 9)
        yield folder


def test_the_best_and_the_latest_come_back(run):
    best, latest = restore(str(run.path), ema=False), restore(str(run.path), "latest")
    assert same(best.segmenter, trained(1))
    assert same(latest.segmenter, trained(2))
    assert [(one.step, one.run_id, one.config) for one in (best, latest)] == [(5, RUN_ID, CONFIG), (9, RUN_ID, CONFIG)]
    assert not best.segmenter.training
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        found, expected = best.segmenter(images), trained(1)(images)
    assert torch.equal(found[0], expected[0])


def test_averaged_weights_are_taken_unless_refused(run):
    averaged = restore(str(run.path))
    assert same(averaged.segmenter, trained(3))
    assert averaged.sha256 != restore(str(run.path), ema=False).sha256


def test_a_checkpoint_and_weights_alone_come_back(run, tmp_path):
    checkpoint = run.checkpoints / "step-000009"
    named = restore(str(checkpoint))
    assert (named.step, named.run_id) == (9, RUN_ID)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(checkpoint / name, tmp_path)
    for text in (tmp_path, tmp_path / "model.safetensors"):
        alone = restore(str(text), dtype=torch.bfloat16)
        assert (alone.step, alone.run_id, alone.sha256) == (0, "", named.sha256)
        assert {parameter.dtype for parameter in alone.segmenter.parameters()} == {torch.bfloat16}
    shutil.copy(checkpoint / "model.safetensors", tmp_path / "other.safetensors")
    assert restore(str(tmp_path / "other.safetensors")).sha256 == named.sha256


@pytest.mark.parametrize("head", ["eomt", "linear"])
def test_other_heads_come_back(tmp_path, head):
    config = replace(CONFIG, head=HeadConfig(name=head, num_classes=4))
    model = trained(4, config.head)
    with started(tmp_path / "run", "x", config) as folder:
        kept(folder, model, 1, config=config)
    assert same(restore(str(tmp_path / "run")).segmenter, model)


def test_a_shared_ffn_is_saved_once_with_the_backbone(run):
    names = load_file(run.checkpoints / "step-000009" / "model.safetensors").keys()
    assert trained(0).ffn == "reused"
    assert [name for name in names if "ffn" in name and name.startswith("head.")] == []
    assert len([name for name in names if name.endswith("mlp.fc1.weight") and name.startswith("backbone.")]) > 0
    refuse_shared(trained(0).state_dict())


def test_a_damaged_checkpoint_is_refused(run, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "copy")
    file = copy / "checkpoints" / "step-000009" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-000009 is damaged: model\.safetensors is not what was written"):
        restore(str(copy / "checkpoints" / "step-000009"))
    assert restore(str(copy), "latest").step == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {"head.colour": torch.zeros(2)}, r"head.colour has \(2,\), expected no such name"),
        (lambda state: dict(list(state.items())[1:]), r"has nothing, expected \("),
        (lambda state: {name: tensor[:1] for name, tensor in state.items()}, r"has \(1,.*expected \("),
    ],
)
def test_weights_of_another_model_are_refused_by_name(run, tmp_path, change, message):
    checkpoint = run.checkpoints / "step-000009"
    shutil.copy(checkpoint / "config.json", tmp_path)
    save_file(change(load_file(checkpoint / "model.safetensors")), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"is of another model: .*{message}"):
        restore(str(tmp_path))


def test_garbage_and_nothing_are_refused(run, tmp_path):
    shutil.copy(run.checkpoints / "step-000009" / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        restore(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        restore(str(tmp_path))
    with pytest.raises(RunError, match="no run"):
        restore("nix")


def test_a_resumption_as_asked_before_is_exact_and_other_names_of_the_same_are_the_same():
    assert check_same(CONFIG, CONFIG) == ()
    spelled = replace(CONFIG, backbone="vit_b.dinov3")
    asked = replace(
        spelled, backbone="vit_base_patch16_dinov3.lvd1689m", data_root="/elsewhere", recipe_changed=("lr",)
    )
    assert check_same(spelled, asked) == ()
    assert check_same(replace(CONFIG, data_fingerprint="a"), CONFIG) == ()


REFUSED = {
    "backbone": ("test_convnext", "backbone was 'test_vit' and is 'test_convnext'"),
    "resolution": (128, "resolution was 64 and is 128"),
    "weights": ("random", "weights was 'pretrained' and is 'random'"),
    "seed": (1, "seed was 0 and is 1"),
    "data": ("cityscapes", "data was 'ade20k' and is 'cityscapes'"),
    "head": (replace(CONFIG.head, num_classes=19), "head.num_classes was 4 and is 19"),
    "recipe": (replace(CONFIG.recipe, lr=1.0), "recipe.lr was 0.0001 and is 1.0"),
}


@pytest.mark.parametrize("field", REFUSED)
def test_a_resumption_that_would_learn_something_else_is_refused_and_both_values_named(field):
    value, message = REFUSED[field]
    with pytest.raises(RunError, match="cannot go on as asked") as caught:
        check_same(CONFIG, replace(CONFIG, **{field: value}))
    assert message in str(caught.value)
    assert "without --resume" in str(caught.value)


def test_changed_data_is_refused():
    one, other = (replace(CONFIG, data_fingerprint=letter * 64) for letter in "ab")
    with pytest.raises(RunError, match=r"data_fingerprint was 'aaaaaaaaaaa\.\.\.' and is 'bbb"):
        check_same(one, other)


def test_another_way_to_compute_is_told():
    asked = replace(CONFIG, micro_batch=2, grad_checkpoint=True)
    assert check_same(CONFIG, asked) == ("micro_batch was 0 and is 2", "grad_checkpoint was False and is True")


def test_differences_of_several_runs():
    other = replace(CONFIG, recipe=replace(CONFIG.recipe, lr=1.0), recipe_changed=("lr",))
    found = config_differences({"a": CONFIG.to_json(), "b": other.to_json()})
    assert found == {"recipe.lr": {"a": 0.0001, "b": 1.0}}


def test_python_that_a_configuration_names_runs_only_when_it_is_given_again(run, tmp_path):
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    folder = tmp_path / "copy"
    shutil.copytree(run.path / "checkpoints", folder)
    config = next(folder.rglob("config.json"))
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "imports": [str(tmp_path / "own.py")]}))
    weights = str(config.parent / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"config\.json wants to run .*own\.py.* add --import \S+own\.py"):
        restore(weights)
    assert not (tmp_path / "ran").exists()
