"""What `luma recommend` prints at 80 columns, over forty questions: few lines, few words, lines that run."""

from __future__ import annotations

import io
import re
import shlex
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.sightings import AccuracyModel
from luma_cli.advise.question import Question, tightest
from luma_cli.advise.recommend import answer
from luma_cli.advise.why_not import why_not
from luma_cli.catalogue.heads import HeadName
from luma_cli.catalogue.licences import expanded
from luma_cli.cli.app import app
from luma_cli.errors import LumaError, NoAnswer
from luma_cli.report.recommendation import print_recommendation, print_why_not
from luma_cli.units import parse_budget

QUESTIONS: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
    *((dataset, (f"{limit}gflops",), {}) for dataset, limit in product(
        ("ade20k", "cityscapes"), (3, 6, 40, 200, 2200))),
    *(("ade20k", (budget,), {"device": device}) for budget, device in product(
        ("5ms", "20ms", "30fps", "100img/s", "8GiB"), ("RTX 4090", "Jetson Orin", "T4", "H100"))),
    ("ade20k", (), {}),
    ("cityscapes", (), {"objective": "knee"}),
    ("ade20k", (), {"objective": "miou-per-ms", "device": "RTX 4090"}),
    ("ade20k", ("200gflops", "20ms"), {"device": "A100"}),
    ("cityscapes", ("400gflops/image", "60Mparams"), {}),
    ("cityscapes", ("30fps",), {"device": "RTX 4090", "image": (1080, 1920)}),
    ("ade20k", ("200gflops",), {"families": frozenset({"convolutional"})}),
    ("ade20k", ("200gflops",), {"licences": expanded(["permissive"])}),
    ("ade20k", ("100Mparams",), {"head": "eomt"}),
    ("ade20k", ("200gflops",), {"head": "mask2former"}),
]  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def model(kept_fit: Path) -> AccuracyModel:
    return load_model(cache=kept_fit / "luma" / "accuracy")


def test_there_are_forty_questions() -> None:
    assert len(QUESTIONS) == 40


@pytest.mark.parametrize(("dataset", "budgets", "asked"), QUESTIONS)
def test_few_lines_and_few_words(
    dataset: str,
    budgets: tuple[str, ...],
    asked: dict[str, Any],
    model: AccuracyModel,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    question = Question(dataset, tightest(map(parse_budget, budgets)), **asked)
    try:
        found = answer(question, database=tmp_path / "luma.db", fit=lambda _: model)
    except NoAnswer as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert len(refused) < 400
        assert "\n" not in refused
        runs_what_it_names(refused)
        return
    screen = Terminal()
    print_recommendation(found, screen)
    text = re.sub(r"\x1b\[[\d;]*m", "", screen.getvalue())
    lines = text.splitlines()
    assert len(lines) <= 25, text
    assert all(len(line) <= 80 for line in lines), text
    notes = text[text.index("* ") : text.index("next:")] if "* " in text else ""
    assert len(notes) <= 1000, notes
    assert len(re.findall(r"^\* ", text, re.MULTILINE)) <= 3
    assert runs_what_it_names(text) >= 1


@pytest.mark.parametrize(
    ("budget", "device", "head", "name"),
    [
        *product(("40gflops", "200gflops"), (None,), ("luma", "eomt"), ("vit_b.dinov3", "eva02_s", "vit_l")),
        *product(("20ms", "60fps"), ("RTX 4090", "T4"), ("luma",), ("vit_7b", "resnet_50")),
    ],
)
def test_lines_of_why_not_run(
    budget: str,
    device: str | None,
    head: HeadName,
    name: str,
    model: AccuracyModel,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    question = Question("ade20k", (parse_budget(budget),), device=device, head=head)
    found = why_not(question, name, tmp_path / "luma.db", fit=lambda _: model)
    screen = Terminal()
    print_why_not(found, screen)
    assert len(screen.getvalue().splitlines()) <= 25
    assert runs_what_it_names(screen.getvalue()) == bool(found.command)


@pytest.mark.parametrize(("budget", "device"), [*product(("20ms", "30fps", "2J"), (None, "RTX 9999"))])
def test_lines_of_a_refusal_run(budget: str, device: str | None, model: AccuracyModel, tmp_path: Path) -> None:
    question = Question("ade20k", (parse_budget(budget),), device=device)
    with pytest.raises(LumaError) as refused:
        answer(question, database=tmp_path / "luma.db", fit=lambda _: model)
    assert runs_what_it_names(str(refused.value)) or "--device" in str(refused.value)


def runs_what_it_names(text: str) -> int:
    """How many command lines the text holds, at the start of a line or after a colon. Fails where one does not run."""
    commands = re.findall(r"(?:^ *|: )(luma [a-z]+ (?:[^\n;]*\\\n)*[^\n;]*)", text, re.MULTILINE)
    for command in commands:
        parsed(shlex.split(command.replace("\\\n", " ").partition(", or ")[0]))
    return len(commands)


def parsed(words: list[str]) -> None:
    """Fails where the command line does not take the words."""
    group = typer.main.get_command(app)
    command = group.get_command(None, words[1])  # type: ignore[attr-defined]
    command.make_context(words[1], words[2:])
