"""Checkpoints: all comes back to the bit; whatever is done to one, an earlier one is used and the fault named."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_samples import CONFIG, RUN_ID, saved, small_model, state_of, train_step
from torch import nn

from luma_cli.errors import CheckpointError
from luma_cli.train import checkpoint as checkpoint_module
from luma_cli.train import checkpoints
from luma_cli.train.checkpoint import (
    load_checkpoint,
    random_state,
    refuse_shared,
    restore_random_state,
    save_checkpoint,
)
from luma_cli.train.checkpoints import (
    SkippedCheckpoint,
    best,
    changed_versions,
    latest_sound,
    names,
    read_manifest,
    versions,
)
from luma_cli.train.run_folder import RunFolder, RunWarning, started


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with started(tmp_path / "run", RUN_ID, CONFIG) as made:
        yield made


def test_everything_comes_back(folder):
    model = small_model()
    optimizer = torch.optim.AdamW([{"params": model[0].parameters(), "lr": 0.1, "betas": (0.8, 0.9)}])
    train_step(model, optimizer)
    kept = state_of(
        *(model, optimizer, 17),
        ema={name: tensor * 2 for name, tensor in model.state_dict().items()},
        scaler={"scale": 65536.0, "_growth_tracker": 3},
        best_miou_percent=100 / 3,
        seconds=0.1 + 0.2,
        extra={"bad": ["a.jpg"], "skipped": 2},
    )
    path = save_checkpoint(folder, kept)
    assert len({file.stat().st_mode for file in path.iterdir()}) == 1, "weights are as readable as the rest"
    found = load_checkpoint(path)
    for name in ("run_id", "config", "step", "epoch", "position", "scaler", "best_miou_percent", "seconds", "extra"):
        assert getattr(found, name) == getattr(kept, name)
    for name in ("model", "ema"):
        torch.testing.assert_close(dict(getattr(found, name)), dict(getattr(kept, name)), rtol=0, atol=0)
    assert found.optimizer["param_groups"] == kept.optimizer["param_groups"]
    torch.testing.assert_close(found.optimizer["state"], kept.optimizer["state"], rtol=0, atol=0)
    assert torch.equal(found.random[0]["cpu"], kept.random[0]["cpu"])


def test_training_goes_on_bit_for_bit(folder):
    """Dropout and inputs are drawn from torch's own generator: its state is part of a checkpoint."""
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(3):
        train_step(model, optimizer)
    path = save_checkpoint(folder, state_of(model, optimizer, 3))
    expected = [train_step(model, optimizer) for _ in range(5)]

    again = small_model(seed=99)
    optimizer = torch.optim.AdamW(again.parameters())
    state = load_checkpoint(path)
    again.load_state_dict(dict(state.model))
    optimizer.load_state_dict(dict(state.optimizer))
    assert restore_random_state(state.random, 0, "cpu")
    assert [train_step(again, optimizer) for _ in range(5)] == expected


def test_a_process_without_saved_random_state_is_warned():
    before = torch.get_rng_state()
    with pytest.warns(RunWarning, match="no random state for process 1 on cpu"):
        assert not restore_random_state([random_state("cpu")], 1, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_tensors_of_any_layout_and_kind_come_back(folder):
    model = {
        "transposed": torch.arange(6.0).view(2, 3).T,
        "channels_last": torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "half": torch.rand(3).to(torch.bfloat16),
        "counter": torch.tensor(2**40),
        "flag": torch.tensor(True),
        "empty": torch.empty(0, 3),
        "also_empty": torch.empty(0),
    }
    found = load_checkpoint(save_checkpoint(folder, replace(_state(), model=model))).model
    assert set(found) == set(model)
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in model.items())


def _state():
    model = small_model()
    return state_of(model, torch.optim.AdamW(model.parameters()), 1)


def test_a_layer_that_two_modules_share_is_refused(folder):
    shared = nn.Linear(2, 2)
    model = nn.ModuleDict({"backbone": shared, "head": shared})
    with pytest.raises(CheckpointError, match=r"head\.\w+ and backbone\.\w+ are one tensor, expected each"):
        save_checkpoint(folder, replace(_state(), model=model.state_dict()))
    refuse_shared(nn.ModuleDict({"backbone": shared}).state_dict())
    assert names(folder) == []


def test_the_newest_the_best_and_those_pointed_to_are_kept(folder):
    saved(folder, 1, keep=2)
    saved(folder, 2, keep=2, best=True)
    saved(folder, 3, 4, 5, keep=2)
    assert names(folder) == ["step-000002", "step-000004", "step-000005"]
    assert (folder.pointed("latest"), folder.pointed("best")) == ("step-000005", "step-000002")
    assert (latest_sound(folder).path.name, best(folder).name) == ("step-000005", "step-000002")
    saved(folder, 6, keep=1, best=True)
    assert names(folder) == ["step-000006"]
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-000006"]


def test_a_checkpoint_is_never_replaced_and_the_later_written_is_the_latest(folder):
    """As after a resumption from an earlier step: what was written after it is of another course of the run."""
    saved(folder, 10, 20, keep=5)
    (again,) = saved(folder, 10, keep=2)
    assert again.name == "step-000010-2"
    assert latest_sound(folder).path == again
    assert names(folder) == ["step-000020", "step-000010-2"] or names(folder) == ["step-000010-2", "step-000020"]
    assert [read_manifest(folder.checkpoints / name).serial for name in ("step-000020", "step-000010-2")] == [2, 3]


def test_the_best_of_a_run_without_validation_is_the_latest(folder):
    saved(folder, 1, 2)
    assert best(folder).name == "step-000002"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


FILES = ("model.safetensors", "optimizer.pt", "random.pt", "state.json", "config.json")
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    **{f"flipped bit in {name}": (lambda at, name=name: flip(at / name), f"{name} is not what was") for name in FILES},
    **{f"{name} cut off": (lambda at, name=name: cut(at / name), rf"{name} has \d+ bytes, expected") for name in FILES},
    **{f"no {name}": (lambda at, name=name: (at / name).unlink(), f"{name} is missing") for name in FILES},
    "no manifest": (lambda at: (at / "manifest.json").unlink(), "has no manifest.json: it was never finished"),
    "half a manifest": (lambda at: cut(at / "manifest.json"), "manifest.json cannot be read"),
    "an empty manifest": (lambda at: (at / "manifest.json").write_text(""), "manifest.json cannot be read"),
    "another schema": (lambda at: edited(at, schema=9), "has schema 9, this luma knows 1"),
    "a path in the manifest": (lambda at: edited(at, files={"../../config.json": {}}), "not a manifest of luma"),
}


def edited(path: Path, **changes: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_checkpoint_is_named_and_skipped_or_refused(folder, fault):
    damage, message = FAULTS[fault]
    sound, broken = saved(folder, 1, 2)
    damage(broken)
    found = latest_sound(folder)
    assert found.path == sound
    assert found.skipped == (SkippedCheckpoint("step-000002", found.skipped[0].why),)
    pytest.raises(CheckpointError, load_checkpoint, broken).match(message)
    assert re.search(message, found.skipped[0].why)
    load_checkpoint(sound)
    # a person may still repair it: what cannot be read is never removed
    saved(folder, 3, 4, 5)
    assert load_checkpoint(latest_sound(folder).path).step == 5


def test_no_sound_checkpoint_names_every_fault(folder):
    with pytest.raises(CheckpointError, match="no checkpoint yet; `luma train --resume .*` starts it"):
        latest_sound(folder)
    for path in saved(folder, 1, 2):
        flip(path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"step-000002: model.*; step-000001: model.*; start a new run"):
        latest_sound(folder)


def test_a_damaged_best_checkpoint_is_refused_and_not_replaced_by_another(folder):
    saved(folder, 1, best=True)
    saved(folder, 2)
    flip(folder.checkpoints / "step-000001" / "model.safetensors")
    with pytest.raises(CheckpointError, match="the best checkpoint .*step-000001 is damaged"):
        best(folder)


def test_a_pickle_that_would_run_code_is_refused(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'owned'}",))

    (path,) = saved(folder, 1)
    torch.save({"optimizer": Evil(), "scaler": {}}, path / "optimizer.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path, verify=False)
    assert not (tmp_path / "owned").exists()


def test_what_a_killed_writer_left_is_removed_by_the_next(folder):
    saved(folder, 1)
    for left in (".writing-step-000002", ".gone-step-000000"):
        (folder.checkpoints / left).mkdir()
        (folder.checkpoints / left / "model.safetensors").write_text("half")
    assert latest_sound(folder).skipped == ()
    saved(folder, 2)
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-000001", "step-000002"]


STAGES = {
    "save_file": OSError(errno.ENOSPC, "No space left on device"),
    "write_manifest": OSError(errno.EIO, "Input/output error"),
    "_sync": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "versions": KeyboardInterrupt(),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_at_any_stage_leaves_the_old_one_and_no_rubbish(folder, stage, monkeypatch):
    (old,) = saved(folder, 1)

    def fail(*arguments: object) -> None:
        raise STAGES[stage]

    monkeypatch.setattr(checkpoint_module, stage, fail)
    expected = KeyboardInterrupt if stage == "versions" else CheckpointError
    with pytest.raises(expected) as caught:
        saved(folder, 2)
    if expected is CheckpointError:
        assert str(STAGES[stage].strerror) in str(caught.value)
    monkeypatch.undo()
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-000001"]
    assert latest_sound(folder).path == old


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def wide_state(step: int):
    """About 256 KiB of weights, and twice that in the optimiser."""
    model = nn.Linear(256, 256)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 256)).sum().backward()
    optimizer.step()
    return state_of(model, optimizer, step)


@pytest.mark.parametrize("free_kib", [64, 400, 640, 760], ids=lambda kib: f"{kib} KiB free")
def test_a_full_disk_keeps_the_old_checkpoint_and_says_what_was_needed(small_disk, free_kib):
    """At 64 KiB the weights do not fit, at 400 and 640 the optimiser does not, at 760 hardly anything is missing."""
    with started(small_disk / "run", RUN_ID, CONFIG) as folder:
        old = save_checkpoint(folder, wide_state(1))
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        (small_disk / "filler").write_bytes(b"x" * (free - free_kib * 1024))
        with pytest.raises(CheckpointError) as caught:
            save_checkpoint(folder, wide_state(2))
        message = str(caught.value)
        assert "step 2 could not be written" in message
        assert "No space left on device" in message
        assert "about 789,512 bytes needed" in message
        assert f"{free_kib * 1024 // 4096 * 4096:,} free" in message
        assert "step-000001 is kept" in message
        assert "\n" not in message
        assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-000001"]
        assert latest_sound(folder).path == old
        (small_disk / "filler").unlink()
        assert latest_sound(folder).path == old
        assert save_checkpoint(folder, wide_state(2)).name == "step-000002"


def test_a_limit_on_file_size_is_one_line(folder):
    old = save_checkpoint(folder, wide_state(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="step 2 could not be written .*step-000001 is kept") as caught:
            save_checkpoint(folder, wide_state(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert latest_sound(folder).path == old


def test_versions_that_differ_are_named():
    assert changed_versions(versions(), versions()) == ()
    assert changed_versions({"torch": "2.0", "luma": "0.1"}, {"torch": "2.1", "luma": "0.1", "timm": "1"}) == (
        "torch was 2.0 and is 2.1",
        "timm was unknown and is 1",
    )


def test_the_manifest_says_who_wrote_it_and_what(folder):
    (path,) = saved(folder, 1)
    manifest = read_manifest(path)
    assert (manifest.run_id, manifest.step, manifest.serial, manifest.best) == (RUN_ID, 1, 1, False)
    assert manifest.versions == versions()
    assert set(manifest.files) == {path.name for path in path.iterdir()} - {"manifest.json"}
    assert "test_vit" in (path / "README.md").read_text()


def test_checkpoints_is_the_only_place_that_names_them(folder):
    assert checkpoints.free_name(folder.checkpoints, 1_234_567) == "step-1234567"
