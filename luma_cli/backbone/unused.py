"""Parameters that the segmenter never runs, found by walking the autograd graph of a meta forward, and their removal.

CaiT's class attention, EfficientNet's conv_head or SigLIP's attention pool (7.1 M of 93 M) would otherwise count as
parameters, take memory and sit in every optimiser and checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook


def trace(module: nn.Module, images: Tensor) -> tuple[object, set[int], set[int]]:
    """One forward of `module`: its output, the ids of the parameters it depends on, the ids of the modules that ran.

    Frozen parameters count like any others, whatever gradient mode the caller is in.
    """
    ran: set[int] = set()
    hook = register_module_forward_pre_hook(lambda called, _: ran.add(id(called)))
    frozen = [p for p in module.parameters() if not p.requires_grad and (p.is_floating_point() or p.is_complex())]
    with torch.inference_mode(False), torch.enable_grad():
        try:
            for parameter in frozen:  # the graph shows only what wants a gradient
                parameter.requires_grad_(True)
            output = module(images)
        finally:
            hook.remove()
            for parameter in frozen:
                parameter.requires_grad_(False)
    return output, _leaves(output), ran


def _leaves(output: object) -> set[int]:
    """Ids of the parameters that `output`, a tensor, depends on, by its autograd graph."""
    found: set[int] = set()
    seen: set[object] = set()
    stack = [output.grad_fn] if isinstance(output, Tensor) else []
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)  # only AccumulateGrad, the graph's leaves, carries one
        if variable is not None:
            found.add(id(variable))
        stack.extend(child for child, _ in node.next_functions)
    return found


def unused_names(
    model: nn.Module, reached_ids: set[int], ran_ids: set[int], keep: Iterable[nn.Module | nn.Parameter]
) -> list[str]:
    """Names, in `model`, of the topmost modules and the single parameters that never run and are not in `keep`.

    A module that ran is left whole even when nothing depends on its result; so is a list, which a forward may walk.
    """
    used = set(reached_ids) | ran_ids
    for kept in keep:
        used |= {id(kept)} if isinstance(kept, nn.Parameter) else {id(m) for m in (*kept.modules(), *kept.parameters())}
    return _walk(model, "", used)


def _walk(module: nn.Module, prefix: str, used: set[int]) -> list[str]:
    names = []
    children = dict(module.named_children())
    for name, child in children.items():
        held = [*child.modules(), *child.parameters()]
        if any(id(entry) in used for entry in held) or isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            names += _walk(child, f"{prefix}{name}.", used)
        elif any(True for _ in child.parameters()):
            names.append(prefix + name)
    if not children:  # a layer is left whole
        return names
    own = module.named_parameters(recurse=False)
    return names + [prefix + name for name, parameter in own if id(parameter) not in used]


def single_parameters(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Those of `names` that are parameters, not modules."""
    parameters = dict(model.named_parameters())
    return [name for name in names if name in parameters]


def remove(model: nn.Module, names: Sequence[str]) -> None:
    """Replace each named module by an identity and each named parameter by None."""
    for name in names:
        owner_name, _, last = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        is_parameter = last in dict(owner.named_parameters(recurse=False))
        setattr(owner, last, None if is_parameter else nn.Identity())


@contextmanager
def removed(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """`model` without the named modules and parameters for a while; afterwards it is as it was."""
    places = [(model.get_submodule(owner), last) for owner, _, last in (name.rpartition(".") for name in names)]
    parts = [getattr(owner, last) for owner, last in places]
    remove(model, names)
    try:
        yield
    finally:
        for (owner, last), part in zip(places, parts, strict=True):
            setattr(owner, last, part)


def parameters_of(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """Names of the parameters that `remove(model, names)` takes away."""
    prefixes = tuple(f"{name}." for name in names)
    return tuple(name for name, _ in model.named_parameters() if name in names or name.startswith(prefixes))
