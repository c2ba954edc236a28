"""A recommendation as text: on a terminal of 80 columns and in a pipe, with everything that qualifies it."""

from __future__ import annotations

import io
import re
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


def shown(found: Recommendation, stream: io.StringIO) -> str:
    print_recommendation(found, stream)
    return stream.getvalue()


def test_on_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = re.sub(r"\x1b\[[\d;]*m", "", shown(answer(), Terminal()))
    assert all(len(line) <= 80 for line in text.splitlines() if not line.strip().startswith("luma "))
    joined = " ".join(text.split())
    for part in (
        "ade20k under 20ms, 200gflops, highest mIoU: 3 candidates within budget, 2 with evidence",
        "mIoU in percent with its 80% interval, on the EoMT scale, no LUMA run seen",
        "1= vit_s.dinov3 512 53.9",
        "2= vit_b.dinov3 512 54.0",
        "~15",
        "2 candidates are as good within seed noise; the cheapest that the evidence spans is first",
        "P(best): probability that nothing within budget has a higher mIoU; "
        "P(front): that nothing with less latency is as good",
        "~: predicted, not measured",
        "binding: 20ms, 50% slack",
        "twice 20ms would buy +4.0 mIoU",
        "next run: ",
        "+2.50 +- 0.40 pretraining dinov3",
        "53.5 mIoU arch_vit_b.dinov3 at 512x512, UPerNet, fine-tuned, single-scale, ADE20K val (paper 1, "
        "https://example.org/1); doubtful: odd",
        "1 may exceed a budget",
        "18 ms predicted (80%: 15 to 22), may not meet 20ms",
        "1 fit the budget but have no evidence and are not recommended; the top 1: - swin_t.supervised_in1k",
    ):
        assert part in joined, part


def test_in_a_pipe_the_table_has_tabs_and_the_reasons_a_column() -> None:
    lines = shown(answer(), io.StringIO()).splitlines()
    heading = next(line for line in lines if not line.startswith("# "))
    assert heading.split("\t") == [
        "#", "backbone", "px", "mIoU", "80%", "P(best)", "P(front)", "p50 ms", "GFLOPs", "why",
    ]  # fmt: skip
    rows = [line.split("\t") for line in lines if line[:1].isdigit()]
    assert [row[1] for row in rows] == ["vit_s.dinov3", "vit_b.dinov3"]
    assert rows[1][7:9] == ["~15", "120"]


def test_nothing_recommended_is_said() -> None:
    found = replace(answer(), rows=(), binding=None, price=None, num_ties=0)
    text = shown(found, io.StringIO())
    assert "# nothing is recommended: no candidate that surely fits has evidence" in text


def test_commands_are_never_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    line = "luma train vit_b.dinov3 --data ade20k --res 384 --recipe ade20k --head luma"
    found = replace(answer(), next_run=f"{line} (expected to improve this choice by 0.11 mIoU)")
    lines = shown(found, Terminal()).splitlines()
    assert "* next run: expected to improve this choice by 0.11 mIoU" in lines
    assert f"    {line}" in lines


@pytest.mark.parametrize(("objective", "heading"), [("knee", "P(knee)"), ("miou-per-ms", "P(best)")])
def test_the_chance_is_of_the_objective(objective: str, heading: str) -> None:
    assert heading in shown(answer(objective=objective), io.StringIO())


def test_a_chance_that_rounds_to_nothing_is_small_and_not_none() -> None:
    found = answer()
    rows = (replace(found.rows[0], best=0.004, on_front=0.0), *found.rows[1:])
    row = next(line for line in shown(replace(found, rows=rows), io.StringIO()).splitlines() if line.startswith("1="))
    assert row.split("\t")[5:7] == ["<0.01", "<0.01"]


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
