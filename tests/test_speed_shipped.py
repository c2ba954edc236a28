"""The shipped throughput table: made from the transcription, and rejected when it is another file."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from luma_cli.errors import BadCard
from luma_cli.speed.reference import load_table, read_table

main = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "throughput_table.py"))["main"]

RAW = """model,family,img_size,infer_samples_per_sec,infer_gmacs,infer_macts,hardware,precision,layout,mode
net_a.one,net,224,2000.5,4.5,12,GPU A,amp,nchw,eager pt2.4
net_a.two,net,224,2000.5,4.5,12,GPU A,amp,nchw,eager pt2.4
net_a.one,net,224,500,4.5,12,GPU B,bf16,nchw,dynamo pt2.9.1
net_b,net,384,100,9,30,GPU A,amp,nchw,eager pt2.4
"""


def make(tmp_path: Path, text: str = RAW) -> Path:
    raw, out = tmp_path / "raw.csv", tmp_path / "out.csv"
    raw.write_text(text, encoding="utf-8")
    assert main([str(raw), str(out)]) == 0
    return out


def test_checkpoints_of_one_architecture_and_size_become_one_row(tmp_path: Path) -> None:
    table = read_table(make(tmp_path))
    assert [each.label for each in table.settings] == ["GPU A/amp/nchw/eager/2.4", "GPU B/bf16/nchw/dynamo/2.9.1"]
    first, second = table.rows
    assert (first.architecture, first.resolution, first.macs, first.activations) == ("net_a", 224, 4.5e9, 12e6)
    assert first.milliseconds == (1000 / 2000.5, 2.0)
    assert second.milliseconds == (10.0, None)


def test_two_rates_of_one_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCard, match=r"line 3: 1999.0 images/s for net_a.two"):
        make(tmp_path, RAW.replace("net_a.two,net,224,2000.5", "net_a.two,net,224,1999"))


@pytest.mark.parametrize(("text", "problem"), [("a,b\n", "header should begin"), (None, "line 2 is no row")])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, text: str | None, problem: str) -> None:
    out = make(tmp_path)
    out.write_text(
        out.read_text(encoding="utf-8").replace("2000.5", "fast") if text is None else text, encoding="utf-8"
    )
    with pytest.raises(BadCard, match=problem):
        read_table(out)


def test_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["one"]) == 2
    assert "RAW.csv OUT.csv" in capsys.readouterr().err


def test_the_shipped_table_has_eight_settings_of_three_classes() -> None:
    table = load_table()
    assert len(table.settings) == 8
    assert {each.speed_class for each in table.settings} == {
        ("cuda half", "none"),
        ("cuda half", "default"),
        ("cpu fp32", "default"),
    }
    assert len(table.rows) > 1000
    assert len({(row.architecture, row.resolution) for row in table.rows}) == len(table.rows)
    assert all(any(row.milliseconds) and row.macs > 0 and row.activations > 0 for row in table.rows)
