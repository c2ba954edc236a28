"""A sweep keeps each result as it ends, skips what is kept, survives Ctrl-C and kill -9."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BadResolution, UsageError
from luma_cli.measure import sweep
from luma_cli.measure.cost import Found, Refusal
from luma_cli.measure.sweep import never_applicable
from luma_cli.store.records import Configuration, Environment, Profile

HERE = Environment({"device": "cpu", "device_name": "made up", "num_threads": 1}, {"host": "here"})
SPECS = [BackboneSpec(name, name, name) for name in ("test_vit", "test_convnext")]

WORKER = """
import json, os, signal, sys, time
fd = int(sys.argv[sys.argv.index("--events") + 1])
options = json.loads(sys.stdin.readline())["Options"]
log = open({log!r}, "a")
for c in (json.loads(line)["Configuration"] for line in sys.stdin):
    key = f"{{c['timm_name']}}@{{c['resolution']}}"
    print(key, os.getpid(), file=log, flush=True)
    {body}
    result = dict(status="ok", reason="", batch=4, facts={{}}, metrics={{}}, notes={{"pid": os.getpid()}},
                  provenance={{"threads": 1}}, seconds=0.25)
    os.write(fd, json.dumps(dict(Result=result)).encode() + b"\\n")
"""


class Memory:
    """A store that forgets nothing."""

    def __init__(self) -> None:
        self.saved: list[Profile] = []

    def save(self, profile: Profile) -> Profile:
        self.saved.append(profile)
        return profile

    def latest(self, fingerprints: list[str]) -> Mapping[str, Profile]:
        return {p.fingerprint: p for p in self.saved if p.fingerprint in fingerprints}


def no_facts(configurations: Sequence[Configuration], imported: Sequence[str]) -> list[Found]:
    return [{"macs": 7} for _ in configurations]


def plan(*resolutions: int, **fields: Any) -> list[Configuration]:
    return sweep.plan(SPECS, resolutions or (64, 96), sweep.template(**fields))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def command(log: Path, body: str = "pass") -> list[str]:
    script = log.with_suffix(f".{abs(hash(body))}.py")
    script.write_text(WORKER.format(log=str(log), body=body))
    return [sys.executable, str(script)]


def measured(log: Path) -> list[str]:
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def run(configurations: list[Configuration], worker: list[str], store: Memory, **settings: Any) -> list[Profile]:
    return sweep.measure_all(
        configurations, sweep.SweepSettings(**settings), store=store, facts=no_facts, here=HERE, command=worker
    )


ALL = ["test_vit@64", "test_vit@96", "test_convnext@64", "test_convnext@96"]


def test_profiles_come_in_the_order_of_the_plan_and_are_kept(log: Path) -> None:
    store = Memory()
    profiles = run(plan(), command(log), store)
    assert measured(log) == ALL
    assert profiles == store.saved
    assert [(p.configuration.backbone, p.configuration.resolution) for p in profiles] == [
        (name, size) for name in ("test_vit", "test_convnext") for size in (64, 96)
    ]
    first = profiles[0]
    assert (first.status, first.batch, first.facts["macs"], first.seconds) == ("ok", 4, 7, 0.25)
    assert first.environment.provenance == {"host": "here", "threads": 1}
    assert first.environment.identity == HERE.identity


def test_the_same_command_again_measures_nothing(log: Path) -> None:
    store, worker = Memory(), command(log)
    first = run(plan(), worker, store)
    assert run(plan(), worker, store) == first
    assert measured(log) == ALL


def test_only_the_gap_is_filled(log: Path) -> None:
    store, worker = Memory(), command(log)
    run(plan(64), worker, store)
    run(plan(64, 96), worker, store)
    assert measured(log) == ["test_vit@64", "test_convnext@64", "test_vit@96", "test_convnext@96"]


def test_what_crashed_is_a_gap(log: Path) -> None:
    store = Memory()
    profiles = run(plan(), command(log, "if c['resolution'] == 96: os._exit(9)"), store)
    assert [p.status for p in profiles] == ["ok", "crashed"] * 2
    log.unlink()
    assert [p.status for p in run(plan(), command(log), store)] == ["ok"] * 4
    assert measured(log) == ["test_vit@96", "test_convnext@96"]


def test_again_measures_all_or_what_failed(log: Path) -> None:
    store = Memory()
    run(plan(), command(log), store)
    store.saved = [replace(p, status="oom") if p.configuration.resolution == 96 else p for p in store.saved]
    log.unlink()
    assert [p.status for p in run(plan(), command(log), store)] == ["ok", "oom"] * 2
    assert measured(log) == []
    assert [p.status for p in run(plan(), command(log), store, again="failed")] == ["ok"] * 4
    assert measured(log) == ["test_vit@96", "test_convnext@96"]
    log.unlink()
    run(plan(), command(log), store, again="all")
    assert measured(log) == ALL


def test_a_size_that_does_not_fit_is_a_row_unless_nothing_fits(log: Path) -> None:
    def facts(configurations: Sequence[Configuration], imported: Sequence[str]) -> list[Found]:
        return [{} if c.resolution == 64 else Refusal("BadResolution", "try --res 64") for c in configurations]

    def sized(*resolutions: int) -> list[Profile]:
        return sweep.measure_all(plan(*resolutions), store=Memory(), facts=facts, here=HERE, command=command(log))

    assert [(p.status, p.reason) for p in sized(64, 65)] == [("ok", ""), ("not_applicable", "try --res 64")] * 2
    assert measured(log) == ["test_vit@64", "test_convnext@64"]
    with pytest.raises(BadResolution, match="try --res 64"):
        sized(65)


def test_isolation_decides_who_shares_a_process(log: Path) -> None:
    def processes(isolation: str) -> list[int]:
        profiles = run(plan(), command(log), Memory(), isolation=isolation)
        pids = [p.notes["pid"] for p in profiles]
        return [pids.index(pid) for pid in pids]

    assert processes("config") == [0, 1, 2, 3]
    assert processes("backbone") == [0, 0, 2, 2]


def test_two_names_of_one_thing_are_measured_once(log: Path) -> None:
    specs = [BackboneSpec("vit_b", "test_vit", "test_vit"), BackboneSpec("test_vit", "test_vit", "test_vit")]
    store = Memory()
    profiles = run(sweep.plan(specs, [64], sweep.template()), command(log), store)
    assert measured(log) == ["test_vit@64"]
    assert len(store.saved) == 1
    assert [p.configuration.backbone for p in profiles] == ["vit_b", "test_vit"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"attention": "flash"}, "attention flash runs on CUDA only, device is cpu"),
        ({"attention": "cudnn"}, "attention cudnn runs on CUDA only, device is cpu"),
        ({"attention": "flash-attn"}, "attention flash-attn runs on CUDA only, device is cpu"),
    ],
)
def test_what_can_never_run_starts_nothing(log: Path, fields: dict[str, Any], reason: str) -> None:
    profiles = run(plan(64, **fields), command(log), Memory())
    assert [p.status for p in profiles] == ["not_applicable"] * 2
    assert profiles[0].reason.startswith(reason)
    assert measured(log) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"attention": "flash"}, "attention flash supports float16 and bfloat16 only, dtype is float32"),
        ({"attention": "cudnn"}, "attention cudnn supports float16 and bfloat16 only, dtype is float32"),
        (
            {"attention": "flash-attn", "dtype": "float16", "compile": "default"},
            "attention flash-attn works in eager mode only",
        ),
        ({"attention": "flash-attn", "dtype": "float16"}, ""),
        ({"attention": "efficient"}, ""),
        ({"attention": "math", "device": "cpu"}, ""),
        ({"attention": "unfused", "device": "cpu"}, ""),
    ],
)
def test_which_attention_can_never_run(fields: dict[str, Any], reason: str) -> None:
    (configuration, *_) = plan(64, **{"device": "cuda:1", **fields})
    assert configuration.device in ("cpu", "cuda")
    found = never_applicable(configuration)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_a_plan_for_another_device_is_refused(log: Path) -> None:
    with pytest.raises(UsageError, match="planned for cuda, to run on cpu"):
        run(plan(64, device="cuda"), command(log), Memory())


def test_facts_that_cannot_be_had_are_said(log: Path) -> None:
    def failing(configurations: Sequence[Configuration], imported: Sequence[str]) -> list[Found]:
        return [Refusal("MeasureError", "cannot count this")]

    (profile,) = sweep.measure_all(plan(64)[:1], store=Memory(), facts=failing, here=HERE, command=command(log))
    assert profile.status == "ok"
    assert profile.notes["facts_missing"] == "cannot count this"


def test_events_tell_what_happens_and_how_long_it_takes(log: Path) -> None:
    events: list[sweep.Event] = []
    store, worker = Memory(), command(log)
    sweep.measure_all(plan(64), store=store, facts=no_facts, here=HERE, command=worker, on_event=events.append)
    assert [(e.kind, e.index, e.total, e.eta_seconds) for e in events] == [
        ("stage", 0, 2, None),
        ("finished", 0, 2, 0.25),
        ("finished", 1, 2, 0.0),
    ]
    events.clear()
    sweep.measure_all(plan(64), store=store, facts=no_facts, here=HERE, command=worker, on_event=events.append)
    assert [e.kind for e in events] == ["kept", "kept"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "int8"}, "--dtype int8 is unknown, expected one of: float32, bfloat16, float16"),
        ({"attention": "fast"}, "--attention fast"),
        ({"compile": "max"}, "--compile max"),
        ({"channels_last": "yes"}, "--channels-last yes"),
        ({"part": "neck"}, "--part neck"),
        ({"batch": -1}, "--batch -1"),
    ],
)
def test_choices_that_do_not_exist_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(**fields)


@pytest.mark.parametrize(
    "settings", [{"timeout_seconds": 0}, {"timeout_seconds": float("nan")}, {"max_seconds": -1}, {"isolation": "vm"}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        sweep.SweepSettings(**settings)


def test_cuda_without_cuda_is_refused_before_anything_starts(log: Path) -> None:
    with pytest.raises(UsageError, match="try --device cpu"):
        sweep.measure_all(plan(device="cuda"), sweep.SweepSettings(device="cuda:9"), command=command(log))
    assert measured(log) == []


def test_an_import_is_found_hashed_and_part_of_the_identity(log: Path, tmp_path: Path) -> None:
    store, module = Memory(), tmp_path / "mine.py"
    worker = command(log, "assert options['imports'][0]['path'].endswith('mine.py')")
    module.write_text("x = 1\n")
    run(plan(64), worker, store, imports=(str(module),))
    run(plan(64), worker, store, imports=(str(module),))
    assert len(store.saved) == 2
    module.write_text("x = 2\n")
    profiles = run(plan(64), worker, store, imports=(str(module),))
    assert len(store.saved) == 4
    assert len(profiles[0].configuration.backbone_hash) == 64
    with pytest.raises(UsageError, match="no such file"):
        run(plan(64), worker, store, imports=(str(tmp_path / "other.py"),))


SWEEP = """
import json, sys
from luma_cli.measure import sweep
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.store.records import Environment

class Lines:
    def save(self, profile):
        with open({kept!r}, "a") as file:
            print(profile.fingerprint, file=file, flush=True)
    def latest(self, fingerprints):
        return {{}}

here = Environment({identity!r})
specs = [BackboneSpec(name, name, name) for name in ("test_vit", "test_convnext")]
configurations = sweep.plan(specs, (64, 96), sweep.template())
try:
    sweep.measure_all(configurations, store=Lines(), facts=lambda c, i: [{{}}] * len(c), here=here, command={command!r})
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, -15)])
def test_an_end_in_the_middle_keeps_what_is_finished(log: Path, tmp_path: Path, sent: int, code: int) -> None:
    worker = command(log, "time.sleep(600 if key == 'test_convnext@64' else 0)")
    kept = tmp_path / "kept"
    script = textwrap.dedent(SWEEP.format(kept=str(kept), identity=HERE.identity, command=worker))
    parent = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 30
    while len(measured(log)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.send_signal(sent)
    assert parent.wait(10) == code
    expected = [Profile(c, HERE, "ok").fingerprint for c in plan()[:2]]
    assert kept.read_text().split() == expected
    if sent == signal.SIGINT:
        assert not Path(f"/proc/{log.read_text().splitlines()[2].split()[1]}").exists()
    else:
        # These stand-ins do not watch their parent as the real worker does.
        subprocess.run(["kill", "-9", log.read_text().splitlines()[2].split()[1]], check=True)


def test_planning_and_skipping_need_no_torch() -> None:
    script = (
        "import sys, luma_cli.measure.sweep as s; s.devices.here(s.devices.find('cpu'));"
        "print('torch' in sys.modules or 'timm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_identity_is_plain_json() -> None:
    from luma_cli.measure import devices

    here = devices.here(
        devices.find("cpu"), variables={"OMP_NUM_THREADS": "3", "TORCH_HF_TOKEN": "x", "CUDA_API_KEY": "y"}
    )
    assert here.identity["num_threads"] == 3
    assert here.provenance["variables"] == {"OMP_NUM_THREADS": "3"}
    assert json.loads(json.dumps(here.identity)) == here.identity


@pytest.mark.parametrize(
    ("name", "fields", "pinned"),
    [
        ("test_vit", {}, "702393c0b71edb6fc3485a7ad87e18e320f1f6f2563fa639555ebc0b3a3d9834"),
        ("vit_b.dinov3", {}, "392312366719b936be7521b40f8361227b5ecdeee97f87b17051d2318801674a"),
        (
            "swin_t",
            {
                "head": HeadConfig(name="eomt"),
                "dtype": "bfloat16",
                "batch": 4,
                "attention": "math",
                "tag": "t",
                "train_memory": True,
            },
            "18a228fdb32af438f035f878f026eeece557a8ee4992fe9b432f33bb429d56cb",
        ),
    ],
)
def test_fingerprints_stay_and_leave_out_the_resolved_backbone(name: str, fields: dict[str, Any], pinned: str) -> None:
    identity = {"device": "cpu", "device_name": "made up", "num_threads": 1, "torch": "2", "timm": "1"}
    (planned,) = sweep.plan([resolve(name)], [64], sweep.template(**fields))
    assert planned.spec == resolve(name)
    for configuration in (planned, replace(planned, spec=None)):
        assert Profile(configuration, Environment(identity), "ok").fingerprint == pinned
    assert "spec" not in planned.stored()
