"""luma runs: list, show, compare and rm, as tables of 80 columns, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from run_samples import CONFIG, RUN_ID, evaluation, record, saved
from store_samples import profile

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.cli.app import run
from luma_cli.report.runs import curves_table, evaluations_table, runs_table
from luma_cli.report.table import Table, draw, sparkline
from luma_cli.store import database
from luma_cli.store.profiles import save
from luma_cli.store.runs import MIOU, list_runs, save_evaluation, save_metrics, start_run
from luma_cli.train.run_folder import RunFolder, locked, started
from luma_cli.train.runs import standings

OTHER = "20261122-080000-vit_b-ade20k-0a0b"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    with started(tmp_path / "runs" / RUN_ID, RUN_ID, CONFIG) as made:
        saved(made, 5, best=True)
        return made


@pytest.fixture
def two(folder: RunFolder) -> RunFolder:
    """An interrupted run with its folder, and a finished one whose folder is elsewhere."""
    other = replace(CONFIG, backbone="vit_b", recipe=replace(CONFIG.recipe, lr=2e-4), recipe_changed=("lr",))
    with closing(database.open_write()) as db:
        save(db, profile(timm_name=record().timm_name, resolution=64, head=HeadConfig(num_queries=8)))
        start_run(db, record(folder=str(folder.path), step=5))
        save_metrics(db, RUN_ID, [(step, "train/loss", 8.0 / step) for step in range(1, 6)] + [(5, MIOU, 33.25)])
        save_evaluation(db, evaluation())
        finished = {"status": "finished", "step": 1000, "seconds": 5400.0, "started_at": "2026-11-22T08:00:00+00:00"}
        start_run(db, record(OTHER, config=other, recipe="ade20k+", **finished))
        save_metrics(db, OTHER, [(1, "train/loss", 2.0), (2, "train/loss", math.nan)])
        save_evaluation(db, evaluation(OTHER, miou_percent=41.5, protocol={"window": 64, "flip": True}))
    return folder


def drawn(table: Table) -> list[str]:
    file = io.StringIO()
    draw(table, Console(file=file, width=80))
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert run(["runs", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_list_at_80_columns(two):
    assert drawn(runs_table(standings())) == [
        "20261121-153012-test_vit-ade20k-3fa2",
        "  backbone test_vit, px 64, head luma, data ade20k, recipe ade20k, status",
        "  interrupted, steps 5/1,000, mIoU 33.25, started 2026-11-21 15:30",
        "20261122-080000-vit_b-ade20k-0a0b",
        "  backbone vit_b, px 64, head luma, data ade20k, recipe ade20k+, status",
        "  finished, steps 1,000/1,000, mIoU 41.50, started 2026-11-22 08:00",
        "20261121-153012-test_vit-ade20k-3fa2 is interrupted: luma train --resume",
        "20261121-153012-test_vit-ade20k-3fa2",
    ]


def test_curves_and_evaluations_at_80_columns():
    curves = {"train/loss": [(step, 8.0 / step) for step in range(1, 9)], "val/x": [(1, 12_345.6), (2, math.nan)]}
    assert drawn(curves_table(curves)) == [
        " metric       first  last  lowest  highest  steps  course",
        " ──────────────────────────────────────────────────────────",
        " train/loss       8     1       1        8      8  █▄▂▂▁▁▁▁",
        " val/x       12,346   nan  12,346   12,346      2  ▁!",
    ]
    shown = drawn(evaluations_table([evaluation(), evaluation(protocol={"window": 64, "flip": True}, num_skipped=1)]))
    assert shown == [
        " data   split  step  mIoU  mAcc  aAcc boundary images GMACs/img protocol",
        " ──────────────────────────────────────────────────────────────────────────────",
        " ade20k val   1,000 33.33 60.50 70.25        -      2       2.5 absent=skip,",
        "                                                                flip=False",
        " ade20k val   1,000 33.33 60.50 70.25        - 2 (-1)       2.5 flip=True",
        "percent; GMACs per average image, over all its windows",
        "window=64",
    ]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([1.0], "_"),
        ([0.0, 0.0, 0.0], "___"),
        (list(range(48)), "___...---~~~===+++***###"),
        ([math.inf, 1.0, 2.0], "!_#"),
    ],
)
def test_sparklines(values, line):
    assert sparkline(values, plain=True) == line
    assert len(sparkline(values)) == len(line)


def test_list_in_every_form_and_without_its_name(two, capsys):
    text, _ = answer(capsys)
    assert answer(capsys, "list")[0] == text
    assert [line.split("\t")[0] for line in text.splitlines() if line[0] != "#"] == ["run", RUN_ID, OTHER]
    decoded = json.loads(answer(capsys, "--json")[0])
    assert decoded["schema"] == 1
    assert [(one["run_id"], one["status"], one["best_miou_percent"]) for one in decoded["runs"]] == [
        (RUN_ID, "interrupted", 33.25),
        (OTHER, "finished", 41.5),
    ]
    assert [one["resume"] for one in decoded["runs"]] == [f"luma train --resume {RUN_ID}", None]
    table = list(csv.DictReader(io.StringIO(answer(capsys, "list", "--csv")[0])))
    assert [row["run_id"] for row in table] == [RUN_ID, OTHER]
    assert set(table[0]) == set(decoded["runs"][0])
    assert "--json and --csv are both given" in answer(capsys, "list", "--csv", "--json", code=2)[1]


def test_no_run_yet(capsys):
    assert "no run yet; `luma train" in answer(capsys)[0]
    assert json.loads(answer(capsys, "list", "--json")[0]) == {"schema": 1, "runs": []}
    assert "there is no run yet" in answer(capsys, "show", "latest", code=1)[1]


def test_a_run_that_trains_is_running_whatever_the_database_says(two, capsys):
    with locked(two.path):
        assert [one.status for one in standings()] == ["running", "finished"]
        assert f"process {os.getpid()}" in answer(capsys, "show", RUN_ID)[0]


def test_show_tells_everything(two, capsys):
    text, _ = answer(capsys, "show", RUN_ID[:20], "--classes")
    for piece in (
        "status\tinterrupted",
        f"resume\tluma train --resume {RUN_ID}",
        "checkpoints\tstep-000005",
        "train/loss\t8\t1.6\t1.6\t8\t5\t",
        "best mIoU\t33.25",
        "ade20k\tval\t1,000\t33.33",
        "NVIDIA H200\tfloat32\t107.0",
        "[red]sky\t16.67\t17.00\t20",
        "sea\t-\t-\t0",
    ):
        assert piece in text
    assert "[red]sky" not in answer(capsys, "show", RUN_ID)[0]


def test_show_as_json_has_no_nan(two, capsys):
    sheet = json.loads(answer(capsys, "show", OTHER, "--json")[0], parse_constant=pytest.fail)
    assert sheet["curves"] == {"train/loss": [[1, 2.0], [2, None]]}
    assert sheet["not_finite"] == ["train/loss"]
    assert sheet["evaluations"][0]["classes"][0] == {
        "name": "wall",
        "iou_percent": 50.0,
        "accuracy_percent": 51.0,
        "boundary_iou_percent": 40.0,
    }
    assert json.loads(answer(capsys, "show", RUN_ID, "--json")[0])["costs"][0]["gmacs"] == 107.03


def test_a_run_that_only_its_folder_knows_is_shown(folder, capsys):
    text, _ = answer(capsys, "show", str(folder.path))
    assert "status\tnot in the database" in text
    assert "backbone\ttest_vit" in text


def test_compare_shows_what_differs_and_warns(two, capsys):
    text, warning = answer(capsys, "compare", RUN_ID, OTHER)
    assert "recipe.lr\t0.0001\t0.0002" in text
    assert "backbone\ttest_vit\tvit_b" in text
    assert "miou_percent\t33.3333\t41.5" in text
    assert "resolution" not in text
    assert "not comparable: evaluated under different protocols" in warning
    decoded = json.loads(answer(capsys, "compare", RUN_ID, OTHER, "--json")[0])
    assert decoded["settings"]["recipe.lr"] == {RUN_ID: 0.0001, OTHER: 0.0002}
    assert len(decoded["cautions"]) == 1
    assert "expected two or more" in answer(capsys, "compare", RUN_ID, RUN_ID, code=2)[1]


def test_compare_warns_of_other_data_and_of_missing_evaluations(capsys):
    with closing(database.open_write()) as db:
        start_run(db, record("a"))
        start_run(db, record("b", dataset="ade20k-1f2e"))
        start_run(db, record("c"))
        save_evaluation(db, evaluation("a"))
        save_evaluation(db, evaluation("b", data="ade20k-1f2e"))
    warning = answer(capsys, "compare", "a", "b", "c")[1]
    assert "trained on different data (ade20k, ade20k-1f2e)" in warning
    assert "evaluated on different data (ade20k val, ade20k-1f2e val)" in warning
    assert "some were not evaluated; run `luma eval RUN`" in warning


def test_runs_at_different_resolutions_may_be_compared(capsys):
    with closing(database.open_write()) as db:
        for run_id, size in (("a", 64), ("b", 128)):
            start_run(db, record(run_id, resolution=size, config=replace(CONFIG, resolution=size)))
            save_evaluation(db, evaluation(run_id, resolution=size, protocol={"window": size, "flip": False}))
    text, warning = answer(capsys, "compare", "a", "b")
    assert warning == ""
    assert "resolution\t64\t128" in text


def test_rm_asks_and_removes_rows_and_with_files_the_folder(two, capsys):
    assert f"this removes run {OTHER} from the database; add --yes" in answer(capsys, "rm", OTHER, code=2)[1]
    answer(capsys, "rm", OTHER, "--yes")
    answer(capsys, "rm", RUN_ID, "--yes")
    with closing(database.open_read()) as connection:
        assert list_runs(connection) == []
    assert two.path.is_dir()
    answer(capsys, "rm", str(two.path), "--files", "--yes")
    assert list(two.path.parent.iterdir()) == []


def test_rm_refuses_a_run_that_trains(two, capsys):
    with locked(two.path):
        assert "is in use by process" in answer(capsys, "rm", RUN_ID, "--yes", "--files", code=1)[1]
    assert two.path.is_dir()
    assert [one.run_id for one in standings()] == [RUN_ID, OTHER]


def test_db_export_and_check_know_runs(two, capsys):
    for view in ("runs", "run_curves", "evaluations", "class_scores", "score_costs"):
        assert run(["db", "export", "--view", view, "--form", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"]
    assert run(["db", "check"]) == 0
    assert "1 attempts, 2 runs, 2 evaluations" in capsys.readouterr().out
