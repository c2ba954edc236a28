"""Heads on the command line: every head costed, options that a head lacks refused, the same fields in every form."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import get_args

import pytest

from luma_cli.catalogue.cards import card_sizes, load_cards
from luma_cli.catalogue.heads import HAS, HeadConfig
from luma_cli.cli.app import run
from luma_cli.cli.options import Head, HeadOptions
from luma_cli.errors import UsageError
from luma_cli.measure.cost import Cost, Refusal, costs

HEAD_FIELDS = ("head", "ffn", "tap", "queries", "l2", "classes", "prefix")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, kept_fit: Path) -> Path:
    """Where counts are kept for all tests of this file, so that backbones are counted once, all by one process."""
    folder = tmp_path_factory.mktemp("counts")
    (folder / "luma").mkdir()
    (folder / "luma" / "accuracy").symlink_to(kept_fit / "luma" / "accuracy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        costs([("test_vit", 64), ("swin_t", 64), ("test_convnext", 64), ("test_convnext", 96)])
    return folder


@pytest.fixture(autouse=True)
def one_cache(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert run(["cost", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["profiles"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ("luma", "reused", "output", 100, 1, 150, False)),
        (("--l2", "2", "--tap", "input", "--prefix", "--ffn", "fresh", "--queries", "7"),
         ("luma", "fresh", "input", 7, 2, 150, True)),
        (("--head", "eomt", "--classes", "19"), ("eomt", None, None, 100, 3, 19, None)),
        (("--head", "eomt", "--l2", "5"), ("eomt", None, None, 100, 5, 150, None)),
        (("--head", "linear"), ("linear", None, None, None, None, 150, None)),
        (("--head", "none"), ("none", None, None, None, None, None, None)),
    ],
)  # fmt: skip
def test_rows_say_the_head_and_null_what_it_does_not_have(arguments, expected, capsys):
    (row,) = rows_of(capsys, "test_vit", "--res", "64", *arguments)
    assert tuple(row[name] for name in HEAD_FIELDS) == expected
    assert (row["head_macs"] > 0) == (row["head"] != "none")
    assert row["macs"] == row["backbone_macs"] + row["head_macs"]


def test_csv_has_the_same_fields(capsys):
    assert run(["cost", "test_vit", "--res", "64", "--prefix", "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [row[name] for name in HEAD_FIELDS] == ["luma", "reused", "output", "100", "1", "150", "True"]


def test_the_table_says_which_head(capsys):
    assert run(["cost", "test_vit", "--res", "64", "--head", "eomt"]) == 0
    assert "head eomt, 100 queries, 150 classes, 3 blocks" in capsys.readouterr().out
    assert run(["cost", "test_vit", "--res", "64", "--l2", "2", "--tap", "input"]) == 0
    assert "head luma, 100 queries, 150 classes, 2 blocks, tap input" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("cost vit_b --tap input --head eomt", 2, "--tap does not apply to --head eomt"),
        ("cost vit_b --ffn auto --head linear", 2, "--ffn does not apply to --head linear"),
        ("cost vit_b --queries 5 --head linear", 2, "(supported: --classes); leave --queries out"),
        ("cost vit_b --classes 150 --head none", 2, "(supported: none)"),
        ("profile vit_b --no-prefix --head eomt", 2, "--prefix does not apply to --head eomt"),
        ("doctor vit_b --l2 2 --head linear", 2, "--l2 does not apply to --head linear"),
        ("show vit_b --tap output --head none", 2, "--tap does not apply to --head none"),
        ("cost vit_b --queries 0", 2, "num_queries is 0, expected at least 1"),
        ("cost vit_b --l2 0", 2, "--l2 is 0, expected at least 1"),
        ("cost test_vit --res 64 --l2 7", 1, "test_vit: l2 is 7, its depth is 6 blocks; try --l2 6"),
        ("cost test_vit --res 64 --head eomt --l2 7", 1, "6 blocks"),
        ("cost swin_t --res 64 --head eomt", 1, "EoMT needs global self-attention"),
        ("cost test_convnext --res 64 --prefix", 1, "has no class or register tokens that queries could see"),
        ("cost test_vit --res 64 --head deeplab", 2, "--head"),
        ("cost vit_b --all", 2, "both names and --all are given"),
        ("cost --count", 2, "neither names nor --all is given"),
        ("recommend --budget 20ms --head eomt", 1, "--res 512 --head eomt"),
    ],
)
def test_what_a_head_does_not_have_is_one_line(line, code, said, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("LUMA_DB", str(tmp_path / "luma.db"))
    assert run(line.split()) == code
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1, shown.err
    assert said in shown.err


@pytest.mark.parametrize("head", get_args(Head))
def test_given_defaults_are_the_default_head(head):
    assert HeadOptions(head).config() == HeadConfig(name=head)
    assert set(HAS) == set(get_args(Head))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "eomt", "tap": "input"},
        {"name": "eomt", "prefix": True},
        {"name": "linear", "num_queries": 5},
        {"name": "linear", "l2": 2},
        {"name": "linear", "ffn": "fresh"},
        {"name": "deeplab"},
        {"ffn": "borrowed"},
        {"tap": "middle"},
    ],
)
def test_a_configuration_refuses_what_its_head_lacks(wrong):
    with pytest.raises(UsageError, match=r"(says nothing|does not apply) to|expected one of"):
        HeadConfig(**wrong)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("test_vit --head eomt --l2 2", 0, "eomt attaches: 0.063 M parameters, queries meet 2 blocks"),
        ("test_convnext --head eomt", 1, "test_convnext: EoMT needs "),
        ("test_vit --head linear", 0, "logits [1, 150, 4, 4], the same when counted and when run"),
    ],
)
def test_doctor_tells_whether_a_head_attaches(line, code, said, capsys):
    assert run(["doctor", *line.split(), "--res", "64", "--json"]) == code
    details = [check["detail"] for check in json.loads(capsys.readouterr().out)["checks"]]
    assert any(said in detail for detail in details), details


def test_show_costs_the_head_that_is_asked_for(capsys):
    shown = {}
    for head in ("luma", "linear", "none"):
        assert run(["show", "vit_b", "--head", head, "--json"]) == 0
        shown[head] = json.loads(capsys.readouterr().out)
    assert {name: sheet["head"] for name, sheet in shown.items()} == {name: name for name in shown}
    luma, linear, none = (sheet["costs"][0] for sheet in shown.values())
    assert luma["head_macs"] > linear["head_macs"] > none["head_macs"] == 0


# every card


def test_all_is_every_card_at_every_size():
    specs = card_sizes()
    assert len(specs) == sum(len(card.sizes) for card in load_cards().values())
    assert len({spec.name for spec in specs}) == len(specs)


def test_counting_anew_agrees_with_the_closed_form_and_says_sizes_that_cannot_be_built(capsys, monkeypatch):
    # One worker: starting another takes longer than all that is counted here.
    monkeypatch.setattr("luma_cli.measure.cost.NUM_COUNTING", 1)
    *counted, misfit = rows_of(capsys, "test_convnext", "--res", "64", "96", "65", "--count")
    assert counted == rows_of(capsys, "test_convnext", "--res", "64", "96")
    assert misfit["status"] == "not_applicable"
    assert misfit["macs"] is None
    assert "cannot be built at 65 pixels" in misfit["reason"]


def test_any_other_failure_exits_with_1_and_keeps_the_rest(monkeypatch, capsys):
    def recount(wanted, head, *, imports, on_count):
        from luma_cli.measure.cost import costs

        found: list[Cost | Refusal] = costs(wanted, head)
        return [found[0], Refusal("MeasureError", "test_convnext at 64: the closed form gives another number")]

    monkeypatch.setattr("luma_cli.measure.cost.recount", recount)
    assert run(["cost", "test_vit", "test_convnext", "--res", "64", "--count", "--json"]) == 1
    shown = capsys.readouterr()
    assert [row["backbone"] for row in json.loads(shown.out)["profiles"]] == ["test_vit"]
    assert "left out: test_convnext at 64: the closed form" in shown.err
    assert shown.err.endswith("1 of 2 could not be counted, see above\n")
