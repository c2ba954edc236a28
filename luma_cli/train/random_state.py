"""The state of torch's own generators, for what a backbone draws by itself (dropout, stochastic depth).

Everything that luma draws is keyed by (seed, step, ...) and needs no state: see `luma_cli.seeds`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from luma_cli.train.run_lock import RunWarning

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
