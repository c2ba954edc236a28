"""Memory of a training step: the most images that one pass can hold, and activations that are not kept.

On a GPU real steps are tried, from the whole batch downwards. On the host running out of memory would take the process
with it, so its need is taken to grow by as much per image as from one small step to one of twice the images.
B batch, H W pixels.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from luma_cli.backbone.backbone import joint_blocks
from luma_cli.errors import RunError
from luma_cli.head.segmenter import Segmenter
from luma_cli.measure import devices
from luma_cli.measure.devices import is_out_of_memory
from luma_cli.train.batch_norm import batch_norms, count_once
from luma_cli.train.optimiser import blocks_by_class

HOST_SHARE = 0.8  # of the RAM that can be had: steps differ, and others use the machine too
WORTH = 0.9  # of the bytes kept without: more than this is as good as no checkpointing

Attempt = Callable[[int], object]
Way = Literal["timm", "blocks", "none"]


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


def find(attempt: Attempt, num_images: int, device_type: str, *, least: int = 1) -> MicroBatch:
    """The largest pass for a process whose share of a step's batch is `num_images`.

    attempt: runs a whole step of so many images, optimiser included, and leaves no tensor behind; it is to be wrapped
    in `rehearsal`, and to talk to no other process, as one may run out of memory where another does not. least: fewer
    images than these are not tried, for BatchNorms that learn statistics.
    Raises RunError where not even the least fits.
    """
    search = by_trying if device_type == "cuda" else by_prediction
    return search(attempt, num_images, least=least)


def by_trying(attempt: Attempt, num_images: int, *, least: int = 1) -> MicroBatch:
    """The first size of the ladder of which two steps fit: the second meets the optimiser's state. Raises RunError."""
    tried: list[tuple[int, str]] = []
    for size in ladder(num_images, least):
        fits = all(_fits(attempt, size) for _ in range(2))
        tried.append((size, "fits" if fits else "out of memory"))
        if fits:
            return _of(num_images, size, tried)
    raise _too_large(tried[-1][0])


def by_prediction(attempt: Attempt, num_images: int, *, least: int = 1, memory: Any = devices) -> MicroBatch:
    """The largest size of the ladder whose memory, on a line through two measured ones, stays in what can be had.

    memory: what is asked of the host, with the functions of `measure.devices`. Raises RunError where memory runs
    out at the least size.
    """
    least = min(least, num_images)
    if not _fits(attempt, least):  # and makes the optimiser's state, which is none of an image's need
        raise _too_large(least)
    if num_images < 2 * least:
        return _of(num_images, least, [(least, "fits")])

    def peak(size: int) -> float:
        memory.reset_peak()
        return float(memory.peak_bytes()) if _fits(attempt, size) else float("inf")

    limit = memory.resident_bytes() + HOST_SHARE * memory.available_bytes()
    first, second = peak(least), peak(2 * least)
    per_image = max(0.0, (second - first) / least)
    sizes = ladder(num_images, least)
    found = next((size for size in sizes if second + per_image * (size - 2 * least) <= limit), sizes[-1])
    tried = [(least, f"{first / 2**20:.0f} MiB"), (2 * least, f"{second / 2**20:.0f} MiB")]
    return _of(num_images, found, tried)


def _fits(attempt: Attempt, num_images: int) -> bool:
    """Whether a step of so many images runs; what one that did not run left behind is given back."""
    try:
        attempt(num_images)
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the except block: the error holds the frames, and they the tensors that must go first.
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    return False


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
    rates = [group["lr"] for group in optimizer.param_groups]
    gpus = {tensor.device for tensor in tensors if tensor.is_cuda}  # those of other processes are left alone
    with torch.random.fork_rng(devices=list(gpus)), _modes_kept(module):
        try:
            yield
        finally:
            optimizer.zero_grad(set_to_none=True)
            optimizer.state.clear()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            with torch.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)


@contextmanager
def _modes_kept(module: nn.Module) -> Iterator[None]:
    """Every part is in training or evaluation mode afterwards as it is now."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """How activations are forgotten, and the bytes that autograd keeps of the blocks per image, before and now."""

    way: Way
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        """One line to be stored."""
        return f"{self.way}: {self.bytes_before / 2**20:.1f} -> {self.bytes_after / 2**20:.1f} MiB kept per image"


@runtime_checkable
class _Checkpointed(Protocol):
    """timm's protocol of models that can forget activations."""

    def set_grad_checkpointing(self, enable: bool = ...) -> None:
        """Switch it."""


def enable(segmenter: Segmenter) -> Checkpointing:
    """Let the backbone of `segmenter`, joint blocks included, forget activations in the forward and make them again.

    Gradients stay what they were, for about a third more time. To be called before compilation and
    DistributedDataParallel. Warns, and changes nothing, where it cannot.
    """
    found = _enable(segmenter)
    if found.way == "none":
        warnings.warn(
            f"{segmenter.backbone.spec.name}: gradient checkpointing has no effect, as it has no blocks that can be "
            "run again; a smaller --batch or --res needs less memory",
            stacklevel=2,
        )
        return found
    for norm in batch_norms(segmenter.backbone):
        count_once(norm)
    return found


def _enable(segmenter: Segmenter) -> Checkpointing:
    """The first way that saves memory as luma runs the backbone, switched on: timm's own, else every block wrapped.

    timm's does nothing in a model whose `forward_intermediates` passes it by, nor in blocks that luma runs itself;
    so which way works is measured.
    """
    backbone = segmenter.backbone
    before = kept_bytes(segmenter)
    if not segmenter.runs_blocks and _set_timm(backbone.model, True):
        after = kept_bytes(segmenter)
        if after <= WORTH * before:
            return Checkpointing("timm", before, after)
        _set_timm(backbone.model, False)
    blocks = joint_blocks(backbone)
    if not blocks and backbone.sites.found:
        names = blocks_by_class(backbone.model, backbone.block(0))
        blocks = [backbone.model.get_submodule(name) for name in names]
    for block in blocks:
        _wrap(block)
    after = kept_bytes(segmenter)
    if blocks and after <= WORTH * before:
        return Checkpointing("blocks", before, after)
    for block in blocks:
        del block.forward
    return Checkpointing("none", before, before)


def _set_timm(model: nn.Module, on: bool) -> bool:
    """Switch timm's checkpointing; False where the model has none, which some classes say by an assertion."""
    if not isinstance(model, _Checkpointed):
        return False
    try:
        model.set_grad_checkpointing(on)
    except AssertionError:
        return False
    return True


def _wrap(block: nn.Module) -> None:
    """Let the block's forward be run again in the backward, with the random numbers of the first run.

    Hooks stay outside: what reads a block sees it run once.
    """
    forward = block.forward

    def forgetful(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        return checkpoint(forward, *inputs, use_reentrant=False, **named)

    block.forward = forgetful


@torch.enable_grad()
def kept_bytes(segmenter: Segmenter) -> int:
    """Bytes of all tensors but parameters and buffers that autograd keeps of one image, each once.

    Of the backbone, and of the parts of the head in which its blocks run. In eval mode, so that nothing is
    moved by it; drop paths and dropout would add a little.
    """
    side = segmenter.backbone.resolution
    first = next(segmenter.parameters())
    own = {tensor.data_ptr() for tensor in (*segmenter.parameters(), *segmenter.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with _modes_kept(segmenter), saved_tensors_hooks(keep, lambda tensor: tensor):
        segmenter.eval()
        segmenter.run_backbone(torch.zeros(1, 3, side, side, device=first.device, dtype=first.dtype))
    return sum(kept.values())
