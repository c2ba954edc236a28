"""A training from the first step to the last: what it keeps, and that a resumed one is the same to the last bit."""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from drawn_data import drawn
from run_samples import curve, load_run

from luma_cli.errors import BadRecipe, CheckpointError, DataError, Diverged, RunError, StoreError, UsageError
from luma_cli.store.database import open_read
from luma_cli.store.runs import evaluations
from luma_cli.train import loop as events
from luma_cli.train import step
from luma_cli.train.checkpoint import load_checkpoint
from luma_cli.train.checkpoints import latest_sound
from luma_cli.train.config import Given, Settings, continued, resumed_config
from luma_cli.train.restore import restore
from luma_cli.train.run import Outcome, train_run
from luma_cli.train.run_folder import open_run

NUM_STEPS = 6


@contextmanager
def single_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def one_thread():
    with single_thread():
        yield


def given(*changes: str, **fields) -> Given:
    """A quick run of test_vit on 12 drawn images of 64 px, validated at its end."""
    usual = (f"steps={NUM_STEPS}", "epochs=0", "batch=4", "warmup_head_steps=1", "warmup_backbone_steps=1")
    asked = Given(
        backbone="test_vit",
        data="ade20k",
        root=str(drawn()),
        resolution=64,
        recipe="smoke",
        changes=(*usual, "num_points=64", *changes),
        head={"num_queries": 12},
    )
    return replace(asked, **fields)


def run(asked: Given, out: Path, on_event=lambda event: None, **settings) -> Outcome:
    return train_run(asked, Settings(device="cpu", out=out, checkpoint_steps=1, **settings), on_event)


def losses(run_id: str) -> list[tuple[int, float]]:
    with closing(open_read()) as connection:
        return curve(connection, run_id, "train/loss")


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(latest_sound(open_run(path)).path).model)


class Crash(Exception):
    """Stands for whatever ends a process."""


def crash_at(number: int):
    def watch(event: events.Event) -> None:
        if isinstance(event, events.Stepped) and event.step == number:
            raise Crash

    return watch


@dataclass(frozen=True)
class Made:
    """A run with a database of its own, made once for tests that only read it."""

    folder: Path
    database: Path
    seen: list[events.Event]
    outcome: Outcome | None = None
    losses: list[tuple[int, float]] = field(default_factory=list)


def make(folder: Path, end: int | None = None) -> Made:
    """`given()` carried out, or up to the step at which it crashes."""
    made = Made(folder / "run", folder / "luma.db", [])
    with single_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUMA_DB", str(made.database))
        if end is not None:
            with pytest.raises(Crash):
                run(given(), made.folder, crash_at(end))
            return made
        outcome = run(given(), made.folder, made.seen.append)
        return replace(made, outcome=outcome, losses=losses(outcome.run_id))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Made:
    """A finished run."""
    return make(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def crashed(tmp_path_factory) -> Made:
    """A run that crashed at its second step."""
    return make(tmp_path_factory.mktemp("crashed"), end=2)


def test_a_run_keeps_its_curve_its_checkpoint_its_scores_and_what_it_was(whole, monkeypatch):
    monkeypatch.setenv("LUMA_DB", str(whole.database))
    seen, outcome = whole.seen, whole.outcome
    assert (outcome.status, outcome.step, outcome.exit_code) == ("finished", NUM_STEPS, 0)
    curve_of = losses(outcome.run_id)
    assert [number for number, _ in curve_of] == list(range(1, NUM_STEPS + 1))
    assert curve_of[-1][1] < curve_of[0][1]
    with closing(open_read()) as connection:
        record = load_run(connection, outcome.run_id)
        (score,) = evaluations(connection, outcome.run_id, images=True)
    assert (record.status, record.step, record.num_steps, record.weights) == ("finished", 6, 6, "random")
    assert record.dataset.startswith("ade20k#")
    assert record.recipe == "smoke+"
    assert record.facts["params"] == sum(each.numel() for each in restore("latest").segmenter.parameters())
    assert record.facts["macs"] > 0
    assert score.num_images == len(score.images) == 3
    assert score.macs_per_image == pytest.approx(record.facts["macs"] * score.windows_per_image)
    assert score.miou_percent == outcome.best_miou_percent
    assert [type(event) for event in seen].count(events.Evaluated) == 1
    assert json.loads((whole.folder / "config.json").read_text())["data_fingerprint"]


def test_the_same_command_twice_gives_the_same_bits(whole, tmp_path):
    other = run(given(), tmp_path / "b")
    assert whole.losses == losses(other.run_id)
    first, second = weights(whole.folder), weights(tmp_path / "b")
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_another_seed_gives_another_run(whole, tmp_path):
    other = run(given(seed=1), tmp_path / "b")
    assert whole.losses != losses(other.run_id)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ((), {}),
        (("ema_decay=0.9",), {"accumulate": 2}),
        (("eval_every_epochs=1",), {"head": {"name": "eomt", "num_queries": 12}}),
        ((), {"backbone": "test_convnext", "head": {}}),
        (("batch_norm=train",), {"backbone": "test_resnet", "resolution": 96, "head": {"name": "linear"}}),
    ],
)
def test_a_crashed_run_goes_on_as_if_nothing_had_happened(tmp_path, changes, fields):
    whole = run(given(*changes, **fields), tmp_path / "whole")
    for number in (2, 5):
        if number == 2:
            asked, settings = given(*changes, **fields), {}
        else:
            asked, settings = Given(), {"resume": str(tmp_path / "part")}
        with pytest.raises(Crash):
            run(asked, tmp_path / "part", crash_at(number), **settings)
    part = run(Given(), tmp_path / "part", resume=str(tmp_path / "part"))
    assert part.status == "finished"
    assert losses(part.run_id) == losses(whole.run_id)
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "part")
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    with closing(open_read()) as connection:
        scores = [[each.miou_percent for each in evaluations(connection, one.run_id)] for one in (whole, part)]
    assert scores[0] == scores[1]


def test_micro_batches_change_nothing_but_rounding(whole, tmp_path):
    assert open_run(whole.folder).config().micro_batch == 4
    parts = run(given(accumulate=4), tmp_path / "b")
    assert open_run(tmp_path / "b").config().micro_batch == 1
    for (_, one), (_, other) in zip(whole.losses, losses(parts.run_id), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_a_frozen_backbone_does_not_move(tmp_path):
    run(given("freeze_backbone=true"), tmp_path / "a")
    from luma_cli.catalogue.heads import HeadConfig
    from luma_cli.head.segmenter import build

    before = build("test_vit", 64, head=HeadConfig(num_queries=12)).state_dict()
    after = weights(tmp_path / "a")
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved
    assert not any(name.startswith("backbone.") for name in moved)


@pytest.mark.parametrize(("backbone", "freeze"), [("test_vit", "true"), ("test_resnet", "false")])
def test_averaged_weights_are_a_whole_model(tmp_path, backbone, freeze):
    """Of a backbone with buffers or that rests, parameters that learn are but a part of it."""
    asked = given("ema_decay=0.9", f"freeze_backbone={freeze}", backbone=backbone, resolution=96)
    with pytest.raises(Crash):
        run(asked, tmp_path / "a", crash_at(4))
    run(Given(), tmp_path / "a", resume=str(tmp_path / "a"))
    averaged, last = restore(str(tmp_path / "a")), restore(str(tmp_path / "a"), ema=False)
    assert averaged.weights.name == "ema.safetensors"
    found, own = averaged.segmenter.state_dict(), last.segmenter.state_dict()
    assert list(found) == list(own)
    learning = {name for name, _ in last.segmenter.head.named_parameters(prefix="head")}
    assert any(not torch.equal(found[name], own[name]) for name in learning)
    assert all(torch.equal(found[name], own[name]) for name, _ in last.segmenter.named_buffers())


def test_a_run_that_leaves_the_numbers_stops_with_advice_and_keeps_the_last_good_state(tmp_path, monkeypatch):
    clip = step.Trainer._clip

    def poisoned(trainer: step.Trainer) -> float:
        state = trainer.optimizer.state_dict()["state"]
        return float("nan") if state and int(state[0]["step"]) >= 2 else clip(trainer)

    monkeypatch.setattr(step.Trainer, "_clip", poisoned)
    with pytest.raises(Diverged, match="the gradient was not finite 5 times in a row.*try --set lr"):
        run(given("steps=12"), tmp_path / "a")
    sound = latest_sound(open_run(tmp_path / "a"))
    assert all(torch.isfinite(value).all() for value in load_checkpoint(sound.path).model.values())
    with closing(open_read()) as connection:
        record = load_run(connection, open_run(tmp_path / "a").run_id)
    assert record.status == "diverged"
    assert "not finite" in record.reason


def test_two_runs_in_one_folder_are_refused(whole):
    with pytest.raises(RunError, match="holds run .* go on with --resume"):
        run(given(), whole.folder)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"backbone": "test_convnext"}, "backbone was 'test_vit.*and is 'test_convnext"),
        ({"resolution": 96}, "resolution was 64 and is 96"),
        ({"changes": ("lr=0.5",)}, "recipe.lr was 0.006 and is 0.5"),
        ({"head": {"num_queries": 9}}, "head.num_queries was 12 and is 9"),
        ({"seed": 3}, "seed was 0 and is 3"),
    ],
)
def test_a_run_does_not_go_on_as_another_one(crashed, fields, words):
    with pytest.raises(RunError, match=words):
        run(Given(**fields), crashed.folder, resume=str(crashed.folder))


def test_how_it_is_computed_may_change_and_then_does(tmp_path):
    with pytest.raises(Crash):
        run(given(), tmp_path / "a", crash_at(2))
    notes: list[events.Event] = []
    asked = Given(accumulate=2, grad_checkpoint=True, skip_bad=3, changes=("eval_every_epochs=1",))
    with pytest.raises(UsageError, match="--out .*b is not the folder of run"):
        run(asked, tmp_path / "b", resume=str(tmp_path / "a"))
    done = run(asked, tmp_path / "a", notes.append, resume=str(tmp_path / "a"))
    told = [event.text for event in notes if isinstance(event, events.Noted)]
    assert any("micro_batch was 4 and is 2" in text for text in told)
    config = load_checkpoint(latest_sound(open_run(tmp_path / "a")).path).config
    assert (config.micro_batch, config.grad_checkpoint, config.skip_bad) == (2, True, 3)
    with closing(open_read()) as connection:
        record = load_run(connection, done.run_id)
        assert [each.step for each in evaluations(connection, done.run_id)] == [3, 6]
    assert record.facts["micro_batch"] == "2 x 2 images"
    assert record.facts["activations"].startswith("timm")
    assert record.facts["weights"]["source"] == "random"


def test_fewer_images_than_the_batch_are_one_pass_and_batch_norm_knows(tmp_path):
    seen: list[events.Event] = []
    asked = given("batch=16", backbone="test_resnet", resolution=96, root=str(drawn(num_images=8)), head={})
    run(asked, tmp_path / "a", seen.append)
    facts = next(event.facts for event in seen if isinstance(event, events.Started))
    assert facts["passes"].startswith("1 x 7 images")
    assert facts["BatchNorm"] == "frozen: fewer than 8 images in a pass (7)"
    assert [event.text[:19] for event in seen if isinstance(event, events.Noted)] == ["7 samples, fewer th"]
    state = load_checkpoint(latest_sound(open_run(tmp_path / "a")).path)
    assert (state.epoch, state.position) == (6, 0)


def test_other_data_under_the_same_name_is_refused(crashed):
    with pytest.raises(RunError, match="the training files have fingerprint .* the run began with"):
        run(Given(root=str(drawn(num_images=20))), crashed.folder, resume=str(crashed.folder))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(whole, tmp_path):
    with pytest.raises(Crash):
        run(given(), tmp_path / "a", crash_at(4), keep=3)
    newest = latest_sound(open_run(tmp_path / "a")).path
    data = bytearray((newest / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (newest / "model.safetensors").write_bytes(data)
    notes: list[events.Event] = []
    part = run(Given(), tmp_path / "a", notes.append, resume=str(tmp_path / "a"))
    assert any(isinstance(note, events.Noted) and newest.name in note.text and "SHA-256" in note.text for note in notes)
    assert losses(part.run_id) == whole.losses


def test_a_checkpoint_that_cannot_be_written_is_told_and_training_goes_on(tmp_path, monkeypatch):
    from luma_cli.train import book

    save, calls = book.save_checkpoint, []

    def full(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise CheckpointError("no space left on device")
        return save(*arguments, **options)

    monkeypatch.setattr(book, "save_checkpoint", full)
    notes: list[events.Event] = []
    assert run(given(), tmp_path / "a", notes.append).status == "finished"
    assert [note.text for note in notes if isinstance(note, events.Noted)] == ["no checkpoint: no space left on device"]


def test_the_numbers_up_to_a_checkpoint_are_kept_before_it(tmp_path, monkeypatch):
    """Else a kill in between would leave a gap that no resumed run fills."""
    from luma_cli.train import book

    save, kept = book.save_checkpoint, []

    def watched(folder, state, **options):
        kept.append(losses(state.run_id)[-1][0] == state.step)
        return save(folder, state, **options)

    monkeypatch.setattr(book, "save_checkpoint", watched)
    run(given(), tmp_path / "a")
    assert kept == [True] * NUM_STEPS


def test_a_store_that_fails_too_does_not_hide_why_a_run_ended(tmp_path, monkeypatch):
    from luma_cli.train import book

    def full(*arguments, **options):
        raise StoreError("database or disk is full")

    def crash(event: events.Event) -> None:
        if isinstance(event, events.Stepped):
            monkeypatch.setattr(book, "open_write", full)
            monkeypatch.setattr(book, "open_write", full)
            raise Crash

    with pytest.raises(Crash):
        run(given(), tmp_path / "a", crash)


def test_the_last_checkpoint_must_be_written(tmp_path, monkeypatch):
    from luma_cli.train import book

    def full(*arguments, **options):
        raise CheckpointError("no space left on device")

    monkeypatch.setattr(book, "save_checkpoint", full)
    with pytest.raises(CheckpointError, match="no space left"):
        run(given(), tmp_path / "a")


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        (Given(data="ade20k"), UsageError, "no backbone is named"),
        (Given(backbone="test_vit"), UsageError, "no dataset is named"),
        (given(head={"name": "none"}), UsageError, "--head none predicts nothing"),
        (given(recipe="smoek"), BadRecipe, "did you mean 'smoke'"),
        (given("lrr=1"), BadRecipe, "lr"),
        (given("warmup_head_steps=50"), BadRecipe, "the warm-ups take 50"),
        (given(root="nowhere"), DataError, "nowhere"),
        (given(accumulate=9), UsageError, "--accumulate 9, expected 1 to 4"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(tmp_path, asked, kind, words):
    with pytest.raises(kind, match=words):
        run(asked, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert open_read() is None


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (Given, {"resolution": 0}, "--res is 0, expected 1 or more"),
        (Given, {"seed": -1}, "--seed is -1, expected 0 or more"),
        (Given, {"skip_bad": -1}, "--skip-bad is -1, expected 0 or more"),
        (Settings, {"num_workers": -1}, "--workers is -1, expected 0 or more"),
        (Settings, {"keep": 0}, "--keep is 0, expected 1 or more"),
        (Settings, {"checkpoint_steps": 0}, "--checkpoint-steps is 0, expected 1 or more"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(kind, fields, words):
    with pytest.raises(UsageError, match=words):
        kind(**fields)


def test_a_resumed_run_is_carried_out_as_asked_now_and_keeps_its_place(tmp_path, monkeypatch):
    first = run(given(), tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    again = Given(skip_bad=2, accumulate=2, changes=("eval_every_epochs=3",))
    notes: list[events.Event] = []
    train_run(again, Settings(device="cpu", resume="a"), notes.append)
    told = [note.text for note in notes if isinstance(note, events.Noted)]
    assert any("skip_bad was 0 and is 2" in text for text in told)
    with closing(open_read()) as connection:
        kept = load_run(connection, first.run_id)
    assert kept is not None
    assert kept.folder == str(tmp_path / "a")
    assert kept.facts["micro_batch"] == "2 x 2 images"
    saved = open_run(tmp_path / "a").config()
    now = continued(saved, resumed_config(again, saved))
    assert (now.skip_bad, now.micro_batch, now.recipe.eval_every_epochs) == (2, 2, 3)
    assert replace(now, skip_bad=0, micro_batch=saved.micro_batch, recipe=saved.recipe) == saved


def test_a_resumed_run_does_not_move_to_another_folder(whole, tmp_path):
    with pytest.raises(UsageError, match=f"is not the folder of run {whole.outcome.run_id}"):
        train_run(Given(), Settings(device="cpu", resume=str(whole.folder), out=tmp_path / "b"))


def test_a_run_that_is_stopped_before_its_first_step_goes_on(whole, tmp_path):
    def stop(event: events.Event) -> None:
        if isinstance(event, events.Started):
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = run(given(), tmp_path / "a", stop)
    assert (stopped.status, stopped.step, stopped.exit_code) == ("stopped", 0, 143)
    ended = train_run(Given(), Settings(device="cpu", resume=str(tmp_path / "a")))
    assert (ended.status, ended.step) == ("finished", NUM_STEPS)
    assert losses(ended.run_id) == whole.losses
