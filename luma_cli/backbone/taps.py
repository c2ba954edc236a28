"""The blocks that queries may read besides the map: those of the tapped block's kind, in the order in which they run.

Of one kind are blocks of the tapped block's class that lend an FFN as it does; class-attention blocks never count.
One traced forward finds them (`Trace`); while a head reads, hooks keep their inputs or outputs (`Watch`).
B batch, N patch tokens, P prefix tokens (class, registers), D channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from luma_cli.backbone.query_ffn import QueryFfn, holds
from luma_cli.backbone.timm_model import class_name, to_tokens
from luma_cli.catalogue.rules import Layout, ModelRule, load_rules
from luma_cli.errors import BuildError

_MAX_PREFIX_TOKENS = 64  # timm has at most 1 class and 16 register tokens; more means another grid


@dataclass(frozen=True, slots=True)
class Site:
    """One block that can be read. Tokens are counted without prefix.

    name: dotted path in the model. layout, index: of its tensor, and its place where the block gives or takes several.
    width_in and num_tokens_in are 0 where its input cannot be read. copies: whether what it takes or gives is changed
    in place afterwards, so that it must be copied to be kept.
    """

    name: str
    layout: Layout
    index: int
    width: int
    num_tokens: int
    width_in: int
    num_tokens_in: int
    copies: bool = False


@dataclass(frozen=True, slots=True)
class Sites:
    """The blocks that can be read, in execution order, the tapped one last; `reason` says why there are no more."""

    found: tuple[Site, ...] = ()
    num_prefix_tokens: int = 0
    reason: str = ""


def ffn_of(block: nn.Module, rule: ModelRule) -> QueryFfn | str:
    """The token-wise FFN of a block in a model with this rule, or the reason why it lends none."""
    ffn_rule = rule.ffn or load_rules().ffn_rule(class_name(block))
    if isinstance(ffn_rule, str):
        return ffn_rule
    unmet = [condition for condition in ffn_rule.only_if if not holds(block, condition)]
    return f"not token-wise: {unmet[0]} does not hold" if unmet else QueryFfn(block, ffn_rule)


def own_heads(ffn: QueryFfn, rule: ModelRule) -> int:
    """Heads of the attention of the block that lends this FFN; 0 where no rule says them."""
    path = ffn.rule.heads or rule.heads
    if not path:
        return 0
    owner, _, last = path.rpartition(".")
    return int(getattr(ffn.block.get_submodule(owner), last))


class _Seen(NamedTuple):
    """A tensor and its version when it was seen: a later version means that it was changed in place."""

    tensor: Tensor
    version: int

    @property
    def changed(self) -> bool:
        return self.tensor._version != self.version


def _seen(value: Any, index: int) -> _Seen | None:
    tensor = pick(value, index)
    return None if tensor is None else _Seen(tensor, tensor._version)


def pick(value: Any, index: int) -> Tensor | None:
    """The tensor that a block takes or gives: itself, or entry `index` of several, or the first tensor of all."""
    if isinstance(value, Tensor):
        return value
    entries = list(value) if isinstance(value, (tuple, list)) else []
    if index < len(entries) and isinstance(entries[index], Tensor):
        return entries[index]  # type: ignore[no-any-return]
    return next((entry for entry in entries if isinstance(entry, Tensor)), None)


class Trace:
    """While entered, notes what every block of the tapped block's kind takes and gives; None taps nothing."""

    def __init__(self, model: nn.Module, block: nn.Module | None, rule: ModelRule) -> None:
        self._block = block
        self._ffn = ffn_of(block, rule) if block is not None else rule.reason
        self._index = self._ffn.rule.output_index if isinstance(self._ffn, QueryFfn) else 0
        self._names = {} if block is None else _of_kind(model, block, rule)
        self._taken: dict[nn.Module, _Seen | None] = {}
        self._given: dict[nn.Module, _Seen | None] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Trace:
        for module in self._names:
            self._hooks.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
            self._hooks.append(module.register_forward_hook(self._after))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        self._taken[module] = _seen((*inputs, *named.values()), self._index)

    def _after(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._given.pop(module, None)  # a block that runs twice stands where it ran last
        self._given[module] = _seen(output, self._index)

    def sites(self, width: int, num_tokens: int) -> Sites:
        """The blocks that can be read, given the channels and tokens of the map; to be asked after the forward."""
        order = list(self._given)
        if self._block is None or self._block not in order:
            return Sites(reason=str(self._ffn) if self._block is None else "its last block never ran")
        last = self._given[self._block]
        layout = self._layout(last, width)
        num_prefix = last.tensor.shape[1] - num_tokens if last and layout == "tokens" and last.tensor.ndim == 3 else 0
        if not 0 <= num_prefix <= _MAX_PREFIX_TOKENS:
            return Sites(reason="its last block keeps tokens that are not those of the map")
        found: list[Site] = []
        for module in reversed(order[: order.index(self._block) + 1]):
            site = self._site(module, layout, num_prefix)
            if site is None:
                reason = f"{class_name(module)} before them keeps no tokens of a square grid"
                break
            found.append(site)
        else:
            reason = f"all blocks of the kind {class_name(self._block)}"
        return Sites(tuple(reversed(found)), num_prefix, reason)

    def _layout(self, last: _Seen | None, width: int) -> Layout:
        """Layout of the block's tensor: by the FFN's rule, else by where the channels of the map stand."""
        if isinstance(self._ffn, QueryFfn):
            return self._ffn.rule.output or self._ffn.rule.layout
        if last is None or last.tensor.ndim == 3:
            return "tokens"
        return "nhwc" if last.tensor.shape[-1] == width != last.tensor.shape[1] else "nchw"

    def _site(self, module: nn.Module, layout: Layout, num_prefix: int) -> Site | None:
        given, taken = self._given[module], self._taken[module]
        shape = _shape(given, layout, num_prefix)
        if shape is None or given is None:
            return None
        copies = given.changed or (taken is not None and taken.changed)
        taken_shape = _shape(taken, layout, num_prefix) or (0, 0)
        return Site(self._names[module], layout, self._index, *shape, *taken_shape, copies=copies)


def _of_kind(model: nn.Module, block: nn.Module, rule: ModelRule) -> dict[nn.Module, str]:
    """Blocks of `model` of the kind of `block`, with their names; a bare container is a kind of its own."""
    if type(block).__module__.startswith("torch.nn."):
        return {module: name for name, module in model.named_modules() if module is block}

    def lends(module: nn.Module) -> bool:
        try:
            return isinstance(ffn_of(module, rule), QueryFfn)
        except BuildError:  # a block of the class that was built without the parts of its rule
            return False

    same = {module: name for name, module in model.named_modules() if type(module) is type(block)}
    return {module: name for module, name in same.items() if lends(module) == lends(block)}


def _shape(seen: _Seen | None, layout: Layout, num_prefix: int) -> tuple[int, int] | None:
    """Channels and patch tokens of a batch of one image; None for what is no square grid of tokens."""
    if seen is None or seen.tensor.ndim != (3 if layout == "tokens" else 4) or seen.tensor.shape[0] != 1:
        return None
    if layout == "nchw":
        return (seen.tensor.shape[1], math.prod(seen.tensor.shape[2:]))
    num_tokens = math.prod(seen.tensor.shape[1:-1]) - num_prefix
    square = layout != "tokens" or (num_tokens > 0 and math.isqrt(num_tokens) ** 2 == num_tokens)
    return (seen.tensor.shape[-1], num_tokens) if square else None


class Watch:
    """Keeps what one block takes (`input`) or gives, while `active`: [B, P + N, D], or [B, N, D] without `prefix`."""

    def __init__(self, block: nn.Module, site: Site, *, input: bool, num_skipped: int) -> None:
        self._site = site
        self._num_skipped = num_skipped
        self._kept: Tensor | None = None
        self.active = False
        if input:
            block.register_forward_pre_hook(self._before, with_kwargs=True)
        else:
            block.register_forward_hook(self._after)

    def _before(self, module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        if self.active:
            self._keep((*inputs, *named.values()))

    def _after(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if self.active:
            self._keep(output)

    def _keep(self, value: Any) -> None:
        tensor = pick(value, self._site.index)
        self._kept = tensor.clone() if tensor is not None and self._site.copies else tensor

    def take(self) -> Tensor:
        """What was kept last, once."""
        kept, self._kept = self._kept, None
        if kept is None:
            raise BuildError(f"block {self._site.name} was not run; it cannot be read")
        return to_tokens(kept, self._site.layout)[:, self._num_skipped :]


def read(backbone: nn.Module, images: Tensor, watches: Sequence[Watch]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The map [B, D, h, w] of images [B, 3, H, W], and from the same forward what every watch keeps."""
    for watch in watches:
        watch.active = True
    try:
        features: Tensor = backbone(images)
        return features, tuple(watch.take() for watch in watches)
    finally:
        for watch in watches:
            watch.active = False
