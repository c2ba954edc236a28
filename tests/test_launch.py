"""`--gpus N` is torchrun with the same arguments; more GPUs than present are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from luma_cli.errors import UsageError
from luma_cli.train.processes import torchrun_command, without_gpus


def test_the_same_arguments_run_in_n_processes():
    command = torchrun_command(["train", "vit_b", "--gpus", "2", "--data", "ade20k"], 2, present=4)
    assert command == [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
        "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
        *("-m", "luma_cli", "train", "vit_b", "--data", "ade20k"),
    ]


@pytest.mark.parametrize("spelling", [["--gpus", "3"], ["--gpus=3"]])
def test_the_option_is_left_out_wherever_it_stands(spelling):
    assert without_gpus([*spelling, "train", "--seed", "3"]) == ["train", "--seed", "3"]
    assert without_gpus(["train", "--seed", "3", *spelling]) == ["train", "--seed", "3"]


@pytest.mark.parametrize(
    ("asked", "present", "words"),
    [
        (4, 2, "--gpus 4, but 2 CUDA device.* try --gpus 2"),
        (1, 0, "--gpus 1, but 0 CUDA device.* leave --gpus out"),
        (0, 2, "--gpus 0, expected at least 1"),
        (-1, 2, "--gpus -1, expected at least 1"),
    ],
)
def test_gpus_that_are_not_there_are_refused(asked, present, words):
    with pytest.raises(UsageError, match=words):
        torchrun_command(["train"], asked, present)


OUTER = """
import sys
from luma_cli.train.processes import handing_on
sys.exit(handing_on([sys.executable, "-c", sys.argv[1]]))
"""
INNER = """
import signal, sys, time
signal.signal({number}, lambda *_: (print("saved", flush=True), sys.exit(1)))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("which", "code"),
    [(signal.SIGUSR1, 143), (signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
)
def test_a_signal_is_handed_on_and_the_exit_code_is_that_of_one_process(which, code):
    inner = INNER.format(number=int(which))
    process = subprocess.Popen([sys.executable, "-c", OUTER, inner], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, which)
    assert process.communicate(timeout=30)[0] == "saved\n"
    assert process.returncode == code


@pytest.mark.parametrize(("inner", "code"), [("", 0), ("raise SystemExit(3)", 3), ("import os; os.abort()", 134)])
def test_without_a_signal_the_exit_code_is_handed_back(inner, code):
    assert subprocess.run([sys.executable, "-c", OUTER, inner], check=False).returncode == code
