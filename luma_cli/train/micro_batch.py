"""The most images that one pass of a process can hold, so that the batch of a step stays what the recipe says.

On a GPU real steps are tried, from the whole batch downwards. On the host running out of memory would take the process
with it, so its need is taken to grow by as much per image as from one small step to one of twice the images.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from luma_cli.errors import RunError
from luma_cli.measure import devices
from luma_cli.measure.accelerator import is_out_of_memory

HOST_SHARE = 0.8  # of the RAM that can be had: steps differ, and others use the machine too

Attempt = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Images per pass at most, passes per step, and how it was found: tried sizes with what came of them."""

    num_images: int
    num_passes: int
    tried: tuple[tuple[int, str], ...] = ()

    def __str__(self) -> str:
        """One line to be stored."""
        trials = ", ".join(f"{num_images}: {outcome}" for num_images, outcome in self.tried)
        return f"{self.num_passes} x {self.num_images} images" + (f" (tried {trials})" if trials else "")


class HostMemory(Protocol):
    """What is asked of the host; the module `measure.devices` is one."""

    def reset_peak(self) -> bool:
        """Start a new peak."""

    def peak_bytes(self) -> int:
        """Highest resident memory since then."""

    def resident_bytes(self) -> int:
        """Resident memory now."""

    def available_bytes(self) -> int:
        """What can be had on top of that."""


def find(attempt: Attempt, num_images: int, device_type: str, *, least: int = 1) -> MicroBatch:
    """The largest pass for a process whose share of a step's batch is `num_images`.

    attempt: runs a whole step of so many images, optimiser included, and leaves no tensor behind; it is to be wrapped
    in `rehearsal`, and to talk to no other process, as one may run out of memory where another does not. least: fewer
    images than these are not tried, for BatchNorms that learn statistics.
    Raises RunError where not even the least fits.
    """
    if device_type == "cuda":
        return by_trying(attempt, num_images, least=least)
    return by_prediction(attempt, num_images, least=least)


def by_trying(attempt: Attempt, num_images: int, *, least: int = 1) -> MicroBatch:
    """The first size of the ladder of which two steps fit: the second meets the optimiser's state. Raises RunError."""
    tried: list[tuple[int, str]] = []
    for size in ladder(num_images, least):
        fits = all(_fits(attempt, size) for _ in range(2))
        tried.append((size, "fits" if fits else "out of memory"))
        if fits:
            return _of(num_images, size, tried)
    raise _too_large(tried[-1][0])


def by_prediction(attempt: Attempt, num_images: int, *, least: int = 1, memory: HostMemory = devices) -> MicroBatch:
    """The largest size of the ladder whose memory, on a line through two measured ones, stays in what can be had.

    Raises RunError where memory runs out at the least size.
    """
    least = min(least, num_images)
    if not _fits(attempt, least):  # and makes the optimiser's state, which is none of an image's need
        raise _too_large(least)
    if num_images < 2 * least:
        return _of(num_images, least, [(least, "fits")])
    limit = memory.resident_bytes() + HOST_SHARE * memory.available_bytes()
    first, second = (_peak(attempt, size, memory) for size in (least, 2 * least))
    per_image = max(0.0, (second - first) / least)
    sizes = ladder(num_images, least)
    found = next((size for size in sizes if second + per_image * (size - 2 * least) <= limit), sizes[-1])
    tried = [(least, f"{first / 2**20:.0f} MiB"), (2 * least, f"{second / 2**20:.0f} MiB")]
    return _of(num_images, found, tried)


def _fits(attempt: Attempt, num_images: int) -> bool:
    """Whether a step of so many images runs; what one that did not run left behind is given back."""
    fits = True
    try:
        attempt(num_images)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    if not fits:  # out of the except block: the error holds the frames, and they the tensors that must go first
        release()
    return fits


def _peak(attempt: Attempt, num_images: int, memory: HostMemory) -> float:
    """Highest resident bytes of a step of so many images; endless where memory ran out."""
    memory.reset_peak()
    return float(memory.peak_bytes()) if _fits(attempt, num_images) else float("inf")


def release() -> None:
    """Drop garbage, and what torch keeps of the GPU for later."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _of(num_images: int, size: int, tried: list[tuple[int, str]]) -> MicroBatch:
    return MicroBatch(size, -(-num_images // size), tuple(tried))


def _too_large(num_images: int) -> RunError:
    return RunError(
        f"a step of {num_images} image{'s' if num_images > 1 else ''} does not fit into memory; "
        "try --grad-checkpoint, --dtype bf16, --freeze-backbone or a lower --res"
    )


def ladder(num_images: int, least: int = 1) -> list[int]:
    """Sizes worth trying for a process' share of the batch: the largest pass of 1, 2, 3, ... even passes.

    >>> ladder(16)
    [16, 8, 6, 4, 3, 2, 1]
    """
    sizes = {-(-num_images // passes) for passes in range(1, num_images + 1)}
    return sorted((size for size in sizes if size >= min(least, num_images)), reverse=True)
