"""The shipped table of published results, and the cleaning that made it."""

from __future__ import annotations

import csv
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from luma_cli.catalogue.pretraining import load_objectives, objective_of
from luma_cli.catalogue.timm_index import TimmIndex, load_index
from luma_cli.errors import BadCard
from luma_cli.evidence import cleaning
from luma_cli.evidence.evidence import COLUMNS, Evidence, load_reference, read_evidence, to_row
from luma_cli.evidence.reference import clean, main, read_flags, write

RAW_HEADER = (
    "dataset,split,backbone,family,pretraining,pretraining_data,resolution,eval,head,miou,params_m,gflops,fps,hardware,"
    "precision,source,url,backbone_as_published,params_scope,flops_input,schedule,train_mem_gb,notes,in_timm"
)


@pytest.fixture(scope="module")
def reference() -> list[Evidence]:
    return load_reference()


def test_every_row_says_where_it_comes_from(reference: list[Evidence]) -> None:
    assert len(reference) > 900
    assert len({row.id for row in reference}) == len(reference)
    for row in reference:
        assert row.source, row.id
        assert row.url.startswith("https://"), row.id
        assert 5 < row.miou_percent < 95, row.id
        assert row.dataset in ("ade20k", "cityscapes"), row.id


def test_columns_hold_only_what_they_may(reference: list[Evidence]) -> None:
    objectives = {*load_objectives(), cleaning.OTHER}
    for row in reference:
        assert row.eval in ("single-scale", "ms+flip", ""), row.id
        assert row.regime in ("fine-tuned", "frozen"), row.id
        assert row.provenance in ("published LUMA", "other head"), row.id
        assert row.trust in ("primary", "inferred", "secondary"), row.id
        assert row.pretraining in objectives, row.id
        assert row.in_timm in ("tag", "arch", "no"), row.id
        assert (row.height is None) == (row.width is None), row.id


def test_every_timm_name_exists(reference: list[Evidence]) -> None:
    index = load_index()
    for row in reference:
        if row.in_timm == "no":
            assert not row.timm, row.id
        else:
            assert index.has(row.timm), row.id
            assert ("." in row.timm) == (row.in_timm == "tag"), row.id


def test_known_weights_carry_the_objective_of_the_cards(reference: list[Evidence]) -> None:
    known = [row for row in reference if row.in_timm == "tag"]
    assert len(known) > 300
    for row in known:
        assert row.pretraining == (objective_of(row.timm) or row.pretraining), row.id


def test_the_only_luma_figure_supports_no_size(reference: list[Evidence]) -> None:
    published = [row for row in reference if row.provenance == "published LUMA"]
    assert [(row.miou_percent, row.height, row.pretraining) for row in published] == [(59.7, None, "eva02")]


def test_frozen_and_fine_tuned_never_share_a_scale(reference: list[Evidence]) -> None:
    heads = {row.head_raw for row in reference if row.regime == "frozen"}
    assert {"linear (frozen)", "pmt (frozen backbone)", "k-nn (frozen)"} <= heads
    regimes: dict[object, set[str]] = {}
    for row in reference:
        regimes.setdefault(row.scale, set()).add(row.regime)
    assert all(len(found) == 1 for found in regimes.values())


def test_published_multiply_adds_are_marked(reference: list[Evidence]) -> None:
    assert sum(row.flops_unit == "macs" for row in reference) == 9


def test_labels_beyond_the_dataset_are_said(reference: list[Evidence]) -> None:
    further = re.compile(r"(coco|mapillary|additional seg|pseudo-labels)", re.IGNORECASE)
    for row in reference:
        if further.search(f"{row.pretraining_data} {row.notes}") and "teacher" not in row.notes:
            assert row.extra_data, row.id


def test_one_scale_has_one_figure_of_a_checkpoint_and_source(reference: list[Evidence]) -> None:
    """What an outlier turned out to be: rows of two recipes that looked like one. The rest is said in remarks."""
    seen: dict[object, Evidence] = {}
    for row in reference:
        protocol = (row.scale, row.size, row.schedule, row.source, row.extra_data)
        key = (row.backbone, row.pretraining, row.pretraining_data, protocol)
        first = seen.setdefault(key, row)
        if first.miou_percent != row.miou_percent:
            assert row.remarks or abs(first.miou_percent - row.miou_percent) <= 1.0, (first.id, row.id)


def test_loading_is_fast() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        load_reference()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05 * 3, "50 ms on a quiet machine"


def test_round_trip(reference: list[Evidence], tmp_path: Path) -> None:
    write(tmp_path / "out.csv", reference)
    assert read_evidence(tmp_path / "out.csv") == reference


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [("miou_percent", "0.484e2x", "miou_percent"), ("miou_percent", "101", "101"), ("height", "5l2", "height")],
)
def test_a_bad_number_names_file_and_line(
    reference: list[Evidence], tmp_path: Path, column: str, value: str, said: str
) -> None:
    rows = [to_row(row) for row in reference[:3]]
    rows[1][column] = value
    path = tmp_path / "bad.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(BadCard, match=rf"bad\.csv, line 3: .*{said}"):
        read_evidence(path)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("dataset,miou\nade20k,50\n")
    with pytest.raises(BadCard, match="import the table again"):
        read_evidence(tmp_path / "raw.csv")


RAW_COLUMNS = RAW_HEADER.split(",")


def raw(**fields: str) -> dict[str, str]:
    values = dict.fromkeys(RAW_COLUMNS, "")
    return values | {
        "dataset": "ade20k", "split": "val", "backbone": "test_vit.r160_in1k", "pretraining": "supervised",
        "pretraining_data": "ImageNet-1k", "resolution": "512x512", "eval": "single-scale", "head": "upernet",
        "miou": "48.1", "source": "a paper", "url": "https://example.org",
    } | fields  # fmt: skip


@pytest.fixture(scope="module")
def index() -> TimmIndex:
    return load_index()


def test_exact_duplicates_keep_the_primary_source(index: TimmIndex) -> None:
    rows = [raw(source="notes", notes="secondary source"), raw(source="the paper"), raw(miou="50")]
    flags = {
        0: [("exact duplicate", "rows [0, 1] mIoU [48.1, 48.1]")],
        1: [("exact duplicate", "rows [0, 1] mIoU ...")],
    }
    kept = clean(rows, flags, index)
    assert [(row.id, row.source) for row in kept] == [("ref-0001", "the paper"), ("ref-0002", "a paper")]
    assert kept[0].notes == "also published in: notes"


def test_strong_suspicions_make_a_row_doubtful_and_mild_ones_do_not(index: TimmIndex) -> None:
    flags = {
        0: [("outlier row-LOO >6 robust sd", "pred 50.8 z 7.1")],
        1: [("near duplicate", "rows [1, 2]")],
        2: [("params < timm backbone", "timm backbone 46.1")],
    }
    first, second, third = clean([raw(), raw(), raw()], flags, index)
    assert first.doubtful == "a fit on the other rows expects 50.8 mIoU"
    assert (second.doubtful, second.remarks) == ("", "")
    assert (third.doubtful, third.remarks) == ("", "published parameters are below those of the timm backbone 46.1 M")


def test_in22k_is_corrected_where_flagged(index: TimmIndex) -> None:
    row = raw(backbone="x", pretraining_data="ImageNet-22k")
    first, second = clean([row, row], {0: [("IN-21k called IN-22k", "ImageNet-22k")]}, index)
    assert (first.pretraining_data, second.pretraining_data) == ("ImageNet-21k", "ImageNet-22k")
    assert first.pretraining == second.pretraining == "supervised_in21k"


def test_multiply_adds_are_marked(index: TimmIndex) -> None:
    rows = [raw(gflops="9.1", notes="gflops column holds published MACs (G)"), raw(gflops="9.1"), raw()]
    assert [row.flops_unit for row in clean(rows, {}, index)] == ["macs", "as published", ""]


@pytest.mark.parametrize("text", ["512*512", "-512", "512x", "large"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="resolution"):
        cleaning.resolution(text)


@pytest.mark.parametrize(
    ("raw_head", "notes", "name", "regime", "recipe"),
    [
        ("eomt (LightlyTrain)", "", "eomt", "fine-tuned", "lightly-train"),
        ("eomt + ALGM token merging", "", "eomt-algm", "fine-tuned", ""),
        ("linear", "", "linear", "fine-tuned", ""),
        ("linear (frozen)", "low-res (100px) target protocol", "linear", "frozen", "low-resolution protocol"),
        ("logreg (frozen)", "standardization=True; low-resolution", "logreg", "frozen",
         "low-resolution protocol, standardised"),
        ("in-context retrieval (frozen)", "", "in-context retrieval", "frozen", ""),
        ("not stated", "", "", "fine-tuned", ""),
    ],
)  # fmt: skip
def test_heads(raw_head: str, notes: str, name: str, regime: str, recipe: str) -> None:
    head = cleaning.head(raw_head, notes)
    assert (head.name, head.regime, head.recipe) == (name, regime, recipe)


def test_a_qualifier_means_other_weights(index: TimmIndex) -> None:
    assert cleaning.timm_name("vit_base_patch16_224.mae", index.has)[2] == "tag"
    assert cleaning.timm_name("vit_base_patch16_224.mae (800 ep)", index.has) == (
        "vit_base_patch16_224", "vit_base_patch16_224", "arch",
    )  # fmt: skip
    assert cleaning.timm_name("swin_base (SimMIM)", index.has) == ("", "", "no")


def test_the_command_imports_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, flags, known, out = (tmp_path / name for name in ("raw.csv", "flags.csv", "known.csv", "out.csv"))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, RAW_COLUMNS)
        writer.writeheader()
        writer.writerows([raw(), raw(head="linear (frozen)")])
    flags.write_text("row,kind,detail\n1,mIoU extreme,48.1\n")
    known.write_text("id,column,old,new,reason\nref-0000,head,upernet,fcn,misread\n")
    assert main([str(table), str(flags), str(known), str(out)]) == 0
    assert "2 rows read, 0 left out, 1 corrections, 0 doubtful" in capsys.readouterr().err
    assert Counter(row.regime for row in read_evidence(out)) == {"fine-tuned": 1, "frozen": 1}
    assert [row.head for row in read_evidence(out)] == ["fcn", "linear"]
    assert read_flags(flags) == {1: [("mIoU extreme", "48.1")]}
    assert main([]) == 2
