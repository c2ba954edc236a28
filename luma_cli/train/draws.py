"""Random numbers named by a key, e.g. (MATCHING, seed, step, sample, prediction): equal keys draw equal numbers.

So a resumed run, another number of processes or another micro-batch draws the same, on devices of one kind.
"""

from __future__ import annotations

import torch
from torch import Tensor

from luma_cli.seeds import seed_of


def generator(device: torch.device | str, *key: int) -> torch.Generator:
    """A generator on `device` that starts where `key` says."""
    found = torch.Generator(device=device)
    found.manual_seed(seed_of(*key))
    return found


def uniform(shape: tuple[int, ...], device: torch.device | str, *key: int) -> Tensor:
    """Numbers from [0, 1), float32, of `shape`, drawn on `device`."""
    return torch.rand(shape, generator=generator(device, *key), device=device)
