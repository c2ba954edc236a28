"""The tapped block's own residual FFN as a function of queries, built from a rule and the block's modules by reference.

Source: arXiv 2607.00687, queries pass through "the backbone's own feed-forward layers". Nothing here registers a
parameter: the block stays the only owner, so state dicts, optimisers and `.to()` see each weight once.
B batch, K queries, N tokens, D channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from luma_cli.backbone.timm_model import from_tokens, to_tokens
from luma_cli.catalogue.rules import FfnRule
from luma_cli.errors import BuildError


class QueryFfn:
    """`post(skip(z) + branch(z))` of one block, on whole grids (`on_grid`) or on queries that never mix (call)."""

    def __init__(self, block: nn.Module, rule: FfnRule) -> None:
        """Takes the parts that `rule` names from `block`. Raises BuildError, naming the part, when one is absent."""
        self.block = block
        if rule.nchw_if and holds(block, rule.nchw_if):
            rule = replace(rule, layout="nchw", output="nchw")
        if any(holds(block, condition) for condition in rule.alone_if):
            rule = replace(rule, alone=True)
        self.rule = rule
        for name in self.names():
            part(block, name)

    def names(self) -> tuple[str, ...]:
        """Dotted names, in the block, of every part that runs."""
        names = (*self.rule.skip, *self.rule.branch, *self.rule.post)
        return (*names, self.rule.gate) if self.rule.gate else names

    def parts(self) -> list[nn.Module | nn.Parameter]:
        """The modules and parameters that run, for keeping them when unused ones are pruned."""
        found = [part(self.block, name) for name in self.names()]  # no `:=` here: torch.compile would break the graph
        return [entry for entry in found if entry is not None]

    def batch_norms(self) -> list[nn.Module]:
        """BatchNorms that run now: a conversion to synchronised ones puts other modules in their place."""
        used = [found for found in self.parts() if isinstance(found, nn.Module)]
        return [norm for module in used for norm in module.modules() if isinstance(norm, _BatchNorm)]

    @property
    def width(self) -> int:
        """Channels that the FFN takes: those of its first part that states them (norm weight, layer's input)."""
        for name in self.rule.branch:
            found = part(self.block, name)
            if isinstance(found, nn.Module) and (width := _input_width(found)):
                return width
        return 0

    def __call__(self, queries: Tensor) -> Tensor:
        """Queries [B,K,D] -> [B,K,D]. BatchNorm runs on its running statistics, whatever the block's mode."""
        batch, num_queries, width = queries.shape
        images = queries.reshape(-1, 1, width) if self.rule.alone else queries
        grid = (1, 1) if self.rule.alone else (num_queries, 1)
        with _running_statistics(self.batch_norms()), _untouched(self.block, self.rule.untouched):
            result = self.on_grid(from_tokens(images, self.rule.layout, grid), grid)
        return to_tokens(result, self.rule.layout).reshape(batch, num_queries, -1)

    def on_grid(self, z: Tensor, size: tuple[int, int]) -> Tensor:
        """The same sum on a whole grid in the block's own layout; H and W are `size`."""
        branch = self._chain(z, self.rule.branch, size)
        if self.rule.residual == "inside":
            return self._chain(branch, self.rule.post, size)
        if self.rule.residual == "gated":
            return z + self._gate() * (branch - z)
        skip_applies = not self.rule.skip_if or part(self.block, self.rule.skip_if) is not None
        skip = self._chain(z, self.rule.skip if skip_applies else (), size)
        return self._chain(skip + branch, self.rule.post, size)

    def _gate(self) -> Tensor:
        gate = part(self.block, self.rule.gate)
        if not isinstance(gate, nn.Parameter):
            raise BuildError(f"{type(self.block).__name__}.{self.rule.gate} is not a parameter; correct `gate`")
        return self._along_channels(gate[self.rule.gate_row].sigmoid())

    def _along_channels(self, vector: Tensor) -> Tensor:
        """A vector of channels in the shape that multiplies a map in the block's layout."""
        return vector.reshape(-1, 1, 1) if self.rule.layout == "nchw" else vector.reshape(-1)

    def _chain(self, z: Tensor, names: Sequence[str], size: tuple[int, int]) -> Tensor:
        for name in names:
            found = part(self.block, name)
            if isinstance(found, nn.ModuleList):  # summed branches (vision_transformer.ParallelThingsBlock)
                z = torch.stack([branch(z) for branch in found]).sum(dim=0)
            elif isinstance(found, nn.Module):
                z = found(z, size) if name == self.rule.feat_size else found(z)
            elif found is not None:
                z = z * self._along_channels(found)
        return z


def part(block: nn.Module, name: str) -> nn.Module | nn.Parameter | None:
    """The module or parameter at dotted `name` in `block`; None where the block was built without it.

    Raises BuildError when the block does not know the name at all.
    """
    found: object = block
    for step in name.split("."):
        if found is None:
            return None
        try:
            found = found[int(step)] if step.lstrip("-").isdigit() else getattr(found, step)  # type: ignore[index]
        except (AttributeError, IndexError) as error:
            raise BuildError(f"{type(block).__name__} has no part {name!r}; correct the rule of this class") from error
    if found is None or isinstance(found, (nn.Module, nn.Parameter)):
        return found
    raise BuildError(f"{type(block).__name__}.{name} is {type(found).__name__}, expected a module or parameter")


def holds(block: nn.Module, condition: str) -> bool:
    """Whether a rule's condition `part is Class` holds; the class is compared by its exact name."""
    name, _, cls = condition.partition(" is ")
    return type(part(block, name)).__name__ == cls


def _input_width(module: nn.Module) -> int:
    """Channels of the first parameter that states the input's: a norm's weight or a layer's input."""
    for found in module.modules():
        if isinstance(found, nn.Linear):
            return found.in_features
        if isinstance(found, nn.modules.conv._ConvNd):
            return found.in_channels
        for parameter in found.parameters(recurse=False):
            if parameter.ndim == 1:
                return parameter.numel()
    return 0


@contextmanager
def _running_statistics(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Run BatchNorms in eval mode for a while: queries neither use nor move batch statistics, affine still learns."""
    training = [norm for norm in norms if norm.training]
    for norm in training:
        norm.training = False
    try:
        yield
    finally:
        for norm in training:
            norm.training = True


@contextmanager
def _untouched(block: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Put named attributes and buffers back afterwards: a router's statistics are about patches, not queries."""
    owners = [(block.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]
    before = [getattr(owner, name) for owner, name in owners]
    copies = [value.detach().clone() if isinstance(value, Tensor) else value for value in before]
    try:
        yield
    finally:
        for (owner, name), value, copied in zip(owners, before, copies, strict=True):
            if isinstance(value, Tensor) and not value.requires_grad:
                value.copy_(copied)
            setattr(owner, name, value)
