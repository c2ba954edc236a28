"""Runs that start from runs, from their own start, on little data, and end early."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_files import encoded

from luma_cli.catalogue.recipes import fitted_warmups, load_recipe
from luma_cli.cli.app import run
from luma_cli.errors import RunError
from luma_cli.store.database import open_read
from luma_cli.store.runs import list_runs
from luma_cli.train.config import Given, Settings
from luma_cli.train.loop import Event, Stepped, not_falling
from luma_cli.train.restore import build_model, restore
from luma_cli.train.run import train_run
from luma_cli.train.run_folder import open_run, read_config

NAMES = ("sky", "road", "tree", "car")


def card(place: Path, name: str, classes: tuple[str, ...]) -> str:
    tables = ", ".join(f'{{ name = "{each}", value = {value} }}' for value, each in enumerate(classes))
    splits = "".join(f'[splits.{split}]\nimages = "images"\nlabels = "labels"\n' for split in ("train", "val"))
    (place / f"{name}.toml").write_text(
        f'image_suffixes = [".png"]\nlabel_suffix = ".png"\nclasses = [{tables}]\n{splits}'
    )
    return str(place / f"{name}.toml")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of four classes, cards of them, and a finished run in the folder `run`."""
    folder = tmp_path_factory.mktemp("runs")
    for index in range(4):
        values = np.kron(np.random.default_rng(index).integers(0, 4, (3, 3)), np.ones((24, 24))).astype(np.uint8)
        for inner, pixels in (("images", np.stack([values * 60, 255 - values * 60, values], -1)), ("labels", values)):
            (folder / inner).mkdir(exist_ok=True)
            (folder / inner / f"{index}.png").write_bytes(encoded(pixels))
    card(folder, "own", NAMES)
    card(folder, "reversed", NAMES[::-1])
    card(folder, "other", ("a", "b", "c", "d"))
    outcome = train(folder, folder / "run", given(folder))
    assert outcome.status == "finished"
    return folder


def given(place: Path, *changes: str, **fields: object) -> Given:
    usual = ("batch=4", "num_points=64", "eval_every_epochs=0", *(changes or ("steps=2",)))
    known = {"backbone": "test_vit", "data": str(place / "own.toml"), "resolution": 64, "head": {"num_queries": 8}}
    return Given(**{**known, "changes": usual, **fields})


def train(place: Path, out: Path | None, asked: Given, on_event=lambda event: None, **settings: object):
    chosen = {"device": "cpu", "num_workers": 0, "out": out, "database": place / "luma.db", **settings}
    return train_run(asked, Settings(**chosen), on_event)


def started_from(place: Path, data: str, **fields: object) -> Given:
    """What asks for a run from `run` that learns nothing: its learning rate is 0 but for rounding."""
    changes = given(place, "steps=1", "lr=1e-30", "weight_decay=0").changes
    return Given(data=str(place / f"{data}.toml"), init=str(place / "run"), changes=changes, **fields)


def test_a_run_starts_from_a_run_and_keeps_its_class_layer_by_name(place, tmp_path):
    train(place, tmp_path / "a", started_from(place, "reversed"))
    first, then = (restore(str(path)).segmenter.state_dict() for path in (place / "run", tmp_path / "a"))
    for name, before in first.items():
        rows = [3, 2, 1, 0, 4] if name.startswith("head.classify.") else slice(None)
        torch.testing.assert_close(then[name], before[rows], atol=0, rtol=1e-6)
    config = read_config(tmp_path / "a" / "config.json")
    assert (config.backbone, config.head.num_queries, config.resolution) == ("test_vit", 8, 64)
    assert config.init["class_layer"]
    assert config.init["sha256"] == restore(str(place / "run")).sha256


def test_other_classes_need_a_class_layer_drawn_anew(place, tmp_path):
    weights = next((place / "run" / "checkpoints").iterdir()) / "model.safetensors"
    asked = ("train", "--init", str(weights), "--data", str(place / "other.toml"), "--db", str(place / "luma.db"))
    assert run([*asked, "--steps", "1"]) == 2
    train(place, tmp_path / "b", started_from(place, "other", class_layer=False, resolution=96))
    first, then = (restore(str(path)).segmenter.state_dict() for path in (place / "run", tmp_path / "b"))
    same = {name for name in first if first[name].shape == then[name].shape and torch.allclose(first[name], then[name])}
    assert {name.rpartition(".")[0] for name in first.keys() - same} == {"backbone.model", "head.classify"}
    assert first["backbone.model.pos_embed"].shape != then["backbone.model.pos_embed"].shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--init", "RUN", "--data", "other.toml"], "class 0 was 'sky' and is 'a'; add --no-class-layer"),
        (["test_convnext", "--init", "RUN", "--data", "own.toml"], "--init has backbone test_vit, not test_convnext"),
        (["--init", "RUN", "--data", "own.toml", "--queries", "9"], "--init has head.num_queries 8, not 9"),
        (["--init", "RUN", "--data", "own.toml", "--weights", "random"], "--init and --weights are both given"),
        (["test_vit", "--data", "own.toml", "--no-class-layer"], "add --init RUN"),
        (["--init", "RUN", "--resume", "RUN"], "--init starts a new run and --resume goes on with one"),
    ],
)
def test_what_does_not_agree_with_the_start_is_refused(place, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(place)
    asked = [str(place / "run") if each == "RUN" else each for each in arguments]
    assert run(["train", *asked, "--db", str(place / "luma.db"), "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err


class Crash(Exception):
    """Ends a training."""


def crash(event: Event) -> None:
    if isinstance(event, Stepped):
        raise Crash


@pytest.mark.parametrize("again", ["resume", "out"])
def test_a_run_that_ended_before_its_first_checkpoint_is_no_dead_end(place, tmp_path, again):
    out = tmp_path / "run"
    with pytest.raises(Crash):
        train(place, out, given(place), crash)
    first = open_run(out).run_id
    if again == "resume":
        outcome = train(place, None, Given(), resume=str(out))
        assert outcome.run_id == first
    else:
        outcome = train(place, out, given(place, "steps=1"))
        assert outcome.run_id == open_run(out).run_id != first
        with closing(open_read(place / "luma.db")) as db:
            assert first not in [one.run_id for one in list_runs(db)]
    assert outcome.status == "finished"
    with pytest.raises(RunError, match="go on with --resume"):
        train(place, out, given(place))


def test_a_resumed_run_keeps_what_was_said_of_its_checkpoints(place, tmp_path):
    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 3:
            signal.raise_signal(signal.SIGTERM)

    asked = given(place, "steps=8")
    train(place, tmp_path / "run", asked, stop, checkpoint_steps=2, keep=1)
    assert train(place, None, Given(), resume=str(tmp_path / "run")).status == "finished"
    session = json.loads((tmp_path / "run" / "config.json").read_text())["session"]
    assert session == {"keep": 1, "checkpoint_steps": 2}
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert kept == ["step-000008"]


def test_a_training_ends_after_so_many_validations_without_gain(place, tmp_path):
    changes = ("steps=30", "lr=1e-30", "patience=2", "eval_every_epochs=1")
    outcome = train(place, tmp_path / "run", given(place, *changes))
    assert (outcome.status, outcome.step) == ("finished", 3)
    assert "early" in outcome.summary()
    assert train(place, None, Given(), resume=str(tmp_path / "run")).step == 3


def test_first_blocks_rest(place, tmp_path):
    train(
        place,
        tmp_path / "a",
        given(place, "steps=2", "lr=1e-2", "freeze=2", "warmup_head_steps=0", "warmup_backbone_steps=0"),
    )
    config = read_config(tmp_path / "a" / "config.json")
    assert config.recipe.freeze == 2
    fresh, after = build_model(config).state_dict(), restore(str(tmp_path / "a")).segmenter.state_dict()
    moved = {name for name in fresh if not torch.equal(fresh[name], after[name])}
    assert not any(name.startswith(("backbone.model.blocks.0.", "backbone.model.blocks.1.")) for name in moved)
    assert "backbone.model.pos_embed" not in moved
    assert any(name.startswith("backbone.model.blocks.2.") for name in moved)


def test_warm_ups_are_cut_where_they_would_take_more_than_a_fifth():
    recipe = load_recipe("ade20k")
    assert fitted_warmups(recipe, 7_500) == recipe
    short = fitted_warmups(recipe, 7_499)
    assert (short.warmup_head_steps, short.warmup_backbone_steps) == (249, 500)
    assert fitted_warmups(recipe, 5).warmup_backbone_steps == 0


def test_cut_warm_ups_are_said_and_kept_and_set_ones_are_not_cut(place, tmp_path, capsys):
    asked = ("train", "test_vit", "--data", str(place / "own.toml"), "--res", "64", "--steps", "20", "--dry-run")
    more = ("--recipe", "ade20k", "--device", "cpu", "--workers", "0", "--db", str(place / "luma.db"))
    assert run([*asked, *more, "--set", "warmup_head_steps=500"]) == 2
    assert "type --set warmup_head_steps=" in capsys.readouterr().err
    train(place, tmp_path / "a", given(place, "steps=20", recipe="ade20k"))
    config = read_config(tmp_path / "a" / "config.json")
    assert (config.recipe.warmup_head_steps, config.recipe.warmup_backbone_steps) == (0, 2)
    assert "warmup_backbone_steps" in config.recipe_changed
    assert train(place, None, given(place, "steps=20", recipe="ade20k"), resume=str(tmp_path / "a")).step == 20


def test_a_loss_that_does_not_fall_is_told_once_after_a_hundred_steps():
    falling = [10 - 0.05 * step for step in range(100)]
    assert not not_falling(falling)
    assert not not_falling(falling[:99])
    assert "9.78 in the first 10 steps, 9.78 in steps 91 to 100" in not_falling([9.78] * 100)
    assert "does not fall" in not_falling([10.0] * 50 + [9.6] * 50)
    assert not not_falling([10.0] * 50 + [9.4] * 50)


@pytest.mark.parametrize(
    "wrong", [["--data", "nope.toml"], ["--data", "ade20k", "--recipe", "nope"], ["--data", "ade20k", "--set", "lrr=1"]]
)
def test_typos_are_answered_without_torch(wrong):
    code = f"import sys; from luma_cli.cli.app import run; code = run({['train', 'test_vit', *wrong]!r}); "
    code += "heavy = {'torch', 'timm'} & set(sys.modules); sys.exit(3 if heavy else code)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 2


def test_a_run_id_that_leads_out_of_its_folder_is_refused(place, tmp_path):
    copy = Path(shutil.copytree(place / "run", tmp_path / "run"))
    for run_id in ("../../x", "/tmp/x", "..", ".hidden"):
        (copy / "run.json").write_text(json.dumps({"schema": 1, "run_id": run_id}))
        with pytest.raises(RunError, match="names no run"):
            open_run(copy)


@pytest.mark.parametrize(
    ("free", "message"), [(1_000_000, "free some space, or name another"), (6_000_000, "--keep 1")]
)
def test_the_disk_is_held_against_the_checkpoints_before_the_first_step(place, tmp_path, monkeypatch, free, message):
    monkeypatch.setattr("luma_cli.train.prepare.free_bytes", lambda file: free)
    told: list[str] = []
    try:
        train(place, tmp_path / "run", given(place, "steps=1"), lambda event: told.append(str(event)))
    except RunError as error:
        told.append(str(error))
        assert not (tmp_path / "run").exists()
    assert any(message in each for each in told)


def test_random_weights_on_few_images_are_told(place, tmp_path):
    told: list[str] = []
    train(place, tmp_path / "run", given(place, "steps=1"), lambda event: told.append(str(event)))
    assert any("the weights are random, and 4 images are few" in each for each in told)
