"""The command line as a user meets it: wrong input is one line and an exit code, output is data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.cli.app import app, run
from luma_cli.measure.cost import cost

LUMA = [sys.executable, "-P", "-m", "luma_cli"]


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("cost bananas", 2, "bananas"),
        ("cost convnext_bse --res 512", 2, "convnext_b"),
        ("show vit_b.dinov9", 2, "dinov3"),
        ("cost vit_b --res 0", 2, "--res 16"),
        ("cost vit_b --res -5", 2, "--res 16"),
        ("cost vit_b --res 13", 2, "--res 16"),
        ("cost vit_b --res 100000", 2, "16384"),
        ("cost swin_t --res 500", 2, "--res 480 or 512"),
        ("cost vit_b --queries 0", 2, "num_queries"),
        ("cost vit_b --ffn borrowed", 2, "reused"),
        ("cost", 2, "luma cost --help"),
        ("cost vit* --res 512", 2, "--yes"),
        ("frobnicate", 2, "luma --help"),
        ("profile vit_b --batch 0", 2, "--batch 1"),
        ("profile vit_b --batch many", 2, "--batch 1"),
        ("profile vit_b --device tpu", 2, "--device cpu"),
        ("profile vit_b --max-seconds 0", 2, "--max-seconds"),
        ("profile vit_b --weights missing.safetensors --device cpu", 1, "missing.safetensors"),
        ("recommend --budget 200", 2, "200gflops"),
        ("recommend --budget 200bananas", 2, "bananas"),
        ("recommend --budget -5ms", 2, "200gflops"),
        ("recommend --budget 0.1gflops", 1, "cheapest"),
        ("recommend --budget 20ms", 1, "luma profile"),
        ("recommend --budget 200gflops --family plant", 2, "hierarchical"),
        ("recommend --budget 200gflops --top 0", 2, "top"),
        ("recommend --budget 200gflops --pretraining dinov9", 2, "dinov3"),
        ("recommend --budget 200gflops --license gpl", 2, "apache-2.0"),
        ("recommend --budget 200gflops --objective best", 2, "--objective"),
        ("recommend --budget 24gpuh", 1, "luma"),
        ("recommend --budget 20ms --measure --device RTX4090", 2, "--device cuda"),
        ("cost vit_b --json --csv", 2, "--csv"),
        ("profile vit_b --by-module --json", 2, "--by-module"),
        ("profile vit_b --cost-only --batch 0", 2, "--batch 1"),
        ("list --res 500", 2, "luma cost NAME --res 500"),
        ("list --max-gflops -1", 2, "--max-gflops 200"),
        ("list --family plant", 2, "hierarchical"),
        ("list --pretraining dinov9", 2, "dinov3"),
        ("db query SELECT", 1, "does not exist"),
        ("db check", 1, "does not exist"),
        ("db export", 1, "luma profile"),
    ],
)
def test_wrong_input_is_one_line_that_says_what_to_do(
    line: str, code: int, expected: str, capsys: pytest.CaptureFixture[str], fitted: Path
) -> None:
    assert run(line.split()) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("luma: ")
    assert expected in said.err


@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia"), reason="has a GPU")
def test_cuda_without_cuda_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", "test_vit", "--res", "64", "--device", "cuda"]) == 2
    assert "--device cpu" in capsys.readouterr().err


def test_cost_json_is_the_closed_form_of_a_vit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cost", "vit_base_patch16_224", "--res", "224", "512", "1024", "--head", "none", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["profiles"]
    for row, resolution in zip(rows, (224, 512, 1024), strict=True):
        patches, width, hidden = (resolution // 16) ** 2, 768, 3072
        tokens = patches + 1
        block = 4 * tokens * width**2 + 2 * tokens * width * hidden + 2 * tokens**2 * width
        assert row["resolution"] == resolution
        assert row["macs"] == patches * 3 * 256 * width + 12 * block
        assert row["gflops"] == row["gmacs"] == row["macs"] / 1e9
        assert row["throughput"] is None
        assert row["memory_bytes"] == {"allocated": None, "reserved": None, "device": None}


def test_convention_doubles_what_is_shown_and_not_what_is_stored(capsys: pytest.CaptureFixture[str]) -> None:
    run(["cost", "vit_b", "--res", "512", "--json", "--flop-convention", "2x"])
    row = json.loads(capsys.readouterr().out)["profiles"][0]
    assert row["gflops"] == 2 * row["gmacs"]
    assert row["macs"] == cost("vit_b", 512).macs


def test_python_and_command_line_count_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    run(["cost", "convnext_b", "--res", "512", "--queries", "50", "--classes", "19", "--json"])
    row = json.loads(capsys.readouterr().out)["profiles"][0]
    same = cost("convnext_b", 512, HeadConfig(num_queries=50, num_classes=19))
    assert (row["macs"], row["params"], row["ffn"]) == (same.macs, same.params, same.ffn)


def test_csv_has_the_column_names_of_timm(capsys: pytest.CaptureFixture[str]) -> None:
    run(["cost", "vit_b", "--res", "512", "--csv"])
    header, row = capsys.readouterr().out.splitlines()
    assert header.startswith("model,infer_img_size,infer_samples_per_sec,infer_batch_size,infer_gmacs,param_count")
    assert row.startswith("vit_base_patch16_224,512,,,122.65")


def test_list_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "--pretraining", "dinov3", "--max-gflops", "120", "--res", "512", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["backbones"]
    assert {"vit_b.dinov3", "convnext_b.dinov3"} <= {row["backbone"] for row in rows}
    assert all(row["gflops"] <= 120 for row in rows)


def test_show_tells_tap_ffn_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "convnext_b", "--json"]) == 0
    sheet = json.loads(capsys.readouterr().out)
    assert sheet["facts"]["timm name"] == "convnext_base"
    assert sheet["facts"]["FFN"] == "reused"
    assert [row["resolution"] for row in sheet["costs"]] == [224, 384, 512, 640, 768, 1024]


@pytest.mark.parametrize(
    "line", ["--help", "list", "show vit_b", "cost vit_b --res 512", "recommend --budget 200gflops"]
)
def test_answers_without_torch_and_without_a_home(line: str, tmp_path: Path, fitted: Path) -> None:
    program = (
        "import sys; from luma_cli.cli.app import run; code = run(sys.argv[1:]);"
        "loaded = {'torch', 'timm', 'pandas', 'scipy', 'sqlite_utils', 'prompt_toolkit'} & set(sys.modules);"
        "sys.exit(code or (f'loaded {loaded}' if loaded else 0))"
    )
    empty = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "nowhere"), "XDG_CACHE_HOME": str(fitted)}
    result = subprocess.run(
        [sys.executable, "-P", "-c", program, *line.split()], env=empty, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_command_imports_no_other_command() -> None:
    program = "import sys; from luma_cli.cli.app import run; run(['db', 'path']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60)
    loaded = {name for name in done.stdout.split() if name.startswith("luma_cli.cli.")}
    assert loaded == {"luma_cli.cli.app", "luma_cli.cli.options", "luma_cli.cli.db"}


def test_every_command_of_the_help_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    whole = capsys.readouterr().out
    group = typer.main.get_command(app)
    for name in group.list_commands(typer.Context(group)):
        assert f" {name} " in whole
        assert run([name, "--help"]) == 0
        assert f"Usage: luma {name} " in capsys.readouterr().out


def test_closed_pipe_is_quiet() -> None:
    result = subprocess.run(
        " ".join([*LUMA, "list", "'*'"]) + " | head -1", shell=True, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.startswith("#")
    assert result.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line() -> None:
    done = subprocess.run(
        " ".join([*LUMA, "list", "'*'"]) + " > /dev/full", shell=True, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == "luma: no space left on the device that the output goes to; free some and run this again\n"


@pytest.mark.parametrize(
    "environment",
    [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"COLUMNS": "40"}, {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}],
)
@pytest.mark.usefixtures("fitted")
def test_odd_terminals(environment: dict[str, str]) -> None:
    result = subprocess.run(
        [*LUMA, "recommend", "--budget", "200gflops"], env={**os.environ, **environment}, capture_output=True
    )
    assert result.returncode == 0, result.stderr.decode()
    assert b"\x1b" not in result.stdout


def test_every_failure_is_one_line_unless_debugging(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luma_cli.catalogue.names.expand", lambda *_, **__: 1 / 0)
    assert run(["cost", "vit_b"]) == 1
    assert capsys.readouterr().err == "luma: unexpected ZeroDivisionError: division by zero; LUMA_DEBUG=1 shows where\n"
    monkeypatch.setenv("LUMA_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run(["cost", "vit_b"])


def test_ctrl_c_says_what_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("luma_cli.catalogue.listing.list_backbones", interrupted)
    assert run(["list"]) == 130
    assert capsys.readouterr().err == "luma: stopped by Ctrl-C; what was finished is kept\n"


def test_info_of_a_store_that_is_not_there_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "info", "--db", str(tmp_path / "none.db")]) == 0
    assert "does not exist yet" in capsys.readouterr().out
