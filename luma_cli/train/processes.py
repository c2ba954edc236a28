"""The processes that train one model together, as torchrun starts them; alone, one process without any of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from luma_cli.catalogue.recipes import Dtype
from luma_cli.errors import UsageError
from luma_cli.evaluate.inference import autocast_dtype as evaluation_dtype
from luma_cli.measure import devices
from luma_cli.train.run_folder import RunWarning

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


def find_device(name: str, processes: Processes) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means for this process: of several each takes its own GPU.

    Raises UsageError for CUDA without a GPU, and for more processes on this machine than GPUs.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {name} is unknown, expected auto, cpu or cuda")
    present = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not present):
        return torch.device("cpu")
    if not present:
        raise UsageError("--device cuda, but torch sees no GPU here; try --device cpu, or see `luma doctor`")
    if processes.local_rank >= present:
        raise UsageError(
            f"process {processes.local_rank + 1} of this machine needs a GPU of its own, but {present} are here; "
            f"start torchrun with --nproc_per_node {present}, or give --device cpu"
        )
    device = torch.device("cuda", processes.local_rank)
    torch.cuda.set_device(device)
    return device


def autocast_dtype(dtype: Dtype, device: torch.device) -> torch.dtype | None:
    """The number format of the passes, None for float32. Raises UsageError where the device does not train in it."""
    if dtype == "fp16" and device.type == "cpu":
        raise UsageError("--dtype fp16 trains on a GPU alone; on the CPU use bf16 or fp32")
    found = evaluation_dtype(dtype, device)
    return None if found == torch.float32 else found


def peak_bytes(device: torch.device) -> int:
    """Peak memory so far: of torch's allocator on a GPU, of the whole process on a CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else devices.lifetime_peak_bytes()


RandomState = Mapping[str, Tensor]


def random_state(device: torch.device | str) -> dict[str, Tensor]:
    """States of this process's generators: of the CPU and, of a run on one, of its GPU. On the CPU."""
    device = torch.device(device)
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def restore_random_state(states: Sequence[RandomState], rank: int, device: torch.device | str) -> bool:
    """Sets the generators of process `rank` as they were saved; whether the states of that process were there.

    Where they are not, since there were fewer processes or another kind of device, warns RunWarning and sets nothing.
    """
    device = torch.device(device)
    needed = {"cpu", "cuda"} if device.type == "cuda" else {"cpu"}
    if rank >= len(states) or not needed <= set(states[rank]):
        text = f"the checkpoint has no random state for process {rank} on {device.type}"
        warnings.warn(f"{text}: dropout will draw other numbers than without the break", RunWarning, stacklevel=2)
        return False
    torch.set_rng_state(states[rank]["cpu"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[rank]["cuda"].cpu(), device)
    return True
