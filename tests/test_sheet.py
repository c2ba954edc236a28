"""The sheet of a backbone: what `luma show` prints and gives as JSON."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console

from luma_cli.catalogue.listing import show
from luma_cli.cli.app import run
from luma_cli.report import catalogue as sheets
from luma_cli.report import table as tables


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What would stand on a terminal of 80 columns."""
    file = StringIO()
    monkeypatch.setattr(sheets, "print_table", lambda table: tables.draw(table, Console(file=file, width=80)))
    return file


def test_other_resolutions_are_told() -> None:
    facts = sheets.facts(show("swin_b"))
    assert facts["other resolutions"].startswith("Windows stay 7 x 7")
    assert sheets.sheet_json(show("swin_b"))["facts"]["other resolutions"] == facts["other resolutions"]
    assert "other resolutions" not in sheets.facts(show("test_vit"))


def test_what_has_no_public_weights_says_so() -> None:
    assert sheets.facts(show("vit_b.ijepa"))["weights"].startswith("no public weights")
    assert sheets.facts(show("hydra_vit_b"))["weights"].startswith("no public weights")
    assert "weights" not in sheets.facts(show("vit_b.mae"))


def test_pretraining_by_size_fits_80_columns(drawn: StringIO) -> None:
    sheets.print_pretraining(show("vit_b"))
    lines = [line.rstrip() for line in drawn.getvalue().splitlines()]
    assert all(len(line) <= 80 for line in lines)
    rows = [line.split() for line in lines]
    assert ["b", "vit_base_patch16_224.mae", "0"] in rows
    assert ["sam", "b", "samvit_base_patch16.sa1b", "0"] in rows
    assert any(row[:2] == ["dinov3", "yes"] for row in rows)
    assert any(row[:2] == ["clip", "no"] for row in rows)
    assert any(" ".join(row) == "b no public weights -" for row in rows)


def test_a_pipe_gets_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "beitv2_b", "--pretraining"]) == 0
    said = capsys.readouterr().out
    assert "beitv2\tb\tbeitv2_base_patch16_224.in1k_ft_in22k\t2\n" in said
    assert "beitv2\tl\tbeitv2_large_patch16_224.in1k_ft_in22k\t2\n" in said


def test_json_names_every_tag_of_an_objective_the_cards_choice_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "beitv2_b", "--json"]) == 0
    (objective,) = json.loads(capsys.readouterr().out)["objectives"]
    assert (objective["name"], objective["dense"]) == ("beitv2", True)
    names = objective["weights"]["b"]
    assert names[0] == "beitv2_base_patch16_224.in1k_ft_in22k"
    assert set(names[1:]) == {
        "beitv2_base_patch16_224.in1k_ft_in1k",
        "beitv2_base_patch16_224.in1k_ft_in22k_in1k",
    }


def test_a_timm_model_without_card_has_no_objectives(drawn: StringIO) -> None:
    sheets.print_pretraining(show("regnety_320"))
    assert "no card has regnety_320" in drawn.getvalue()
