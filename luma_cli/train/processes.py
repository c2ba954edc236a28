"""The processes that train one model together, as torchrun starts them; alone, one process without any of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from luma_cli.errors import UsageError

# A process that died closes its connections at once; this is for one that hangs. Long, as validation may be uneven.
_PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Processes:
    """One process among `num`: `rank` over all machines, `local_rank` on this one."""

    rank: int = 0
    num: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files, rows and the screen."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over all processes, in place."""
        if self.num > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, value: Any) -> Any:
        """The value that the first process passed, in every process."""
        if self.num == 1:
            return value
        carried = [value if self.is_first else None]
        dist.broadcast_object_list(carried)
        return carried[0]

    def take_first(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values of these tensors, in place."""
        if self.num > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def from_all(self, value: Any) -> list[Any]:
        """What every process passed, by rank."""
        if self.num == 1:
            return [value]
        gathered: list[Any] = [None] * self.num
        dist.all_gather_object(gathered, value)
        return gathered

    def wait(self) -> None:
        """Until every process is here."""
        if self.num > 1:
            dist.barrier()


def started(variables: Mapping[str, str] = os.environ) -> Processes:
    """What torchrun's variables say of this process; the only one where there are none.

    Raises UsageError for variables that do not fit together.
    """
    if "RANK" not in variables or "WORLD_SIZE" not in variables:
        return Processes()
    try:
        found = Processes(int(variables["RANK"]), int(variables["WORLD_SIZE"]), int(variables.get("LOCAL_RANK", "0")))
    except ValueError as error:
        raise UsageError(f"RANK, WORLD_SIZE or LOCAL_RANK is no number ({error}); start with torchrun") from error
    if not 0 <= found.rank < found.num:
        raise UsageError(f"RANK is {found.rank} of WORLD_SIZE {found.num}; start with torchrun")
    return found


@contextmanager
def joined(device: torch.device, processes: Processes) -> Iterator[Processes]:
    """The processes connected while the block runs: by NCCL on GPUs, else by gloo."""
    if processes.num == 1:
        yield processes
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield processes
    finally:
        dist.destroy_process_group()
