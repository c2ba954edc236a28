"""A recommendation as text: on a terminal of 80 columns and in a pipe, with everything that qualifies it."""

from __future__ import annotations

import io
import re
import shlex
from dataclasses import replace
from typing import Any

import pytest
from advise_world import TableModel, TableSpeed, candidate, result

from luma_cli.advise.costs import price
from luma_cli.advise.question import Question
from luma_cli.advise.recommend import Recommendation, recommendation
from luma_cli.report.recommendation import print_recommendation
from luma_cli.units import parse_budget

BEST, CHEAP, UNSURE = candidate("vit_b.dinov3", 120), candidate("vit_s.dinov3", 40), candidate("vit_l.dinov3", 150)
UNSEEN = candidate("swin_t.supervised_in1k", 60)
MODEL = TableModel({BEST.timm_name: (54.0, 0.5), CHEAP.timm_name: (53.9, 0.5), UNSURE.timm_name: (58.0, 0.5)},
                   ids=("row-1",))  # fmt: skip
SPEED = TableSpeed(
    {
        BEST.architecture: {"ms": (15.0, 12.0, 19.0)},
        CHEAP.architecture: {"ms": 10.0},
        UNSURE.architecture: {"ms": (18.0, 15.0, 22.0)},
        UNSEEN.architecture: {"ms": 5.0},
    }
)


def answer(**asked: Any) -> Recommendation:
    question = Question("ade20k", tuple(map(parse_budget, ("20ms", "200gflops"))), **asked)
    pool = price([BEST, CHEAP, UNSURE, UNSEEN], question.kinds, SPEED, "luma", 150)
    evidence = [result(BEST, 53.5, 1, doubtful="odd")]
    return recommendation(question, pool, MODEL, evidence=evidence, speed=SPEED, with_reasons=True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(found: Recommendation, stream: io.StringIO, *, why: bool = False) -> str:
    print_recommendation(found, stream, why=why)
    return re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())


def test_on_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = shown(answer(), Terminal())
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) <= 25
    joined = " ".join(text.split())
    for part in (
        "Train vit_s.dinov3 at 512 px: about 54 mIoU (53-55) on ade20k for 10 ms and 40 GFLOPs a crop (73.2 an image)",
        "licence unknown (not for commercial use)",
        "could as well be first: vit_b.dinov3 at 512 px; more direct evidence, then less cost decides",
        "may fit once measured (--measure): vit_l.dinov3 at 512 px, 18 ms predicted (80%: 15 to 22)",
        "next: luma train vit_s.dinov3 --data ade20k --res 512",
    ):
        assert part in joined, part
    assert "P(best)" not in text


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_at_every_width_it_is_a_table_of_whole_names(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    long = candidate("convnextv2_atto.fcmae_ft", 12_244.7, 1024, licence="cc-by-nc-4.0")
    found = answer()
    rows = (found.rows[0], replace(found.rows[1], priced=replace(found.rows[1].priced, candidate=long), windows=2.0))
    lines = shown(replace(found, rows=rows), Terminal()).splitlines()
    assert all(len(line) <= width for line in lines)
    name = "convnextv2_atto.fcmae_ft"[: None if width > 60 else 16]
    (row,) = (line.split() for line in lines if line.startswith(f" {name}"))
    assert row[1] == "1024"
    assert row[0] == name or width == 60
    assert ("12,240" in row) == (width > 60)
    assert ("24,490" in row) == (width > 100)


def test_why_holds_all_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    joined = " ".join(shown(answer(), Terminal(), why=True).split())
    for part in (
        "Why: 3 candidates within budget, 2 with direct evidence",
        "~: predicted, not measured",
        "nearest budget: 20ms, 50% left",
        "twice 20ms would buy +4.0 mIoU",
        "P(best) 0.5",
        "+2.50 +- 0.40 pretraining dinov3",
        "53.5 mIoU arch_vit_b.dinov3 at 512x512, UPerNet, fine-tuned, single-scale, ADE20K val (paper 1, "
        "https://example.org/1); doubtful: odd",
        "1 may exceed a budget",
        "18 ms predicted (80%: 15 to 22), may not meet 20ms",
        "1 fit the budget but have no results and are not recommended; the top 1: - swin_t.supervised_in1k",
        "mIoU on the EoMT scale, no LUMA run seen",
    ):
        assert part in joined, part


def test_in_a_pipe_the_table_has_tabs() -> None:
    lines = shown(answer(), io.StringIO()).splitlines()
    heading = next(line for line in lines if not line.startswith("# "))
    assert heading.split("\t") == [
        "backbone", "px", "mIoU", "80%", "p50 ms", "GFLOPs crop", "image", "params M", "licence", "evidence",
    ]  # fmt: skip
    rows = [line.split("\t") for line in lines if "\t" in line][1:]
    assert [row[0] for row in rows] == ["vit_s.dinov3", "vit_b.dinov3"]
    assert rows[1][4:] == ["~15", "120", "219.6", "50", "unknown NC", "weights"]


def test_nothing_recommended_is_said() -> None:
    found = replace(answer(), rows=(), binding=None, price=None, untested=None)
    text = shown(found, io.StringIO())
    assert "# Nothing surely fits 20ms and 200gflops; vit_l.dinov3 at 512 px may, by a predicted cost" in text


def test_commands_are_continued_between_words_and_stay_copyable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    line = "luma train vit_b.dinov3 --data ade20k --res 384 --recipe eomt-ade20k --head eomt"
    text = shown(replace(answer(), command=line), Terminal())
    printed = text[text.index("luma train") :]
    assert all(len(each) <= 60 for each in printed.splitlines())
    assert shlex.split(printed.replace("\\\n", "")) == shlex.split(line)


@pytest.mark.parametrize(
    ("objective", "said"), [("knee", "the knee of the front"), ("miou-per-ms", "most mIoU per ms")]
)
def test_the_objective_is_named(objective: str, said: str) -> None:
    assert said in shown(answer(objective=objective), io.StringIO())


def test_a_chance_that_rounds_to_nothing_is_small_and_not_none() -> None:
    found = answer()
    rows = (replace(found.rows[0], best=0.004), *found.rows[1:])
    assert "P(best) <0.01" in shown(replace(found, rows=rows), io.StringIO(), why=True)


def test_what_costs_rest_on_is_a_note() -> None:
    question = Question("ade20k", (parse_budget("20ms"),))
    pool = [
        replace(each, costs={**each.costs, "ms": replace(each.costs["ms"], note="from throughput; not measured")})
        for each in price([BEST, CHEAP], question.kinds, SPEED, "luma", 150)
    ]
    assert recommendation(question, pool, MODEL, speed=SPEED).notes == ("latency: from throughput; not measured",)


def test_the_scale_is_of_the_head_that_was_asked_for() -> None:
    assert "on the EoMT scale" in answer().scale_note
    assert answer(head="linear").scale_note == "on the scale of the linear head"
    bare = answer(head="none")
    assert bare.scale_note == answer().scale_note
    assert any("mIoU is with the LUMA head" in note for note in bare.notes)
    assert [row.prediction for row in bare.rows] == [row.prediction for row in answer().rows]
