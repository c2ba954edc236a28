"""Latency tables of others: what is taken in, what is refused, and that answers use them."""

from __future__ import annotations

from pathlib import Path

import pytest

from luma_cli.errors import UsageError
from luma_cli.speed.imported import every_latency, examine_latencies, is_latency_table, keep_latencies
from luma_cli.speed.latency import load_published
from luma_cli.speed.model import SpeedModel
from luma_cli.speed.quantity import Workload

HEADING = "model,architecture,device,runtime,dtype,resolution,batch,ms,gmacs"
GOOD = "mine,vit_large_patch16_dinov3,L4,torch.compile,fp16,1024,1,700,2174"


def file_of(tmp_path: Path, *rows: str, heading: str = HEADING) -> Path:
    file = tmp_path / "latency.csv"
    file.write_text("\n".join((heading, *rows)) + "\n", encoding="utf-8")
    return file


def test_a_row_comes_in_once_and_moves_the_answer(tmp_path: Path) -> None:
    file, database = file_of(tmp_path, GOOD), tmp_path / "luma.db"
    assert is_latency_table(file)
    found = examine_latencies(file)
    (row,) = found.rows
    assert (row.runtime, row.dtype, row.height, row.width, row.macs) == ("compile", "float16", 1024, 1024, 2174 * 10**9)
    assert keep_latencies(found, database) == 1
    assert keep_latencies(found, database) == 0
    every = every_latency(database)
    assert len(every) == len(load_published()) + 1
    load = Workload("vit_base_patch16_dinov3", 1024, macs=720_000_000_000)
    before, after = (SpeedModel.load([], "L4", published=rows).quantity("ms", load) for rows in (None, every))
    assert before is not None
    assert after is not None
    assert after.value > 1.1 * before.value
    assert after.high / after.low < before.high / before.low


@pytest.mark.parametrize("seconds", ["0.7", "0.05"])
def test_seconds_among_milliseconds_refuse_the_file(tmp_path: Path, seconds: str) -> None:
    other = GOOD.replace("mine", "other").replace(",700,", f",{seconds},")
    with pytest.raises(UsageError, match=r"row 2 \(line 3\).*seconds") as raised:
        examine_latencies(file_of(tmp_path, GOOD, other))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("torch.compile", "onnx"), "runtime is 'onnx'"),
        (("fp16", "fp13"), "dtype is 'fp13'"),
        ((",1024,", ",0,"), "resolution is '0'"),
        ((",1,700", ",0,700"), "batch is '0'"),
        ((",700,", ",-7,"), "ms is '-7'"),
        ((",2174", ",nan"), "gmacs is 'nan'"),
    ],
)
def test_a_wrong_cell_refuses_its_row_alone(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    found = examine_latencies(file_of(tmp_path, GOOD, GOOD.replace(*change)))
    assert len(found.rows) == 1
    assert len(found.refused) == 1
    assert reason in found.refused[0]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    file = file_of(tmp_path, GOOD, heading=HEADING.replace("runtime", "engine"))
    with pytest.raises(UsageError, match="no column runtime"):
        examine_latencies(file)
