"""Which block of a backbone each parameter belongs to, for learning rates that fall from block to block.

As EoMT places them (https://github.com/tue-mps/eomt, training/lightning_module.py; arXiv 2503.19108, section 4.1): what
comes before the blocks learns at the first block's rate, what comes after them at the last one's. The blocks are those
that timm's `group_matcher` tells of, for any of its models; a module without one is divided by the blocks of the tapped
one's class.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from timm.models._manipulate import group_with_matcher
from torch import nn

from luma_cli.backbone.backbone import Backbone

DEEPEST = 24  # blocks of the deepest network that the decay per block was chosen for (a ViT-L)
_NO_GROUP = "?"  # a name that no matcher knows


@runtime_checkable
class _Grouped(Protocol):
    """timm's protocol of models that tell their layers."""

    def group_matcher(self, coarse: bool = ...) -> Any:
        """Patterns of parameter names, stem first, or a function of a name."""


def scales(backbone: Backbone, layer_decay: float) -> dict[str, float]:
    """Factor of the learning rate of every parameter of `backbone.model`, by name: decay ** (blocks after its own).

    Networks of more than 24 blocks have the exponent divided by depth / 24, so that their first blocks still learn.
    Warns where the backbone has no blocks to tell apart, and gives 1 to all.
    """
    layers = layers_of(backbone)
    depth = 1 + max(layers.values(), default=0)
    if depth == 1 and layer_decay != 1:
        warnings.warn(
            f"{backbone.spec.name}: layer_decay {layer_decay:g} has no effect, as its blocks cannot be told apart; "
            "give the module a group_matcher, as timm's models have, or type --set layer_decay=1",
            stacklevel=2,
        )
    stretch = min(1.0, DEEPEST / depth)
    return {name: layer_decay ** ((depth - 1 - layer) * stretch) for name, layer in layers.items()}


def layers_of(backbone: Backbone) -> dict[str, int]:
    """The block, counted from 0, of every parameter of `backbone.model` by name."""
    model = backbone.model
    names = [name for name, _ in model.named_parameters()]
    known = _matched(names, model) if isinstance(model, _Grouped) else _by_class(names, backbone)
    return _filled(names, known)


def _matched(names: Sequence[str], model: _Grouped) -> dict[str, int]:
    """Block numbers by timm's own matcher: its group 0 is the stem, which joins the first block."""
    named = ((name, None) for name in (*names, _NO_GROUP))
    groups: dict[str, int] = group_with_matcher(named, model.group_matcher(coarse=False), reverse=True)
    unmatched = groups[_NO_GROUP]
    return {name: max(0, group - 1) for name, group in groups.items() if group != unmatched}


def _by_class(names: Sequence[str], backbone: Backbone) -> dict[str, int]:
    """Block numbers by the modules of the tapped block's class, in the order in which the model holds them."""
    if not backbone.sites.found:
        return {}
    prefixes = [f"{name}." for name in blocks_by_class(backbone.model, backbone.block(0))]
    return {name: number for name in names for number, prefix in enumerate(prefixes) if name.startswith(prefix)}


def blocks_by_class(model: nn.Module, block: nn.Module) -> list[str]:
    """Names of the modules of the class of `block` that are in no other one, in the order in which they are held."""
    found: list[str] = []
    for name, module in model.named_modules():
        if type(module) is type(block) and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return found


def _filled(names: Sequence[str], known: Mapping[str, int]) -> dict[str, int]:
    """All names: one that is in no block joins the next one that the model holds, or after the last one the last."""
    last = max(known.values(), default=0)
    filled: dict[str, int] = {}
    following = last
    for name in reversed(names):
        following = known.get(name, following)
        filled[name] = following
    return {name: filled[name] for name in names}
