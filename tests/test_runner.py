"""A worker may crash, hang, lie or be killed: each becomes a result, and the rest goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from luma_cli.catalogue.names import resolve
from luma_cli.measure import imports, runner, sweep
from luma_cli.measure.runner import Options, Result
from luma_cli.store.records import Configuration

CONFIGURATIONS = [Configuration("test_vit", "test_vit", resolution) for resolution in (64, 96, 128)]

# What every stand-in for the worker can do: read options and jobs, say stages, give results.
PRELUDE = """
import ctypes, json, os, signal, sys, time
fd = int(sys.argv[sys.argv.index("--events") + 1])
options = json.loads(sys.stdin.readline())["Options"]
jobs = (json.loads(line)["Configuration"] for line in sys.stdin)
def say(**message): os.write(fd, json.dumps(message).encode() + b"\\n")
def give(status="ok", **values):
    result = dict(status=status, reason="", batch=1, facts={}, metrics={}, notes={}, provenance={}, seconds=0.5)
    say(Result={**result, **values})
say(Stage={"text": "working"})
"""


def stand_in(folder: Path, body: str) -> list[str]:
    script = folder / "worker.py"
    script.write_text(PRELUDE + textwrap.dedent(body))
    return [sys.executable, str(script)]


def results(command: list[str], count: int = 1, timeout_seconds: float = 20.0) -> list[Any]:
    run = runner.run(CONFIGURATIONS[:count], Options(), (Result,), timeout_seconds=timeout_seconds, command=command)
    return [result for _, result in run]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "killed by SIGSEGV, while working"),
        ("ctypes.string_at(0)", "crashed", "killed by SIGSEGV, while working"),
        ("os.abort()", "crashed", "killed by SIGABRT, while working"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed", "killed by SIGKILL, while working"),
        ("os._exit(3)", "crashed", "ended with exit code 3 and no result, while working"),
        ("sys.exit(0)", "crashed", "ended with exit code 0 and no result, while working"),
        ("os.write(fd, b'hello\\n')", "failed", "the worker wrote 'hello' instead of a message, while working"),
        ("os.write(fd, b'[1]\\n')", "failed", "the worker wrote '[1]' instead of a message, while working"),
        ("say(Result={'status': 'ok'})", "failed", "instead of a message, while working"),
    ],
)
def test_trouble_is_a_result(tmp_path: Path, body: str, status: str, reason: str) -> None:
    (result,) = results(stand_in(tmp_path, body))
    assert (result.status, reason in result.reason) == (status, True), result
    assert result.seconds > 0


def test_the_end_of_stderr_is_kept(tmp_path: Path) -> None:
    body = "print('x' * 10_000 + 'last words', file=sys.stderr, flush=True); os._exit(1)"
    (result,) = results(stand_in(tmp_path, body))
    assert result.stderr_tail.endswith("last words\n")
    assert len(result.stderr_tail) == 4000


def test_what_a_backbone_prints_does_not_disturb(tmp_path: Path) -> None:
    (result,) = results(stand_in(tmp_path, "print('{\"kind\": 1}'); give()"))
    assert result.status == "ok"


def test_a_hang_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    body = f"""
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
    time.sleep(600)
    """
    start = time.monotonic()
    (result,) = results(stand_in(tmp_path, body), timeout_seconds=1.5)
    assert result.status == "timeout"
    assert result.reason == "no result after 1.5 s, while working"
    assert time.monotonic() - start < 10
    worker, child = map(int, (tmp_path / "pids").read_text().split())
    assert not Path(f"/proc/{worker}").exists()
    assert gone(child)


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether the process ends soon; an orphan may stay a zombie of init for a moment."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_finished_worker_that_does_not_leave_keeps_its_result_and_is_killed(tmp_path: Path) -> None:
    start = time.monotonic()
    body = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); give(); time.sleep(600)"
    (result,) = results(stand_in(tmp_path, body))
    assert result.status == "ok"
    assert time.monotonic() - start < 10
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_a_finished_worker_has_a_moment_to_clean_up(tmp_path: Path) -> None:
    body = f"""
    for configuration in jobs:
        give()
    time.sleep(0.3)
    open({str(tmp_path / "left")!r}, "w").write("clean")
    """
    (result,) = results(stand_in(tmp_path, body))
    assert result.status == "ok"
    assert (tmp_path / "left").read_text() == "clean"


def test_a_worker_that_leaves_at_once_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = """
    for configuration in jobs:
        give(notes={"at": time.monotonic()})
    os._exit(0)
    """
    monkeypatch.setattr(runner, "_LEAVE_SECONDS", 30.0)
    (result,) = results(stand_in(tmp_path, body))
    assert time.monotonic() - result.notes["at"] < 1


def test_a_crash_after_the_result_does_not_undo_it(tmp_path: Path) -> None:
    (result,) = results(stand_in(tmp_path, "give(); os.abort()"))
    assert result.status == "ok"


def test_the_rest_of_a_group_goes_to_a_fresh_worker(tmp_path: Path) -> None:
    body = """
    for configuration in jobs:
        if configuration["resolution"] == 96:
            os.kill(os.getpid(), signal.SIGSEGV)
        give(notes={"pid": os.getpid()})
    """
    first, second, third = results(stand_in(tmp_path, body), 3)
    assert [r.status for r in (first, second, third)] == ["ok", "crashed", "ok"]
    assert first.notes["pid"] != third.notes["pid"]


def test_each_configuration_has_its_own_time(tmp_path: Path) -> None:
    body = """
    for configuration in jobs:
        time.sleep(0.5); give()
    """
    assert [r.status for r in results(stand_in(tmp_path, body), 3, timeout_seconds=1.3)] == ["ok"] * 3


def test_closing_the_run_kills_the_worker(tmp_path: Path) -> None:
    body = f"""
    open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
    give(); time.sleep(600)
    """
    with closing(
        runner.run(CONFIGURATIONS, Options(), (Result,), timeout_seconds=60, command=stand_in(tmp_path, body))
    ) as run:
        next(run)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()


def test_no_file_descriptor_is_left(tmp_path: Path) -> None:
    command = stand_in(tmp_path, "give()")
    results(command)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        results(command)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_parent_sleeps_while_it_waits(tmp_path: Path) -> None:
    before = time.process_time()
    results(stand_in(tmp_path, "time.sleep(1.5); give()"))
    assert time.process_time() - before < 0.3


def test_a_kill_counted_by_the_kernel_is_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = tmp_path / "vmstat"
    counter.write_text("pgfault 7\noom_kill 2\n")
    monkeypatch.setattr(runner.oom_kills, "__defaults__", ((str(counter), str(tmp_path / "absent")),))
    body = f"""
    open({str(counter)!r}, "w").write("pgfault 9\\noom_kill 3\\n")
    os.kill(os.getpid(), signal.SIGKILL)
    """
    (result,) = results(stand_in(tmp_path, body))
    assert result.status == "oom"
    assert "killed by the kernel" in result.reason


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_real_worker_dies_with_its_parent(tmp_path: Path, end: signal.Signals) -> None:
    """The parent is killed while its worker sleeps in a module that it was asked to import."""
    slow = tmp_path / "slow.py"
    slow.write_text(f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    script = f"""
    from luma_cli.measure import imports, runner
    from luma_cli.measure.runner import Options
    from luma_cli.store.records import Configuration
    options = Options(imports=(imports.find({str(slow)!r}),))
    list(runner.run([Configuration("test_vit", "test_vit", 64)], options, (), timeout_seconds=60))
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.05)
    os.kill(parent.pid, end)
    parent.wait(10)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_request_survives_the_pipe() -> None:
    configurations = sweep.plan([resolve("test_vit"), resolve("vit_b.dinov3")], [64], sweep.template(tag="mine"))
    options = Options(num_threads=2, imports=(imports.find(__file__),))
    for message in (*configurations, options):
        found = runner.load(runner.dump(message), (Configuration, Options))
        assert asdict(found) == asdict(message)  # the spec, which does not count when configurations are compared
        assert found == message


def test_a_result_survives_the_pipe() -> None:
    from luma_cli.measure.timing import summarise

    metric = summarise("throughput", "images/s", [0.1, 1 / 3, 2.5])
    result = Result("ok", "", 8, {"ffn": "reused"}, {"throughput": metric}, {"n": 1}, {}, 2.0)
    assert runner.load(runner.dump(result), (Result,)) == result


def test_what_is_no_number_does_not_pass_the_pipe() -> None:
    with pytest.raises(ValueError, match="JSON"):
        runner.dump(Result("ok", notes={"seconds": float("nan")}))


def test_two_workers_share_the_jobs_and_each_does_one_at_a_time(tmp_path: Path) -> None:
    body = """
    for configuration in jobs:
        time.sleep(1.0 if configuration["resolution"] == 64 else 0.1)
        give(notes={"pid": os.getpid(), "side": configuration["resolution"]})
    """
    options, command = Options(), stand_in(tmp_path, body)
    run = runner.run(CONFIGURATIONS, options, (Result,), timeout_seconds=20, num_workers=2, command=command)
    found = list(run)
    assert [index for index, _ in found] == [1, 2, 0]
    assert [CONFIGURATIONS[index].resolution for index, _ in found] == [each.notes["side"] for _, each in found]
    assert found[0][1].notes["pid"] == found[1][1].notes["pid"] != found[2][1].notes["pid"]
