"""Signals leave a note; the second Ctrl-C stops at once; the handlers of before come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from luma_cli.train.processes import StopRequests


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGINT", 130)])
def test_a_signal_is_noted_and_has_its_exit_code(number, code):
    with StopRequests() as stop:
        assert (stop.requested, stop.exit_code) == ("", 0)
        os.kill(os.getpid(), getattr(signal, number))
        assert (stop.requested, stop.exit_code) == (number, code)
    assert stop.requested == number


def test_the_second_ctrl_c_stops_at_once():
    with StopRequests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_after_a_request_to_end_stops_at_once():
    """A node that is taken back sends SIGTERM; the person who then presses Ctrl-C does not want to wait."""
    with StopRequests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.exit_code == 143
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_of_before_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    with StopRequests():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == before


def test_another_thread_gets_no_handlers_and_no_error():
    found = []

    def use() -> None:
        with StopRequests() as stop:
            found.append(stop.requested)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [""]


LOOP = """
import sys, time
from luma_cli.train.processes import StopRequests
with StopRequests() as stop:
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
print(stop.requested, flush=True)
sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)])
def test_a_process_finishes_its_step_and_says_so(number, code):
    process = subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert (output, process.returncode) == (f"{signal.Signals(number).name}\n", code)


def test_a_signal_is_acknowledged_at_once_where_asked(capfd):
    with StopRequests(aloud=True):
        os.kill(os.getpid(), signal.SIGINT)
        assert "stopping after this step" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGTERM)
        assert capfd.readouterr().err == ""
    with StopRequests():
        os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr().err == ""
