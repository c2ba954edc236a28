"""AdamW over a segmenter: what learns, in which groups, at which rates, and the moving average of it.

EoMT's settings (arXiv 2503.19108, section 4.1; https://github.com/tue-mps/eomt, training/lightning_module.py and
two_stage_warmup_poly_schedule.py): weight decay on every tensor, the backbone's rates falling from block to block,
warm-up of the head, then of the backbone, then polynomial or cosine decay. The FFN that the head borrows is the
backbone's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn

from luma_cli.backbone.backbone import Backbone, meta_twin
from luma_cli.catalogue.recipes import Recipe
from luma_cli.errors import BadRecipe, CheckpointError
from luma_cli.head.eomt import EomtHead, MaskAnnealing
from luma_cli.head.parts import HeadOutput
from luma_cli.head.segmenter import Segmenter
from luma_cli.isotropic.mixtures import balance_loss

Role = Literal["head", "backbone"]
_NO_GROUP = "?"  # a name that no matcher knows
_FUSED_ON = ("cpu", "cuda")


def factor(role: Role, step: int, num_steps: int, recipe: Recipe) -> float:
    """What the learning rate of a group with this role is multiplied with in optimiser step `step`, from 0.

    >>> recipe = Recipe(warmup_head_steps=10, warmup_backbone_steps=20, poly_power=1.0)
    >>> [factor("head", step, 110, recipe) for step in (0, 5, 10, 60)]
    [0.0, 0.5, 1.0, 0.5]
    >>> [factor("backbone", step, 110, recipe) for step in (9, 10, 20, 30, 70)]
    [0.0, 0.0, 0.5, 1.0, 0.5]
    """
    # The backbone rests while the new layers of the head find their first direction.
    start = 0 if role == "head" else recipe.warmup_head_steps
    top = recipe.warmup_head_steps + (0 if role == "head" else recipe.warmup_backbone_steps)
    if step < start:
        return 0.0
    if step < top:
        return (step - start) / (top - start)
    if step >= num_steps:
        return 0.0
    done = (step - top) / (num_steps - top)
    return (1 + math.cos(math.pi * done)) / 2 if recipe.schedule == "cosine" else (1 - done) ** recipe.poly_power


def mask_annealing(recipe: Recipe, num_steps: int, num_joint: int) -> MaskAnnealing:
    """When an EoMT head of `num_joint` joint blocks frees its queries: the recipe's shares or steps, in steps.

    Lists of another length are read between their entries: so the DINOv3 schedule that is published for 4 blocks gives
    the one that is published for 3.
    """
    if not recipe.anneal_starts:
        return MaskAnnealing.published(num_steps, num_joint)
    unit = 1 if recipe.anneals_in_steps else num_steps
    where = [block / max(1, num_joint - 1) for block in range(num_joint)]

    def stretched(said: tuple[float, ...]) -> tuple[float, ...]:
        between = said if len(said) == num_joint else np.interp(where, np.linspace(0, 1, len(said)), said).tolist()
        return tuple(value * unit for value in between)

    return MaskAnnealing(stretched(recipe.anneal_starts), stretched(recipe.anneal_ends))


def create_optimizer(segmenter: Segmenter, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over every parameter of `segmenter` that learns: the head's group, then those of the backbone.

    Every group says its `role`, its `lr_scale` (factor of the recipe's `lr`, before the schedule's) and its
    `param_names`. Raises BadRecipe where nothing learns.
    """
    found: dict[tuple[Role, float], list[tuple[str, nn.Parameter]]] = {}
    num_full = segmenter.head.plan.num_joint if isinstance(segmenter.head, EomtHead) and not recipe.joint_decay else 0
    scale_of = scales(segmenter.backbone, recipe.layer_decay, recipe.decay_blocks, num_full)
    start = "backbone.model."
    learning = [(name, each) for name, each in segmenter.named_parameters() if each.requires_grad]
    for name, parameter in learning:
        in_backbone = name.startswith(start)
        scale = scale_of[name.removeprefix(start)] * recipe.backbone_lr if in_backbone else 1.0
        key: tuple[Role, float] = ("backbone", scale) if in_backbone else ("head", scale)
        found.setdefault(key, []).append((name, parameter))
    if not found:
        raise BadRecipe("nothing is left to learn: the head has no parameters and the backbone is frozen")
    order = sorted(found, key=lambda key: (key[0] != "head", key[1]))
    # One fused kernel per group where torch has it, else one per operation.
    fused = all(each.is_floating_point() and each.device.type in _FUSED_ON for _, each in learning)
    return torch.optim.AdamW(
        [{"params": found[role, scale], "role": role, "lr_scale": scale} for role, scale in order],
        lr=recipe.lr,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        **{"fused" if fused else "foreach": True},
    )


def set_learning_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, num_steps: int) -> None:
    """Give every group its learning rate of optimiser step `step`, from 0."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * group["lr_scale"] * factor(group["role"], step, num_steps, recipe)


@runtime_checkable
class _Grouped(Protocol):
    """timm's protocol of models that tell their layers."""

    def group_matcher(self, coarse: bool = ...) -> Any:
        """Patterns of parameter names, stem first, or a function of a name."""


def scales(backbone: Backbone, layer_decay: float, over: int = 0, num_full: int = 0) -> dict[str, float]:
    """Factor of the learning rate of every parameter of `backbone.model`, by name: decay ** (blocks after its own).

    Networks of more than `over` blocks have the exponent divided by depth / over, 0 for never, so that their first
    blocks still learn. The last `num_full` blocks keep the full rate. Warns where the backbone has no blocks to tell
    apart, and gives 1 to all.
    """
    # Not timm's `param_groups_layer_decay`: it gives the stem a rate of its own, where EoMT's stem has that of the
    # first block, it cannot stretch deep networks, and it needs a matcher, which some models do not have.
    layers = layers_of(backbone)
    depth = 1 + max(layers.values(), default=0)
    if depth == 1 and layer_decay != 1:
        warnings.warn(
            f"{backbone.spec.name}: layer_decay {layer_decay:g} has no effect, as its blocks cannot be told apart; "
            "give the module a group_matcher, as timm's models have, or type --set layer_decay=1",
            stacklevel=2,
        )
    stretch = min(1.0, over / depth) if over else 1.0
    exponents = {name: (depth - 1 - layer) * stretch for name, layer in layers.items()}
    return {name: 1.0 if layers[name] >= depth - num_full else layer_decay**each for name, each in exponents.items()}


def layers_of(backbone: Backbone) -> dict[str, int]:
    """The block, counted from 0, of every parameter of `backbone.model` by name.

    What comes before the blocks counts to the first, what comes after them to the last one. The blocks are those of
    timm's `group_matcher`; a module without one is divided by the blocks of the tapped one's class.
    """
    model = backbone.model
    names = [name for name, _ in model.named_parameters()]
    known = _matched(names, model) if isinstance(model, _Grouped) else _by_class(names, backbone)
    filled: dict[str, int] = {}
    following = max(known.values(), default=0)
    for name in reversed(names):  # a parameter in no block joins the next one that the model holds
        filled[name] = following = known.get(name, following)
    return {name: filled[name] for name in names}


def _matched(names: Sequence[str], model: _Grouped) -> dict[str, int]:
    """Block numbers by timm's own matcher: its group 0 is the stem, which joins the first block."""
    named = ((name, None) for name in (*names, _NO_GROUP))
    groups: dict[str, int] = group_with_matcher(named, model.group_matcher(coarse=False), reverse=True)
    return {name: max(0, group - 1) for name, group in groups.items() if group != groups[_NO_GROUP]}


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


def freeze_backbone(segmenter: Segmenter) -> int:
    """Let no parameter of the backbone learn; how many numbers rest. `train_mode` then keeps it in eval mode.

    What is left is a probe of its features. The FFN and the final norm that a head borrows rest with it.
    """
    segmenter.backbone.requires_grad_(False)
    segmenter.backbone.eval()
    return sum(parameter.numel() for parameter in segmenter.backbone.parameters())


def freeze_first_blocks(segmenter: Segmenter, number: int) -> None:
    """Let the first `number` blocks of the backbone and what comes before them not learn. Raises BadRecipe for all."""
    layers = layers_of(segmenter.backbone)
    depth = 1 + max(layers.values(), default=0)
    if number >= depth:
        raise BadRecipe(f"freeze is {number}, but the backbone has {depth} blocks; type --freeze-backbone for all")
    for name, parameter in segmenter.backbone.model.named_parameters():
        if layers[name] < number:
            parameter.requires_grad_(False)


def freeze_unreached(segmenter: Segmenter, resolution: int) -> tuple[str, ...]:
    """Turn training off for parameters that get no gradient; gives their names.

    E.g. those of a second branch that the map does not come from (CoaT, CrossViT): processes that average gradients
    would wait for theirs. Found by a backward pass of a copy on the meta device, which computes nothing; an EoMT head
    is in the state of its first step there, all queries masked, which needs no draws.
    """
    copy = meta_twin(segmenter).train()
    images = torch.zeros(2, 3, resolution, resolution, device="meta")
    outputs: list[Tensor] = [balance_loss(copy.backbone)]
    for output in copy.predictions(images):
        outputs += output if isinstance(output, HeadOutput | tuple) else (output,)
    torch.autograd.backward([total for each in outputs if (total := each.float().sum()).requires_grad])
    trained = [(name, each) for name, each in copy.named_parameters() if each.requires_grad]
    unreached = {name for name, parameter in trained if parameter.grad is None}
    for name, parameter in segmenter.named_parameters():
        if name in unreached:
            parameter.requires_grad_(False)
    return tuple(sorted(unreached))


class Ema:
    """An exponential moving average of every parameter that learns, in float32 or better, each once by its name.

    The decay is min(decay, (1 + n) / (10 + n)) after n updates, so that the average does not carry the initial weights
    along, as in https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage. Buffers and parameters
    that rest are those of the model itself, so that BatchNorm's statistics are the latest.
    """

    # Not torch's AveragedModel: it copies the whole model, takes its first update unaveraged, and averages in 16 bits
    # where the model is in 16 bits, in which small steps are lost.

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        own = {name: parameter.detach() for name, parameter in _learning(module)}
        half = (torch.float16, torch.bfloat16)
        self._averages = {name: (one.float() if one.dtype in half else one).clone() for name, one in own.items()}

    def update(self, module: nn.Module) -> None:
        """Take one step towards the parameters of `module`; to be called after every step of the optimiser."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        averages = list(self._averages.values())
        now = [parameter.detach().to(self._averages[name].dtype) for name, parameter in _learning(module)]
        torch._foreach_lerp_(averages, now, 1 - decay)

    @contextmanager
    def swapped(self, module: nn.Module) -> Iterator[None]:
        """`module` with the averages as its parameters for a while; afterwards with its own, bit for bit."""
        own = {name: parameter.detach().clone() for name, parameter in _learning(module)}
        try:
            _put(self._averages, module)
            yield
        finally:
            _put(own, module)

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """The state dict of `module` with the averages in the place of what learns: a model that can be loaded."""
        return {**module.state_dict(), **self._averages}

    def state_dict(self) -> dict[str, Any]:
        """`num_updates`, and `averages` by parameter name."""
        return {"num_updates": self.num_updates, "averages": dict(self._averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, of which parameters that rest are left out. Raises CheckpointError for another model."""
        given = state["averages"]
        if any(name not in given or given[name].shape != own.shape for name, own in self._averages.items()):
            raise CheckpointError(
                "the checkpoint averages another model, or other parameters of it; resume with the backbone, head and "
                "freeze_backbone that the run was started with"
            )
        self.num_updates = int(state["num_updates"])
        for name, average in self._averages.items():
            average.copy_(given[name])


def _learning(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that learn, each once, by name."""
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)


def _put(values: Mapping[str, Tensor], module: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in _learning(module):
            parameter.copy_(values[name])
