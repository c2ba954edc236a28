"""Importing files of results: what comes in as what, what is refused and why, what is known already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evidence_samples import GOOD, HEADING, table

from luma_cli.errors import UsageError
from luma_cli.evidence.evidence import Evidence, load_reference
from luma_cli.evidence.imported import Imported, MiouScale, examine, keep, read_file, remove
from luma_cli.evidence.table import load_evidence, load_imported
from luma_cli.report.evidence import evidence_csv


def examined(
    path: Path, *lines: str, heading: str = HEADING, scale: MiouScale | None = None, known: tuple[Evidence, ...] = ()
) -> Imported:
    return examine(read_file(table(path, *lines, heading=heading)), known, scale)


def test_a_row_of_few_columns(tmp_path: Path) -> None:
    (row,) = examined(
        tmp_path, "ADE20K,vit_b,dinov3,512,luma,51.2", heading="dataset,backbone,pretraining,resolution,head,miou"
    ).new
    assert (row.dataset, row.split, row.miou_percent, row.size) == ("ade20k", "val", 51.2, "512x512")
    assert (row.timm, row.in_timm, row.family) == ("vit_base_patch16_dinov3.lvd1689m", "tag", "isotropic")
    assert (row.pretraining, row.pretraining_raw, row.provenance) == ("dinov3", "dinov3", "published LUMA")
    assert (row.eval, row.trust, row.source) == ("", "primary", "imported from results.csv")
    assert row.id.startswith("imp-")


def test_columns_that_a_row_states_itself(tmp_path: Path) -> None:
    heading = f"{HEADING},provenance,trust,regime,seeds,recipe,extra_data,schedule,params_m,gflops"
    line = f"{GOOD},own run,secondary,Frozen,3,long,COCO,160k,86.6,120.5"
    (row,) = examined(tmp_path, line, heading=heading).new
    assert (row.provenance, row.trust, row.regime, row.seeds) == ("own run", "secondary", "frozen", 3)
    assert (row.recipe, row.extra_data, row.schedule) == ("long", "COCO", "160000 iters")
    assert (row.params_m, row.gflops_published, row.flops_unit) == (86.6, 120.5, "as published")


@pytest.mark.parametrize(
    ("raw", "objective"),
    [
        ("dinov2", "dinov2"),
        ("in21k", "supervised_in21k"),
        ("Supervised_IN1k", "supervised_in1k"),
        ("simmim", "simmim"),
        ("my own", "other"),
        ("", ""),
    ],
)
def test_objectives(tmp_path: Path, raw: str, objective: str) -> None:
    (row,) = examined(tmp_path, GOOD.replace("vit_b,dinov3", f"made_up,{raw}")).new
    assert (row.pretraining, row.pretraining_raw) == (objective, raw)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("51.2", "", "mIoU is empty"),
        ("51.2", "NaN", "mIoU is 'NaN', expected a finite number"),
        ("51.2", "inf", "mIoU is 'inf', expected a finite number"),
        ("51.2", "150", "mIoU is 150 percent, expected between 0 and 100"),
        ("512", "512*512", "resolution '512*512' is neither `512`, `512x1024` nor blank"),
        ("ss", "sometimes", "eval is 'sometimes', expected single-scale, ms+flip or nothing"),
        ("vit_b", "", "backbone is empty"),
        ("ade20k", " ", "dataset is empty"),
        (",mine", "", "has 7 cells, the heading 8"),
    ],
)
def test_a_rejected_row_has_its_number_and_reason(tmp_path: Path, old: str, new: str, reason: str) -> None:
    found = examined(tmp_path, GOOD, GOOD.replace(old, new))
    assert len(found.new) == 1
    assert [(each.row, each.line, each.reason) for each in found.rejected] == [(2, 3, reason)]


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("params_m", "12M", "params_m is '12M', expected a number"),
        ("params_m", "nan", "params_m is 'nan', expected a number above 0"),
        ("seeds", "1.5", "seeds is '1.5', expected a whole number"),
        ("regime", "thawed", "regime is 'thawed', expected one of fine-tuned, frozen"),
        ("provenance", "me", "provenance is 'me', expected one of own run, published LUMA, other head"),
    ],
)
def test_columns_that_may_be_left_out_must_parse(tmp_path: Path, column: str, cell: str, reason: str) -> None:
    found = examined(tmp_path, f"{GOOD},{cell}", heading=f"{HEADING},{column}")
    assert [each.reason for each in found.rejected] == [reason]


def test_numbers_of_spreadsheets(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("dataset;backbone;miou;resolution;seeds;params_m\nade20k;x;51,25 %;512.0;3,0;86,6\n", "utf-8")
    (row,) = examine(read_file(path), ()).new
    assert (row.miou_percent, row.height, row.seeds, row.params_m) == (51.25, 512, 3, 86.6)


def test_fractions_are_asked_about(tmp_path: Path) -> None:
    lines = (GOOD, GOOD.replace("51.2", "0.534"))
    with pytest.raises(UsageError, match=r"1 of 2 mIoU figures .* 0\.534 in row 2 .* --scale fraction or --scale perc"):
        examined(tmp_path, *lines)
    assert [row.miou_percent for row in examined(tmp_path, *lines, scale="fraction").new] == [51.2, 53.4]
    assert [row.miou_percent for row in examined(tmp_path, *lines, scale="percent").new] == [51.2, 0.534]


def test_duplicates_contradictions_and_notes(tmp_path: Path) -> None:
    other = GOOD.replace("ade20k", "city").replace("dinov3", "magic")
    found = examined(
        tmp_path, GOOD, GOOD, GOOD.replace("51.2", "53.4"), other.replace("luma", ""), heading=HEADING + ""
    )
    assert (found.records, len(found.rows), found.merged, found.known) == (4, 3, 1, 0)
    assert [each.text[-18:] for each in found.contradictions] == ["51.2 and 53.4 mIoU"]
    assert found.notes == (
        "dataset 'city' (did you mean cityscapes?) is none that luma has results for: kept under that name, 1 row",
        "pretraining that luma does not know, kept as printed and counted as other: 'magic' (1)",
        "1 row without a head: comparable with rows of the same source only",
    )


def test_labels_without_their_data_are_those_of_imagenet(tmp_path: Path) -> None:
    bare = GOOD.replace("dinov3", "supervised").replace("vit_b", "swin_t")
    found = examined(tmp_path, bare)
    assert [row.pretraining for row in found.new] == ["supervised_in1k"]
    said = "pretraining supervised without its data, taken as ImageNet-1k unless the name says 21k or 22k: 1 row"
    assert said in found.notes


def test_columns_that_are_left_out_are_said(tmp_path: Path) -> None:
    found = examined(tmp_path, f"{GOOD},12,x", heading=f"{HEADING},fps,colour")
    assert found.notes == (
        "columns that luma does not know, left out: colour",
        "columns that the table of results does not keep: fps",
    )


def test_a_heading_without_the_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no column miou in the heading .*docs/use/evidence\.md"):
        examined(tmp_path, GOOD, heading=HEADING.replace("miou", "score"))


def test_twice_adds_nothing_and_rows_can_be_taken_back(tmp_path: Path) -> None:
    path = table(tmp_path, GOOD, GOOD.replace("51.2", "53.4"))
    for new in (2, 0):
        found = examine(read_file(path), load_evidence())
        assert (len(found.new), found.known) == (new, 2 - new)
        keep(found)
    rows = load_imported()
    assert [row.miou_percent for row in sorted(rows, key=lambda row: row.miou_percent)] == [51.2, 53.4]
    assert remove(rows[:1]) == 1
    assert load_imported() == rows[1:]


def test_an_export_comes_back_as_it_was(tmp_path: Path) -> None:
    shipped = load_reference()
    keep(examined(tmp_path, GOOD, GOOD.replace("51.2", "53.412345678901"), GOOD.replace("vit_b", '"my net, v2"')))
    imported = load_imported()
    path = tmp_path / "export.csv"
    path.write_text(evidence_csv([*shipped, *imported]), "utf-8")
    elsewhere = examine(read_file(path), shipped)
    assert (len(elsewhere.rows), elsewhere.rejected, elsewhere.merged) == (len(shipped) + 3, (), 0)
    assert [replace(each, id="") for each in elsewhere.rows[: len(shipped)]] == [
        replace(each, id="") for each in shipped
    ]
    assert sorted(elsewhere.new, key=lambda row: row.id) == imported
    assert examine(read_file(path), [*shipped, *imported]).new == ()


def test_a_published_row_is_known_already(tmp_path: Path) -> None:
    shipped = load_reference()
    first = shipped[0]
    line = (
        f"{first.dataset},{first.backbone},{first.pretraining_raw},{first.pretraining_data},{first.size},{first.eval}"
    )
    line += f",{first.head_raw},{first.miou_percent},{first.source}"
    heading = "dataset,backbone,pretraining,pretraining_data,resolution,eval,head,miou,source"
    found = examined(tmp_path, line, heading=heading, known=tuple(shipped))
    assert (len(found.new), found.known) == (0, 1)
