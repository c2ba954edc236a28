"""Steps that do not count: for finding out what a training needs, before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from luma_cli.errors import RunError


@contextmanager
def rehearsal(module: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, whole training steps may be run; afterwards everything is as it was before.

    Put back are parameters, buffers, gradients, modes, learning rates, the optimiser's state, which must be empty yet,
    and torch's random generators. Copies wait in the host's memory. Raises RunError for an optimiser that has stepped.
    """
    if optimizer.state:
        raise RunError("a rehearsal must come before the first step of the optimiser")
    tensors = [*module.parameters(), *module.buffers()]
    before = [tensor.detach().to("cpu", copy=True) for tensor in tensors]
    modes = [(part, part.training) for part in module.modules()]
    rates = [group["lr"] for group in optimizer.param_groups]
    gpus = {tensor.device for tensor in tensors if tensor.is_cuda}  # those of other processes are left alone
    with torch.random.fork_rng(devices=list(gpus)):
        try:
            yield
        finally:
            optimizer.zero_grad(set_to_none=True)
            optimizer.state.clear()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            for part, training in modes:
                part.training = training
            with torch.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
