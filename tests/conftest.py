"""Every test runs with an empty home, no network and no database but its own."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from hypothesis import settings

# Fixtures and test processes must never reach a hub, whatever the machine's settings.
os.environ["HF_HUB_OFFLINE"] = "1"
# Subprocesses find the package from any folder, also in a checkout where it is not installed.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).resolve().parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)
# A pytest started in the background of a script ignores Ctrl-C, and would hand that on to every luma that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No deadline: a busy machine is no fault of the code. The same examples every time: a failure can be repeated.
settings.register_profile("luma", deadline=None, derandomize=True)
settings.load_profile("luma")


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, a cache and a database of the test's own."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("LUMA_DB", str(home / "luma.db"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    return home


@pytest.fixture(autouse=True)
def empty_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a test never sees the `runs/`, `luma.toml` or files of the folder that pytest runs in."""
    folder = tmp_path_factory.mktemp("work")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def kept_fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds the model fitted to the shipped results: a fit takes a second."""
    from luma_cli.accuracy.model import load_model

    folder = tmp_path_factory.mktemp("kept_fit")
    load_model(cache=folder / "luma" / "accuracy")
    return folder


@pytest.fixture
def fitted(isolated: Path, kept_fit: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of a test that asks for predictions from the shipped results."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept_fit))
    return kept_fit


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to open a connection off this machine fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family == socket.AF_UNIX:
            return connect(self, address)  # type: ignore[arg-type]
        raise AssertionError(f"a test tried to connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def memory_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that runs inside the test process leaves its allocator alone: other tests there measure memory."""
    monkeypatch.setattr("luma_cli.data.decode.keep_freed_memory", lambda: None)


@pytest.fixture(autouse=True)
def disks_need_not_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power: what a killed process wrote is there without fsync too, which only costs time here."""
    monkeypatch.setattr(os, "fsync", os.fstat)
