"""Devices that nobody measured: by specification, by a file, and the answers that follow."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer

from luma_cli import files
from luma_cli.advise import candidates
from luma_cli.advise.costs import price, workload
from luma_cli.catalogue.costs import load_costs
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.cli.app import app
from luma_cli.errors import LumaError, UnknownName, UsageError
from luma_cli.speed.devices import DeviceSpec, find_device, load_devices, read_spec
from luma_cli.speed.latency import Published, fit_launches, latencies, load_published, usual_runtime
from luma_cli.speed.model import WIDEST, SpeedModel
from luma_cli.speed.quantity import Workload
from luma_cli.speed.reference import by_specification

VIT_B = Workload("vit_base_patch16_dinov3", 512, macs=124_000_000_000, params=86_000_000)


def twice(spec: DeviceSpec, factor: float = 2.0) -> DeviceSpec:
    return DeviceSpec("twice", factor * spec.fp16, factor * spec.bandwidth)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Jetson Orin", "Jetson AGX Orin"),
        ("tesla T4", "T4"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("rtx5090", "RTX 5090"),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("orin nano", "Jetson Orin Nano Super"),
    ],
)
def test_a_device_is_found_by_every_usual_spelling(spelling: str, name: str) -> None:
    found = find_device(spelling)
    assert found is not None
    assert found.name == name


def test_every_shipped_device_has_figures_in_the_range_of_what_exists_and_a_source() -> None:
    for each in load_devices():
        assert 1e13 <= each.fp16 <= 2e15, each
        assert 5e10 <= each.bandwidth <= 1e13, each
        assert each.source, each
        assert find_device(each.name) == each


def test_twice_the_figures_halve_the_time() -> None:
    spec = find_device("L4")
    assert spec is not None
    one, other = by_specification(spec), by_specification(twice(spec))
    assert one.specified
    assert other.reference.base - one.reference.base == pytest.approx(-np.log(2), abs=1e-9)


def test_specifications_agree_with_published_latencies() -> None:
    """Rows that work decides, on devices and runtimes whose rows the model has not seen."""
    every = load_published()
    inside, errors = [], []
    for row in every:
        spec = find_device(row.device)
        if spec is None or not row.macs or row.dtype != "float16" or row.batch != 1:
            continue
        others = [each for each in every if each.device != row.device]
        speed = SpeedModel.load([], f"{spec.name}/{row.runtime}", head=row.head, published=others)
        said = speed.quantity("ms", row.workload)
        assert said is not None
        errors.append(abs(np.log(row.ms / said.value)))
        inside.append(said.low <= row.ms <= said.high)
    assert len(inside) >= 20
    assert np.exp(np.median(errors)) < 1.6
    assert np.mean(inside) >= 0.7


def test_published_rows_of_the_device_move_and_narrow_the_answer() -> None:
    spec = find_device("Jetson Orin")
    assert spec is not None
    rows = load_published()
    others = tuple(row for row in rows if row.device != spec.name)
    without, with_rows = latencies(spec, "tensorrt", others), latencies(spec, "tensorrt", rows)
    assert with_rows.num_rows > 0 == without.num_rows
    assert with_rows.variance < without.variance
    assert with_rows.offset < without.offset  # the published ones are faster than its figures say


def test_rows_of_another_runtime_count_less_than_rows_of_the_same() -> None:
    spec = find_device("L4")
    assert spec is not None

    def moved(runtime: str) -> float:
        slow = Published(
            "m", "vit_large_patch16_dinov3", "eomt", "L4", runtime, "float16", 1024, 1024, 1, 3000.0, 2_174_000_000_000
        )  # type: ignore[arg-type]
        rows = load_published()
        return latencies(spec, "compile", (*rows, slow)).offset - latencies(spec, "compile", rows).offset

    assert moved("compile") > moved("tensorrt") > 0


def test_float32_rows_say_nothing_of_half_precision() -> None:
    spec = find_device("V100")
    assert spec is not None
    rows = load_published()
    assert any(row.device == "V100" for row in rows)
    assert latencies(spec, "eager", rows).num_rows == 0
    assert usual_runtime(spec, rows) == "compile"
    assert usual_runtime(find_device("Jetson Orin"), rows) == "tensorrt"


def test_launches_cost_most_in_eager_mode() -> None:
    cost = fit_launches(load_published()).log_ms
    assert cost["eager"] > cost["compile"] > cost["tensorrt"]
    assert 5e-3 < np.exp(cost["compile"]) < 0.1  # milliseconds


def pool() -> list[candidates.Candidate]:
    return candidates.load("ade20k", None, True, "luma")


@pytest.mark.parametrize("device", ["RTX 4090", "Jetson Orin", "H100"])
def test_feasible_candidates_change_smoothly_with_the_budget(device: str) -> None:
    priced = price(pool(), ["ms"], SpeedModel.load([], device), "luma", 150)
    highs = np.array([each.costs["ms"].high for each in priced if "ms" in each.costs])
    assert len(highs) > 1000
    budgets = 5 * 1.05 ** np.arange(44)  # 5 to 40 ms
    counts = np.array([(highs <= budget).sum() for budget in budgets])
    assert (np.diff(counts) >= 0).all()
    assert np.diff(counts).max() <= 0.08 * len(highs)
    assert counts[-1] > counts[0]


def test_latencies_below_the_old_floor_differ() -> None:
    priced = price(pool(), ["ms"], SpeedModel.load([], "RTX 4090"), "luma", 150)
    values = [each.costs["ms"].value for each in priced if "ms" in each.costs]
    fast = sorted({round(value, 3) for value in values if value < 6})
    assert len(fast) > 50


def test_no_number_spans_more_than_a_factor_of_ten() -> None:
    for device in ("Jetson Orin", "T4", "H100/eager", "V100"):
        for kind in ("ms", "images_per_second", "gpu_hours"):
            for each in price(pool()[:400], [kind], SpeedModel.load([], device), "luma", 150):  # type: ignore[list-item]
                quantity = each.costs.get(kind)  # type: ignore[call-overload]
                assert quantity is None or quantity.high <= WIDEST * quantity.low


def test_a_prediction_by_specification_says_so() -> None:
    said = SpeedModel.load([], "H100").quantity("ms", VIT_B)
    assert said is not None
    assert said.origin == "predicted"
    assert said.extrapolated
    assert "by specification" in said.note
    assert "by specification" in SpeedModel.load([], "H100").basis
    measured = SpeedModel.load([], "RTX 4090").quantity("ms", VIT_B)
    assert measured is not None
    assert "by specification" not in measured.note
    assert said.high / said.low > measured.high / measured.low


def test_a_runtime_may_follow_the_name() -> None:
    eager, compiled = (
        SpeedModel.load([], f"H100/{each}").quantity("ms", Workload("resnet18", 224, macs=2_000_000_000))
        for each in ("eager", "compile")
    )
    assert eager is not None
    assert compiled is not None
    assert eager.value > 1.3 * compiled.value


def test_an_unknown_device_names_near_ones_and_commands_that_run() -> None:
    with pytest.raises(UnknownName, match=r"no device 'H1000'; nearest: H100") as raised:
        SpeedModel.load([], "H1000")
    assert "--device-spec" in str(raised.value)
    assert "\n" not in str(raised.value)


SPEC = 'name = "my card"\nfp16_tflops = 100\nbandwidth_gbs = 500\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SPEC.replace("500", "-500"), "line 3: bandwidth_gbs is -500"),
        (SPEC.replace("500", '"500 GB/s"'), "line 3: bandwidth_gbs is '500 GB/s'"),
        (SPEC.replace("500", "5e11"), "line 3: bandwidth_gbs is .* 10\\^9 bytes/s"),
        (SPEC.replace("500", "nan"), "line 3: bandwidth_gbs is nan"),
        (SPEC.replace("500", "true"), "line 3: bandwidth_gbs is True"),
        (SPEC.replace("fp16_tflops = 100\n", ""), "fp16_tflops is missing"),
        (SPEC.replace("name", "nme"), "line 1: nme is no key of a device; did you mean name"),
        (SPEC.replace("= 100", "100"), "is not TOML.*line 2"),
    ],
)
def test_a_wrong_specification_is_one_line_that_names_the_place(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "card.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=problem) as raised:
        read_spec(file)
    assert "\n" not in str(raised.value)


def test_a_specification_of_ones_own_is_used(tmp_path: Path) -> None:
    file = tmp_path / "card.toml"
    file.write_text(SPEC, encoding="utf-8")
    speed = SpeedModel.load([], spec=read_spec(file))
    assert speed.device_name == "my card"
    fast = SpeedModel.load([], spec=twice(read_spec(file), 4))
    slow_ms, fast_ms = (
        each.quantity("ms", Workload("vit_large_patch16_dinov3", 1024, macs=2_174_000_000_000))
        for each in (speed, fast)
    )
    assert slow_ms is not None
    assert fast_ms is not None
    assert 2 < slow_ms.value / fast_ms.value < 4.2


COMMAND = re.compile(r"(?:run:?|machine:|try:|^#?  +)\s*(luma [^;,\n]*?)(?= on that machine|[;,\n]|$)", re.MULTILINE)


@pytest.mark.parametrize("device", ["H100", "Jetson Orin", "T4", "RTX 4090", "H1000", "my laptop", "cuda", "cuda:1"])
@pytest.mark.parametrize("budget", ["2J", "30fps", "8GiB", "1ms"])
def test_every_command_that_a_device_answer_prints_can_be_parsed(
    device: str, budget: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = typer.main.get_command(app)
    given = ["recommend", "--budget", budget, "--device", device, "--db", str(tmp_path / "luma.db")]
    try:
        command.main(given, standalone_mode=False)
    except LumaError as error:
        said = str(error)
    except (SystemExit, typer.Exit):
        said = ""
    else:
        said = ""
    output = capsys.readouterr()
    for found in COMMAND.findall(said + output.err + output.out):
        words = shlex.split(found.rstrip("."))[1:]
        if "NAME" in words:
            words[words.index("NAME")] = "vit_s.dinov3"
        parse(command, words)
    assert budget != "2J" or COMMAND.findall(said)
    named = device not in ("cuda", "cuda:1")
    assert not (named and "luma profile" in said and f"--device {device}" in said)


def parse(command: object, words: list[str]) -> None:
    context = command.make_context("luma", list(words), resilient_parsing=False)  # type: ignore[attr-defined]
    name, chosen, rest = command.resolve_command(context, [*context._protected_args, *context.args])  # type: ignore[attr-defined]  # noqa: SLF001
    chosen.make_context(name, rest)


def test_workloads_of_every_head_have_kernels() -> None:
    for head in ("luma", "eomt", "linear", "none"):
        config = HeadConfig(name=head)  # type: ignore[arg-type]
        load = workload(pool()[0], config.name, 150)
        assert SpeedModel.load([], "T4", head=config.name).quantity("ms", load) is not None


def test_an_estimate_without_a_time_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["estimate", "vit_b.dinov3", "--res", "512", "--device", "cuda", "--db", str(tmp_path / "luma.db")]
    typer.main.get_command(app).main(given, standalone_mode=False)
    assert "not known; luma profile vit_b.dinov3" in capsys.readouterr().out


def test_every_costed_architecture_has_counted_kernels() -> None:
    counted = {row["architecture"]: row for row in files.read_csv(files.root() / "profiles" / "kernels.csv")}
    assert set(counted) == {architecture for architecture, _ in load_costs()}
    assert all(0 < int(row["fused"]) < int(row["kernels"]) for row in counted.values())
