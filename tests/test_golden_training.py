"""Runs recorded bit by bit, the rows that are kept, and the schema of every output that depends on the machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import PIL
import pytest
import torch
from golden_files import GOLDEN, WRITES, check_json, check_text, csv_header, schema
from run_samples import evaluation, record
from store_samples import profile

from luma_cli.cli.app import run
from luma_cli.data.drawn import write_sample
from luma_cli.store import database
from luma_cli.store.profiles import save
from luma_cli.store.runs import save_evaluation, save_metrics, start_run

NUM_STEPS = 20
HEADS = {"luma": ["--queries", "8"], "eomt": ["--queries", "8"], "linear": []}
METRICS = ("train/loss", "train/grad_norm")
# Objects whose keys are data: names of metrics, settings, classes, runs.
OPEN = frozenset({"curves", "counts", "devices", "costs"})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a drawn dataset, a run of each head on it and the database that keeps them."""
    folder = tmp_path_factory.mktemp("golden")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("luma_cli.data.loader.keep_freed_memory", lambda: None)
        patch.setattr(os, "fsync", os.fstat)
        patch.setenv("LUMA_DB", str(folder / "luma.db"))
        patch.chdir(folder)
        torch.set_num_threads(1)
        write_sample("ade20k", folder / "ade", 10, short_side=96)
        for head, options in HEADS.items():
            assert run(training(head, *options)) == 0
    yield folder
    torch.set_num_threads(threads)


def training(head: str, *options: str) -> list[str]:
    """A short training: every kind of draw takes part (order, crops, colours, points)."""
    recipe = {"steps": NUM_STEPS, "epochs": 0, "warmup_head_steps": 4, "warmup_backbone_steps": 4, "num_points": 64}
    changes = [word for name, value in recipe.items() for word in ("--set", f"{name}={value}")]
    return [
        *("train", "test_vit", "--data", "ade20k", "--root", "ade", "--res", "64", "--weights", "random"),
        *("--recipe", "smoke", *changes, "--batch", "4", "--accumulate", "2", "--head", head, *options),
        *("--device", "cpu", "--workers", "0", "--seed", "0", "--out", head, "--json"),
    ]


@pytest.fixture
def at_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.setenv("LUMA_DB", str(place / "luma.db"))
    monkeypatch.delenv("LUMA_DATA", raising=False)
    return place


def calculator() -> dict[str, str]:
    """What decides the last bits of a training on a CPU, with the hash of a small calculation in each kernel."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 32, 32, generator=generator, requires_grad=True)
    kernel = torch.randn(64, 3, 8, 8, generator=generator)
    tokens = torch.nn.functional.conv2d(images, kernel, stride=8).flatten(2).mT
    mixed = torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
    out = torch.nn.functional.layer_norm(torch.nn.functional.gelu(mixed @ mixed.mT), (16,)).softmax(-1)
    out.square().sum().backward()
    assert images.grad is not None
    bits = out.detach().numpy().tobytes() + images.grad.numpy().tobytes()
    return {
        "torch": torch.__version__.partition("+")[0],
        "pillow": PIL.__version__,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "bits": hashlib.sha256(bits).hexdigest(),
    }


def rows(path: Path, query: str, *values: object) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query, values)]


@pytest.mark.parametrize("head", HEADS)
def test_losses_to_the_bit(head: str, at_place: Path) -> None:
    """Losses and gradient norms of 20 steps, recorded on a processor that calculates like this one."""
    path = GOLDEN / "training" / f"{head}.json"
    here = calculator()
    if not WRITES:
        recorded = json.loads(path.read_text(encoding="utf-8"))["calculator"]
        differing = [name for name in here if here[name] != recorded.get(name)]
        if differing:
            pytest.skip(f"recorded with other arithmetic ({', '.join(differing)} differ), so last bits may too")
    query = (
        "select curve.value from run_curves curve join runs on runs.run_id = curve.run_id "
        "where runs.head = ? and curve.name = ? and curve.value is not null order by curve.step"
    )
    curves = {
        name: [float(row["value"]).hex() for row in rows(at_place / "luma.db", query, head, name)] for name in METRICS
    }
    assert [len(curve) for curve in curves.values()] == [NUM_STEPS] * len(METRICS)
    # Text, so that every bit counts and every step shows.
    check_text(f"training/{head}.json", json.dumps({"calculator": here, **curves}, indent=1) + "\n")


def test_what_a_run_keeps_besides_its_numbers(at_place: Path) -> None:
    """Configuration and facts of each run, without what depends on the machine."""
    kept = {}
    for row in rows(at_place / "luma.db", "select * from runs order by head"):
        config, facts = json.loads(row["config"]), json.loads(row["facts"])
        config["data_root"] = Path(config["data_root"]).name
        config["data_fingerprint"] = bool(config["data_fingerprint"])  # Pillow's encoders decide the files
        del facts["command"]
        facts["micro_batch"] = facts["memory_bytes"] = "by the machine"
        columns = (
            "status",
            "backbone",
            "timm_name",
            "weights",
            "resolution_pixels",
            "head",
            "recipe",
            "seed",
            "num_steps",
        )
        kept[row["head"]] = {"config": config, "facts": facts, **{name: row[name] for name in columns}}
    check_json("training/runs.json", kept)


def test_rows_of_a_fixed_profile_and_a_fixed_run(isolated: Path) -> None:
    """Schema of the database and every row with its hash, at a fixed time: old databases stay valid and mergeable."""
    path, now = isolated / "fixed.db", lambda: 1_800_000_000.0
    with closing(database.open_write(path)) as db:
        save(db, profile(), now=now)
        save(db, profile(status="oom", reason="does not fit", metrics={}, resolution=1024), now=now)
        start_run(db, record(), now)
        save_metrics(db, record().run_id, [(1, "train/loss", 2.0), (2, "train/loss", float("nan"))], now)
        save_evaluation(db, evaluation(), now)
    assert run(["evidence", "import", str(_results(isolated)), "--db", str(path)]) == 0
    tables = [row["name"] for row in rows(path, "select name from sqlite_master where type = 'table' order by name")]
    kept: dict[str, Any] = {
        name: [
            {key: each.hex() if isinstance(each, bytes) else each for key, each in row.items()}
            for row in rows(path, f"select * from {name}")
        ]
        for name in tables
    }
    for row in kept["evidence_row"]:
        row["imported_unix_seconds"] = now()  # the one time that a command takes from the clock
    kept["schema"] = {
        row["name"]: " ".join(row["sql"].split())
        for row in rows(path, "select name, sql from sqlite_master where sql is not null")
    }
    kept["user_version"] = rows(path, "pragma user_version")
    check_json("store.json", kept)


def _results(folder: Path) -> Path:
    """A file of own results, as `luma evidence import` reads it."""
    path = folder / "own.csv"
    path.write_text(
        "dataset,head,backbone,timm_name,pretraining,resolution,miou_percent,source\n"
        "ade20k,eomt,vit_b,vit_base_patch16_224.augreg_in21k,supervised_in21k,512,50.5,our bench 2026\n",
        encoding="utf-8",
    )
    return path


SCHEMAS = {
    "train_dry_run": "train test_vit --data ade20k --root ade --res 64 --weights random --recipe smoke --batch 2"
    " --head linear --device cpu --workers 0 --dry-run --json",
    "eval": "eval luma --json",
    "eval_csv": "eval luma --csv",
    "eval_classes_csv": "eval luma --csv --classes",
    "runs": "runs list --json",
    "runs_csv": "runs list --csv",
    "runs_show": "runs show luma --json",
    "runs_compare": "runs compare luma eomt --json",
    "predict": "predict luma ade/ADEChallengeData2016/images/validation --out predicted --force --json",
    "export": "export luma --format safetensors --out exported.safetensors --force --json",
    "data_check": "data check ade20k --root ade --workers 1 --json",
    "db_info": "db info --json",
    "doctor": "doctor --json",
    "profile_cost": "profile test_vit --res 64 --cost-only --json",
    "profile_cost_csv": "profile test_vit --res 64 --cost-only --csv",
    "cost_csv": "cost vit_b --res 512 --csv",
    "db_export": "db export --view score_costs --form json",
    "list": "list --json",
    "show": "show vit_b --json",
    "cost": "cost vit_b --res 512 --json",
    "recommend": "recommend --budget 200gflops --why --json",
    "front": "front --json",
    "next": "next --json",
    "estimate": "estimate vit_b --json",
    "scaling": "scaling --json",
    "findings": "findings --rows --json",
    "evidence_list": "evidence list --json",
    "data_list": "data list --json",
}


@pytest.mark.usefixtures("fitted")
def test_schemas(at_place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Key paths with types of JSON and column names of CSV, of commands whose values depend on the machine."""
    found: dict[str, Any] = {}
    for name, line in SCHEMAS.items():
        code = run(line.split())
        captured = capsys.readouterr()
        assert code == 0, f"{line}: {captured.err}"
        found[name] = (
            csv_header(captured.out) if name.endswith("csv") else schema(json.loads(captured.out), open_keys=OPEN)
        )
        if isinstance(found[name], dict):
            found[name].pop("$.facts.command[]", None)  # the words of this process: pytest's own have none
    for view in (
        "profiles",
        "attempts",
        "runs",
        "run_curves",
        "evaluations",
        "class_scores",
        "score_costs",
        "evidence",
    ):
        assert run(["db", "export", "--view", view]) == 0
        found[f"db_export_{view}_csv"] = csv_header(capsys.readouterr().out)
    for form, read in (("json", lambda text: schema(json.loads(text))), ("csv", csv_header)):
        found[f"profile_{form}"] = measured(form, read)
    check_schemas(found)


def measured(form: str, read: Callable[[str], Any]) -> Any:
    """What `luma profile` prints of a measurement, made in a process of its own, since it sets threads and kernels."""
    line = "profile test_vit --res 64 --device cpu --batch 1 --isolation none --max-seconds 0.1"
    words = [sys.executable, "-P", "-m", "luma_cli", *line.split(), f"--{form}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def check_schemas(found: dict[str, Any]) -> None:
    """Each as a line per key path, so that a difference shows at a glance."""
    lines = []
    for name, one in sorted(found.items()):
        paths = one if isinstance(one, list) else [f"{path}: {kind}" for path, kind in one.items()]
        lines += [f"== {name}", *paths]
    check_text("schemas.txt", "\n".join(lines) + "\n")
