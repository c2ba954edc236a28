"""Runs and their curves in the store: exact, overwritten by (run, step), never NULL for what is no number."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_samples import RUN_ID, curve, evaluation, load_run, record
from store_samples import profile, select

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import RunError, StoreError
from luma_cli.store import database
from luma_cli.store.database import migrations
from luma_cli.store.inspection import check
from luma_cli.store.profiles import save
from luma_cli.store.runs import (
    MIOU,
    best_miou,
    curves,
    delete_run,
    evaluations,
    forget_after,
    list_runs,
    save_evaluation,
    save_metrics,
    start_run,
    update_run,
)
from luma_cli.store.transfer import merge


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Any]:
    with closing(database.open_write(tmp_path / "luma.db")) as opened:
        yield opened


def sound(file: Path) -> None:
    assert check(file).problems == ()


def test_a_run_comes_back_as_it_was_kept(db, tmp_path):
    kept = record(facts={"deep": {"list": [1, 2.5, None, True]}, "text": "ż'\"--"}, seconds=0.1 + 0.2)
    start_run(db, kept)
    assert load_run(db.conn, RUN_ID) == kept
    assert load_run(db.conn, "other") is None
    assert list_runs(db.conn) == [kept]
    sound(tmp_path / "luma.db")


def test_update_changes_what_is_given_and_adds_facts(db):
    start_run(db, record())
    update_run(db, RUN_ID, step=7, seconds=1.5)
    update_run(db, RUN_ID, status="diverged", reason="loss is nan at step 8", facts={"macs": 12})
    found = load_run(db.conn, RUN_ID)
    assert (found.status, found.reason, found.step, found.seconds) == ("diverged", "loss is nan at step 8", 7, 1.5)
    assert found.facts == {"params": 370_000, "macs": 12}


def test_a_number_that_is_none_is_kept_as_that_and_not_as_null(db):
    start_run(db, record(facts={"memory": math.inf}))
    update_run(db, RUN_ID, seconds=math.nan)
    save_metrics(db, RUN_ID, [(1, "loss", math.nan), (2, "loss", math.inf), (3, "loss", -math.inf)])
    values = [value for _, value in curve(db.conn, RUN_ID, "loss")]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]
    found = load_run(db.conn, RUN_ID)
    assert (found.seconds, found.facts) == (0.0, {"memory": None, "not_finite": ["facts.memory"]})
    query = "SELECT not_finite, value FROM run_curves ORDER BY step"
    assert db.execute(query).fetchall() == [("nan", None), ("inf", None), ("-inf", None)]
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT INTO run_metric VALUES (1, 'loss', 9, NULL, NULL)")


_values = st.floats(allow_nan=False).filter(lambda value: value != 0 or math.copysign(1, value) > 0)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.tuples(st.integers(0, 2**40), st.text(max_size=8)), _values, max_size=20))
def test_curves_are_exact_to_the_bit_and_later_values_win(tmp_path, numbers):
    with closing(database.open_write(tmp_path / "luma.db")) as db:
        delete_run(db, RUN_ID)
        start_run(db, record())
        save_metrics(db, RUN_ID, [(step, name, 0.5) for step, name in numbers])
        save_metrics(db, RUN_ID, [(step, name, value) for (step, name), value in numbers.items()])
        found = {(step, name): value for name, points in curves(db.conn, RUN_ID).items() for step, value in points}
    assert {key: value.hex() for key, value in found.items()} == {key: v.hex() for key, v in numbers.items()}


def test_resuming_forgets_later_steps_only(db):
    start_run(db, record())
    update_run(db, RUN_ID, step=4)
    save_metrics(db, RUN_ID, [(step, name, float(step)) for step in range(1, 5) for name in ("loss", MIOU)])
    assert forget_after(db, RUN_ID, 2) == 4
    assert curves(db.conn, RUN_ID) == {"loss": [(1, 1.0), (2, 2.0)], MIOU: [(1, 1.0), (2, 2.0)]}
    assert load_run(db.conn, RUN_ID).step == 2


def test_starting_a_known_run_takes_it_up_again(db):
    start_run(db, record())
    save_metrics(db, RUN_ID, [(1, "loss", 1.0)])
    update_run(db, RUN_ID, status="stopped", reason="SIGTERM", step=9, seconds=60.0)
    start_run(db, record(folder="/moved", step=5, num_processes=2, facts={"more": 1}, started_at="2027-01-01"))
    found = load_run(db.conn, RUN_ID)
    assert (found.status, found.reason, found.step, found.folder) == ("running", "", 5, "/moved")
    assert (found.seconds, found.started_at, found.num_processes) == (60.0, record().started_at, 2)
    assert found.facts == {"params": 370_000, "more": 1}
    assert curve(db.conn, RUN_ID, "loss") == [(1, 1.0)]


def test_an_unknown_run_is_refused_by_name(db):
    for change in (
        lambda: update_run(db, "nix", step=1),
        lambda: save_metrics(db, "nix", [(1, "loss", 1.0)]),
        lambda: forget_after(db, "nix", 1),
    ):
        with pytest.raises(RunError, match="no run 'nix' in .*luma runs list"):
            change()
    assert not delete_run(db, "nix")


def test_the_best_miou_is_of_the_validations_else_of_the_evaluations(db):
    for run_id in ("a", "b", "c"):
        start_run(db, record(run_id))
    save_metrics(db, "a", [(1, MIOU, 20.0), (2, MIOU, 30.0), (3, MIOU, 25.0), (4, MIOU, math.nan)])
    save_evaluation(db, evaluation("b", miou_percent=44.0))
    save_evaluation(db, evaluation("b", miou_percent=99.0, data="cityscapes"))
    assert best_miou(db.conn) == {"a": 30.0, "b": 44.0}


def test_an_evaluation_comes_back_as_it_was_kept_and_is_kept_once(db, tmp_path):
    one, other = evaluation(), evaluation(evaluated_at="", step=500, seconds=2)
    assert save_evaluation(db, one) == save_evaluation(db, one) != save_evaluation(db, other, now=lambda: 2e9)
    assert evaluations(db.conn, images=True) == [one, other]
    assert [len(found.images) for found in evaluations(db.conn)] == [0, 0]
    sound(tmp_path / "luma.db")


def test_evaluations_of_one_second_come_in_the_order_of_their_steps(db):
    kept = [evaluation(step=step, evaluated_at="2026-11-20T10:00:00Z") for step in range(1, 9)]
    for one in reversed(kept):
        save_evaluation(db, one)
    assert [found.step for found in evaluations(db.conn, RUN_ID)] == list(range(1, 9))


@pytest.mark.parametrize("name", ["miou_percent", "seconds", "macs_per_image"])
def test_an_evaluation_with_a_number_that_is_none_is_refused(db, name):
    with pytest.raises(StoreError, match=f"{name} is nan, expected a finite number"):
        save_evaluation(db, evaluation(**{name: math.nan}))
    assert db["evaluation"].count == 0


def test_deleting_a_run_leaves_nothing_of_it(db, tmp_path):
    save(db, profile())
    for run_id in (RUN_ID, "other"):
        start_run(db, record(run_id))
        save_metrics(db, run_id, [(1, "loss", 1.0)])
        save_evaluation(db, evaluation(run_id))
    assert delete_run(db, RUN_ID)
    tables = ("run", "run_metric", "evaluation", "evaluation_class", "evaluation_image", "environment")
    assert [db[table].count for table in tables] == [1, 1, 1, 3, 2, 2]
    assert delete_run(db, "other")
    assert [db[table].count for table in tables] == [0, 0, 0, 0, 0, 1]
    sound(tmp_path / "luma.db")


FORGERIES = {
    "UPDATE run SET status = 'finished'": f"run {RUN_ID} is not what its hash says",
    "UPDATE run SET config = '{}'": f"run {RUN_ID} is not what its hash says",
    "UPDATE run SET revision = 77": f"run {RUN_ID} is not what its hash says",
    "UPDATE evaluation SET miou_percent = 99": "evaluation 1: hash is not what was saved",
    "UPDATE evaluation_class SET true_positive = 1": "evaluation 1: hash is not what was saved",
    "DELETE FROM evaluation_image WHERE image_index = 0": "evaluation 1: hash is not what was saved",
    "DROP VIEW score_costs": "view score_costs is not as luma makes it",
    "PRAGMA foreign_keys = OFF; DELETE FROM run": "points to no run",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_check_names_what_was_changed_behind_our_back(db, forgery, tmp_path):
    start_run(db, record())
    save_metrics(db, RUN_ID, [(1, "loss", 1.0)])
    save_evaluation(db, evaluation())
    db.close()
    sound(tmp_path / "luma.db")
    with closing(sqlite3.connect(tmp_path / "luma.db")) as connection:
        connection.executescript(forgery)
    assert any(FORGERIES[forgery] in problem for problem in check(tmp_path / "luma.db").problems)


def filled(file: Path, *changes) -> Path:
    with closing(database.open_write(file)) as db:
        for change in changes:
            change(db)
    return file


def everything(file: Path) -> list[object]:
    """All that is said of runs and evaluations, without integer keys."""
    with closing(database.open_read(file)) as connection:
        ordered = ("runs ORDER BY run_id", "run_curves ORDER BY run_id, name, step", "evaluations ORDER BY evaluation")
        return [connection.execute(f"SELECT * FROM {view}").fetchall() for view in ordered] + [
            evaluations(connection, images=True)
        ]


def test_merging_is_idempotent_and_free_of_order_and_the_further_state_of_a_run_stands(tmp_path):
    early = [
        lambda db: start_run(db, record(), now=lambda: 100.0),
        lambda db: save_metrics(db, RUN_ID, [(1, "loss", 1.0), (2, "loss", 9.0)], now=lambda: 101.0),
        lambda db: save_evaluation(db, evaluation(evaluated_at="")),
    ]
    late = [
        *early[:2],
        lambda db: forget_after(db, RUN_ID, 1, now=lambda: 50.0),
        lambda db: save_metrics(db, RUN_ID, [(2, "loss", 0.5)], now=lambda: 50.0),
        lambda db: update_run(db, RUN_ID, status="finished", step=2, now=lambda: 51.0),
        lambda db: save_evaluation(db, evaluation(miou_percent=40.0)),
    ]
    other = [lambda db: start_run(db, record("z")), lambda db: save_evaluation(db, evaluation("elsewhere"))]
    sources = [filled(tmp_path / f"{n}.db", *part) for n, part in enumerate((early, late, other))]
    results = []
    for number, order in enumerate([(0, 1, 2), (2, 1, 0), (1, 1, 0, 2, 0, 1)]):
        target = tmp_path / f"merged{number}.db"
        with closing(database.open_write(target)) as db:
            merged = [merge(db, sources[index]) for index in order]
        sound(target)
        results.append(everything(target))
        if number == 0:
            assert [(one.runs, one.evaluations) for one in merged] == [(1, 1), (1, 1), (1, 1)]
    assert results[0] == results[1] == results[2]
    with closing(database.open_read(target)) as connection:
        assert curve(connection, RUN_ID, "loss") == [(1, 1.0), (2, 0.5)]
        assert load_run(connection, RUN_ID).status == "finished"


def test_merging_into_a_file_that_is_further_changes_nothing(tmp_path):
    start = [lambda db: start_run(db, record(), now=lambda: 1.0)]
    ours = filled(tmp_path / "a.db", *start, lambda db: update_run(db, RUN_ID, step=5, now=lambda: 2.0))
    theirs = filled(tmp_path / "b.db", *start)
    before = everything(ours)
    with closing(database.open_write(ours)) as db:
        assert (merge(db, theirs).runs, merge(db, theirs).evaluations) == (0, 0)
    assert everything(ours) == before


def test_a_database_of_before_there_were_runs_keeps_every_row(tmp_path):
    old = tmp_path / "old.db"
    kept = [profile(), profile(resolution=224, tag="ż")]
    with closing(database.open_write(old, steps=migrations()[:2])) as db:
        for one in kept:
            save(db, one)
    with closing(database.open_read(old)) as connection:
        assert select(connection, samples=True) == kept
        assert list_runs(connection) == []
    with closing(database.open_write(old)) as db:
        start_run(db, record())
    sound(old)
    assert (check(old).attempts, check(old).runs) == (2, 1)


def test_scores_stand_beside_the_cost_of_the_same_model(db):
    same = {"backbone": "test_vit", "timm_name": record().timm_name, "resolution": 64}
    save(db, profile(**same, head=HeadConfig(num_queries=8, num_classes=150)))
    save(db, profile(**same, head=HeadConfig(num_queries=8, num_classes=150, tap="input")))
    save(db, profile(**{**same, "resolution": 96}, head=HeadConfig(num_queries=8)))
    start_run(db, record())
    save_evaluation(db, evaluation(evaluated_at="2026-11-20", miou_percent=1.0))
    save_evaluation(db, evaluation())
    columns = "miou_percent, gmacs, latency_eager_p50_ms, device_name, params, profiled_classes, classes"
    found = db.execute(f"SELECT {columns} FROM score_costs").fetchall()
    assert found == [(100 / 3, 107.03, 7.5, "NVIDIA H200", 95_000_000, 150, 4)]
    joined = "SELECT c.class, c.iou_percent, s.gmacs FROM class_scores c JOIN score_costs s USING (evaluation)"
    assert db.execute(f"{joined} ORDER BY c.class_index").fetchall() == [
        ("wall", 50.0, 107.03),
        ("[red]sky", 100 / 6, 107.03),
        ("sea", None, 107.03),
    ]


@pytest.mark.parametrize("text", ["'; DROP TABLE run; --", "[bold]x[/bold]", "ż\udcff", "a\nb", ""])
def test_any_text_is_kept_and_none_is_run(db, text, tmp_path):
    start_run(db, record("r" + text, backbone=text, dataset=text, facts={text: text}))
    save_metrics(db, "r" + text, [(1, text, 1.0)])
    assert len(list_runs(db.conn)) == 1
    assert curve(db.conn, "r" + text, text) == [(1, 1.0)] or text == ""
    sound(tmp_path / "luma.db")
