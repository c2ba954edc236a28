"""Places that lack what a workstation has: locks, shared memory, a home folder, standard streams, NVML, an encoding."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fake_nvml import FakeGpu, FakeNvml
from store_samples import profile

from luma_cli.measure import devices
from luma_cli.measure.nvml import NvmlMissing, load_nvml
from luma_cli.store import database
from luma_cli.store.profiles import save

LUMA = [sys.executable, "-P", "-m", "luma_cli"]
WRAPPED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static int among(int fd, const char *part) {
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, name, sizeof name - 1);
    if (n <= 0) return 0;
    name[n] = 0;
    return strstr(name, "remote") && strstr(name, part);
}
#ifdef NO_LOCKS
#define LOCKS(name) int name(int fd, int cmd, ...) { \
    va_list rest; va_start(rest, cmd); void *last = va_arg(rest, void *); va_end(rest); \
    if ((cmd == F_SETLK || cmd == F_SETLKW) && among(fd, "")) { errno = ENOLCK; return -1; } \
    return ((int (*)(int, int, ...))dlsym(RTLD_NEXT, #name))(fd, cmd, last); }
LOCKS(fcntl)
LOCKS(fcntl64)
#else
#define MAPS(name) void *name(void *at, size_t size, int mode, int flags, int fd, off_t from) { \
    if (fd >= 0 && among(fd, "-shm")) { errno = ENODEV; return MAP_FAILED; } \
    void *(*real)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, #name); \
    return real(at, size, mode, flags, fd, from); }
MAPS(mmap)
MAPS(mmap64)
#endif
"""


@pytest.fixture(scope="module")
def lacking(tmp_path_factory):
    """Lacking(what) -> environment of a process in whose folders `remote` there are no LOCKS or no SHARED_MEMORY."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")

    def made(what: str) -> dict[str, str]:
        library = tmp_path_factory.mktemp("lacking") / f"{what}.so"
        command = [compiler, "-shared", "-fPIC", f"-DNO_{what}", "-x", "c", "-", "-o", str(library), "-ldl"]
        subprocess.run(command, input=WRAPPED, text=True, check=True)
        return {**os.environ, "LD_PRELOAD": str(library)}

    return made


def filled(folder: Path) -> Path:
    folder.mkdir()
    with closing(database.open_write(folder / "luma.db")) as db:
        save(db, profile())
    return folder / "luma.db"


def luma(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LUMA, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=20)


def test_a_file_system_without_locks_is_named_at_once(lacking, tmp_path):
    file = filled(tmp_path / "remote")
    done = luma(lacking("LOCKS"), "db", "info", "--db", file)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no locks" in done.stderr
    assert "LUMA_DB=/tmp/" in done.stderr
    assert "held by" not in done.stderr


def test_without_shared_memory_a_rollback_journal_does(lacking, tmp_path):
    file = filled(tmp_path / "remote")
    query = ("db", "query", "SELECT count(*) FROM profiles", "--db", file)
    done = luma(lacking("SHARED_MEMORY"), *query)
    assert (done.returncode, done.stdout.split()) == (0, ["count(*)", "1"])
    assert luma(dict(os.environ), *query).stdout == done.stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "2>&-"])
def test_a_closed_stream_is_the_null_device(closed):
    command = " ".join([*LUMA, "db", "path", closed])
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("variables", [{"PYTHONUTF8": "0", "LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_a_path_is_printed_whole_in_any_encoding(variables, tmp_path):
    done = subprocess.run(
        [*LUMA, "db", "path", "--db", str(tmp_path / "wörk.db")], env={**os.environ, **variables}, capture_output=True
    )
    assert "?" not in done.stdout.decode()
    assert done.stdout.decode().strip().endswith(("wörk.db", r"w\xf6rk.db"))


def test_without_a_home_folder_what_needs_none_works(monkeypatch, tmp_path):
    from luma_cli import files

    def unknown(*_: object) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        monkeypatch.delenv(name)
    assert not files.user_folder("cache").exists()
    monkeypatch.setenv("LUMA_DB", str(tmp_path / "x.db"))
    assert database.path() == tmp_path / "x.db"


def missing() -> None:
    raise NvmlMissing("no library")


def test_cuda_is_found_without_nvml(monkeypatch):
    seen = SimpleNamespace(name="Orin", uuid="aaaa", total_memory=2**34, multi_processor_count=16)
    monkeypatch.setattr(devices, "load_nvml", missing)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: seen)
    found = devices.find("cuda:1", variables={"CUDA_VISIBLE_DEVICES": "3,5"})
    assert devices.worker_variables(found)["CUDA_VISIBLE_DEVICES"] == "5"
    here = devices.here(found, variables={})
    assert (here.identity["device_name"], here.identity["driver"]) == ("Orin", "unknown")
    assert here.provenance["gpu_uuid"] == "GPU-aaaa"
    json.dumps(here.identity, allow_nan=False)


def test_a_slice_of_a_gpu_is_not_the_gpu(monkeypatch):
    class Sliced(FakeNvml):
        def _answers(self, gpu: FakeGpu) -> dict[str, object]:
            return {**super()._answers(gpu), "nvmlDeviceGetMigMode": lambda: [1, 1]}

    def name(nvml: FakeNvml, memory: int = 0) -> str:
        seen = SimpleNamespace(name="x", total_memory=memory, multi_processor_count=14)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(memory))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: seen)
        loaded = load_nvml(nvml)
        return devices.here(devices.find("cuda", loaded, {}), loaded, {}).identity["device_name"]

    gpu = FakeGpu()
    assert name(FakeNvml(gpu)) == gpu.name
    assert name(Sliced(gpu)) == f"{gpu.name} MIG slice (unknown)"
    assert name(Sliced(gpu), 5 * 2**30) == f"{gpu.name} MIG slice (14 SMs, 5 GiB)"


def test_an_export_shares_no_folder_host_or_setting(tmp_path):
    row = profile(weights="/home/somebody/weights/own.pth")
    with closing(database.open_write(tmp_path / "x.db")) as db:
        save(db, row)
    done = luma(dict(os.environ), "db", "export", "--shareable", "--db", tmp_path / "x.db")
    assert "own.pth" in done.stdout
    assert "somebody" not in done.stdout
    assert not {"device_uuid", "environment"} & set(done.stdout.splitlines()[0].split(","))


@pytest.mark.parametrize("line", [b'{"metrics": 5}', b'{"Stage": {"text": 5}}', b"[" * 100_000, b"9" * 5000])
def test_what_is_no_message_is_an_error_of_reading(line):
    from luma_cli.measure.runner import Stage, load

    with pytest.raises((ValueError, AttributeError, StopIteration, RecursionError)):
        load(line, (Stage,))


def test_a_head_may_be_named(fitted):
    from luma_cli import cost
    from luma_cli.catalogue.heads import HeadConfig

    assert cost("vit_b", 512, head="eomt") == cost("vit_b", 512, HeadConfig(name="eomt"))


def test_a_wide_interval_is_printed_by_its_ends():
    from luma_cli.report.profiles import profile_table
    from luma_cli.store.records import Metric

    def cell(median: float, low: float, high: float) -> str:
        metric = Metric("throughput", "images/s", median, low, high, 10)
        return profile_table([profile(metrics={"throughput": metric})]).rows[0][5]

    assert cell(60.4, 5.0, 420.0) == "60 (5 to 420)"
    assert cell(1500.4, 1490.0, 1533.0) == "1,500 ±30"


@pytest.mark.parametrize("asked", ["vit_b --res 512x1024", "swin_t --res 513x1025", "convnext_b --res 724"])
def test_what_estimate_proposes_runs(asked, fitted, capsys):
    from luma_cli.cli.app import run

    assert run(["estimate", *asked.split(), "--dataset", "cityscapes"]) == 0
    said = capsys.readouterr().out
    proposed = said.split("try luma ")[1].split("\n")[0].split()
    # any head but luma's needs no more than the size to be right
    assert run([*proposed, "--head", "none"]) == 0


def test_the_snapshot_stands_beside_two_claims():
    from luma_cli.evidence.evidence import load_reference, load_snapshot
    from luma_cli.findings.snapshot import snapshot_notes

    found = {each.backbone: each.miou_percent for each in load_snapshot()}
    assert found["vit_s16"] == {224: 33.45, 384: 36.99, 512: 38.3}
    assert not {"coat_tiny", "nextvit_s", "nystrom_s32"} & found.keys()
    assert 224 not in found["swin_b"]  # copied to the digit
    assert "linformer_s 38.0, 31.0, 2.0" in snapshot_notes("mixers")[0]
    assert "low trust" in snapshot_notes("split")[0]
    assert not any("snapshot" in row.source for row in load_reference())
