"""What torchrun says of a process, and a process alone."""

from __future__ import annotations

import pytest
import torch

from luma_cli.errors import UsageError
from luma_cli.train.processes import Processes, joined, started


def test_without_torchrun_there_is_one_process():
    assert started({}) == Processes(0, 1, 0)
    assert started({"RANK": "0"}).num == 1


def test_torchruns_variables_are_read():
    assert started({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Processes(5, 8, 1)


@pytest.mark.parametrize("variables", [{"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}])
def test_variables_that_do_not_fit_are_refused(variables):
    with pytest.raises(UsageError, match="start with torchrun"):
        started(variables)


def test_alone_nothing_is_exchanged():
    with joined(torch.device("cpu"), Processes()) as processes:
        assert processes.sum(torch.tensor([2.0])).item() == 2
        assert processes.from_first("a") == "a"
        assert processes.from_all("a") == ["a"]
        processes.wait()
        assert not torch.distributed.is_initialized()
