"""Activations forgotten in the forward and made again in the backward: less memory for about a third more time.

timm's own way is taken where it saves memory on the way by which luma runs a backbone; where it does not (a model whose
`forward_intermediates` passes it by, EoMT's joint blocks, which luma runs itself), every block is wrapped. Which it is
is measured: by the bytes that autograd keeps of one forward.
B batch, H W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from luma_cli.backbone.backbone import Backbone, joint_blocks
from luma_cli.head.eomt import EomtHead
from luma_cli.head.segmenter import Segmenter
from luma_cli.train.batch_norm import batch_norms, count_once
from luma_cli.train.layers import blocks_by_class

WORTH = 0.9  # of the bytes kept without: more than this is as good as no checkpointing

Way = Literal["timm", "blocks", "none"]


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
    """Let the backbone of `segmenter`, joint blocks included, forget activations; gradients stay as they were.

    To be called before compilation and DistributedDataParallel. Warns, and changes nothing, where it cannot.
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
    """The first way that is worth it, switched on."""
    backbone = segmenter.backbone
    before = kept_bytes(segmenter)
    if not isinstance(segmenter.head, EomtHead) and _set_timm(backbone.model, True):
        after = kept_bytes(segmenter)
        if after <= WORTH * before:
            return Checkpointing("timm", before, after)
        _set_timm(backbone.model, False)
    wrapped = _blocks(backbone)
    for block in wrapped:
        _wrap(block)
    after = kept_bytes(segmenter)
    if wrapped and after <= WORTH * before:
        return Checkpointing("blocks", before, after)
    for block in wrapped:
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


def _blocks(backbone: Backbone) -> list[nn.Module]:
    """The blocks to be wrapped: those that queries can join, else all of the tapped block's class."""
    joint = joint_blocks(backbone)
    if joint or not backbone.sites.found:
        return joint
    return [backbone.model.get_submodule(name) for name in blocks_by_class(backbone.model, backbone.block(0))]


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

    Of the backbone, with an EoMT head also of the head, in which its last blocks run. In eval mode, so that nothing is
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

    with _evaluating(segmenter), saved_tensors_hooks(keep, lambda tensor: tensor):
        run = segmenter if isinstance(segmenter.head, EomtHead) else segmenter.read
        run(torch.zeros(1, 3, side, side, device=first.device, dtype=first.dtype))
    return sum(kept.values())


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
