"""The table of results: shipped, imported and own rows together, its hash, and how fast it is read."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from evidence_samples import GOOD, row, table
from run_samples import evaluation, record

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import StoreError
from luma_cli.evidence.evidence import Evidence, load_reference
from luma_cli.evidence.imported import examine, keep, read_file
from luma_cli.evidence.own_runs import HERE, own_rows
from luma_cli.evidence.table import evidence_hash, load_evidence
from luma_cli.store.database import open_write
from luma_cli.store.evidence import COLUMNS, save_evidence
from luma_cli.store.runs import OwnRun, save_evaluation, start_run

RUN = OwnRun(
    run_id="run-1",
    status="finished",
    backbone="vit_b.dinov3",
    timm_name="vit_base_patch16_dinov3.lvd1689m",
    pretraining="dinov3",
    weights="pretrained",
    resolution=512,
    head=HeadConfig(),
    dataset="ade20k",
    recipe="ade20k",
    usual_recipe=True,
    seed=0,
    step=40000,
    data="ade20k",
    split="val",
    single_scale=True,
    absent="skip",
    num_images=2000,
    num_skipped=0,
    miou_percent=55.5,
    params=100_000_000,
)


def test_without_a_database_it_is_what_ships() -> None:
    assert load_evidence() == load_reference()


def test_imported_rows_and_own_runs_follow(tmp_path: Path) -> None:
    keep(examine(read_file(table(tmp_path, GOOD, GOOD.replace("51.2", "53.4"))), ()))
    with closing(open_write()) as db:
        start_run(db, record(status="finished"))
        save_evaluation(db, evaluation())
    shipped, found = load_reference(), load_evidence()
    assert found[: len(shipped)] == shipped
    first, second, mine = found[len(shipped) :]
    assert first.doubtful.startswith("the same source also has 5")
    assert second.doubtful.startswith("the same source also has 5")
    assert (mine.provenance, mine.miou_percent) == ("own run", 100 / 3)
    assert load_evidence(own=False) == found[:-1]


def test_what_ships_later_is_not_there_twice() -> None:
    shipped = load_reference()
    with closing(open_write()) as db:
        save_evidence(db, [{name: getattr(shipped[0], name) for name in COLUMNS}], "later.csv")
    assert load_evidence() == shipped


def test_a_database_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database")
    with pytest.raises(StoreError):
        load_evidence(tmp_path / "text.db")


def test_the_hash_knows_content_and_not_order() -> None:
    rows = [row(id="a"), row(id="b", miou_percent=51.0)]
    assert evidence_hash(rows) == evidence_hash(rows[::-1])
    changed = [replace(rows[0], miou_percent=50.1), rows[1]]
    assert len({evidence_hash(each) for each in (rows, rows[:1], changed, [])}) == 4


def test_a_usual_run() -> None:
    (found,) = own_rows([RUN])
    assert found == Evidence(
        id="run-1", provenance="own run", trust="primary", dataset="ade20k", split="val", head="luma",
        regime="fine-tuned", eval="single-scale", backbone="vit_b.dinov3", miou_percent=55.5, height=512, width=512,
        recipe=HERE, schedule="40000 iters", pretraining="dinov3", timm="vit_base_patch16_dinov3.lvd1689m",
        architecture="vit_base_patch16_dinov3", in_timm="tag", params_m=100.0, params_scope="full model",
        source="run run-1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "recipe"),
    [
        ({"head": HeadConfig(num_classes=19)}, HERE),
        ({"head": HeadConfig(num_queries=50)}, f"{HERE}: head luma with other options"),
        ({"head": HeadConfig("eomt"), "recipe": "eomt-ade20k-dinov3"}, HERE),
        ({"recipe": "ade20k+", "usual_recipe": False}, f"{HERE}: recipe ade20k changed"),
        ({"recipe": "smoke"}, f"{HERE}: recipe smoke"),
        ({"weights": "random", "num_skipped": 2}, f"{HERE}: weights random, 2 images skipped"),
        ({"absent": "zero"}, f"{HERE}: absent classes count zero"),
    ],
)
def test_what_differs_from_a_usual_run_is_a_recipe_of_its_own(fields: dict[str, object], recipe: str) -> None:
    (found,) = own_rows([replace(RUN, **fields)])  # type: ignore[arg-type]
    assert found.recipe == recipe


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "running"},
        {"status": "stopped"},
        {"data": "ade20k#1a2b3c4d"},
        {"dataset": "cityscapes"},
        {"data": "mine", "dataset": "mine"},
    ],
)
def test_unfinished_runs_and_other_data_are_no_rows(fields: dict[str, object]) -> None:
    assert own_rows([replace(RUN, **fields)]) == []  # type: ignore[arg-type]
