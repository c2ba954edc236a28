"""`--gpus N`: the same command again under torchrun, one process per GPU. Imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from luma_cli.errors import UsageError
from luma_cli.measure.devices import visible
from luma_cli.measure.nvml import NvmlMissing, load_nvml


def num_gpus_here(variables: Mapping[str, str] = os.environ) -> int:
    """GPUs that CUDA_VISIBLE_DEVICES leaves; 0 without a driver."""
    try:
        return len(visible(load_nvml().uuids(), variables))
    except NvmlMissing:
        return 0


def torchrun_command(arguments: Sequence[str], num_gpus: int, present: int) -> list[str]:
    """The command that starts `luma` with `arguments`, less `--gpus N`, in `num_gpus` processes of this machine.

    Raises UsageError for more GPUs than are present, and for none.
    """
    if num_gpus < 1:
        raise UsageError(f"--gpus {num_gpus}, expected at least 1; leave it out for one process")
    if num_gpus > present:
        remedy = f"try --gpus {present}" if present else "leave --gpus out to train on the CPU"
        raise UsageError(f"--gpus {num_gpus}, but {present} CUDA device(s) are here; {remedy}")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_gpus}"]
    return [*start, "-m", "luma_cli", *without_gpus(arguments)]


def without_gpus(arguments: Sequence[str]) -> list[str]:
    """`arguments` without `--gpus N` or `--gpus=N`.

    >>> without_gpus(["train", "vit_b", "--gpus", "2", "--seed", "1"])
    ['train', 'vit_b', '--seed', '1']
    """
    kept, skip = [], False
    for argument in arguments:
        if skip or argument == "--gpus":
            skip = not skip
        elif not argument.startswith("--gpus="):
            kept.append(argument)
    return kept


def become_torchrun(arguments: Sequence[str], num_gpus: int) -> NoReturn:
    """Replace this process by torchrun, which then gets the signals that were meant for us."""
    command = torchrun_command(arguments, num_gpus, num_gpus_here())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)
