"""The rule table: how each timm model class is built at a size, tapped, and which FFN its tapped block has.

Read from `models/timm_rules.toml`. Imports no torch. A class or block without a rule gets a fresh FFN.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

from luma_cli import files
from luma_cli.catalogue.spec import Family
from luma_cli.errors import BadCard, BadResolution

Size = Literal["img_size", "plain"]
Layout = Literal["tokens", "nhwc", "nchw"]
MAX_RESOLUTION = 16384
_PATCH = re.compile(r"(?:patch|_p)(\d+)")


@dataclass(frozen=True, slots=True)
class FfnRule:
    """The residual FFN of one block class: `post(skip(z) + branch(z))`, each a chain of the block's own parts.

    A part is a dotted name in the block: a module is called, a parameter multiplies, None (not built) is passed over.
    kind: the taxonomy's name for it (`pre-norm`, `post-norm`, `metaformer`, ...). layout: of the tensor that the FFN
    sees; output: of the block's output where it differs. skip: parts on the skip path; skip_if: the part that must
    exist for them to apply.
    residual: `sum` skip(z) + branch(z); `inside` the branch contains its own skip; `input` the block's only residual
    starts at its input, before the token mixer (ConvNeXt), and the query's skip is the query itself; `gated` z +
    sigmoid(gate)[gate_row] * (branch(z) - z).
    nchw_if: `part is Class`, the layout is nchw in and out where that holds; only_if: conditions without which the
    block has no token-wise FFN. output_index: which of several outputs of the block is the patch map.
    alone: the FFN mixes positions (depth-wise convolution, GRN, GroupNorm), so each query is its own 1 x 1 image;
    alone_if: conditions of which any one makes it so. feat_size: the part that takes the grid's height and width as
    second argument. untouched: attributes and buffers of the block (a router's auxiliary loss and counts) that queries
    must not change. heads: dotted path, in the block, of its number of attention heads, before the model's.
    """

    kind: str
    branch: tuple[str, ...]
    layout: Layout = "tokens"
    output: Layout | Literal[""] = ""
    skip: tuple[str, ...] = ()
    skip_if: str = ""
    post: tuple[str, ...] = ()
    residual: Literal["sum", "inside", "input", "gated"] = "sum"
    gate: str = ""
    gate_row: int = 0
    nchw_if: str = ""
    only_if: tuple[str, ...] = ()
    output_index: int = 0
    alone: bool = False
    alone_if: tuple[str, ...] = ()
    feat_size: str = ""
    untouched: tuple[str, ...] = ()
    heads: str = ""


@dataclass(frozen=True, slots=True)
class ModelRule:
    """How a model is built and tapped: what its timm module says, overridden by its class, then by the card.

    size: `img_size` passes the size to the constructor, `plain` does not. multiple: sides must be multiples of it, in
    pixels; 0 means the patch size in the architecture's name. minimum, maximum: smallest and largest side, in pixels.
    aligned: whether the map divides the image evenly; without padding or with rescaled inputs it does not.
    patch14: build /14 patch embeddings as /16 (as EoMT does), so that 512 fits.
    arguments: further arguments of the constructor. filter, filter_arguments: the function of its timm module, or
    `package.module:function`, that converts checkpoints.
    features: `intermediates` asks the model for its last map, `tokens` for its last tokens on a square grid of
    `multiple` pixels, `forward` takes the module's own BCHW output. indices: the argument of `forward_intermediates`;
    the last map of the answer is the feature map.
    tap: dotted path of the last block on the patch grid, `-1` counts from the end; of several, the first that was
    built; empty when there is no FFN. reason: why there is no FFN to reuse. ffn: the card's rule of the block's FFN,
    instead of that of the block's class. heads: dotted path, in the block, of its number of attention heads.
    norm: dotted path of the final norm on the patch map, empty when there is none; norm_layout: what it normalises.
    joint: how EoMT's queries join the token sequence of the last blocks: `tokens`, as in timm's VisionTransformer,
    whose `_pos_embed` gives tokens and whose blocks take a mask; `rope`, as in timm's Eva, with rotations beside them.
    no_joint: which assumption of EoMT the model breaks, where its token mixer does not say so already.
    """

    family: Family = "unknown"
    token_mixer: str = ""
    size: Size = "plain"
    multiple: int = 32
    minimum: int = 1
    maximum: int = MAX_RESOLUTION
    aligned: bool = True
    patch14: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    filter: str = ""
    filter_arguments: Mapping[str, Any] = field(default_factory=dict)
    features: Literal["intermediates", "tokens", "forward"] = "intermediates"
    indices: int | tuple[int, ...] = 1
    tap: str | tuple[str, ...] = ""
    norm: str = ""
    norm_layout: Layout = "tokens"
    heads: str = ""
    reason: str = ""
    joint: Literal["", "tokens", "rope"] = ""
    no_joint: str = ""
    ffn: FfnRule | None = None

    @property
    def joint_refusal(self) -> str:
        """Why queries cannot join its last blocks, as the end of a sentence about EoMT; empty when they can."""
        if self.joint or self.no_joint:
            return "" if self.joint else self.no_joint
        if self.token_mixer in ("", "attention"):
            return "needs access to the token sequence, and no rule says how to enter this one's"
        return f"needs global self-attention in the last blocks, and its token mixer is {self.token_mixer}"


@dataclass(frozen=True, slots=True)
class Rules:
    """The whole table. Modules are timm's own, classes are named `module.Class` as in timm.models."""

    modules: Mapping[str, Mapping[str, Any]]
    models: Mapping[str, Mapping[str, Any]]
    architectures: Mapping[str, Mapping[str, Any]]
    blocks: Mapping[str, FfnRule]
    fresh: Mapping[str, str]

    def build_rule(self, module: str, architecture: str, override: Mapping[str, Any]) -> ModelRule:
        """How an architecture of this timm module is built, before its class is known; `plain` without a rule."""
        return parse_model_rule({**self._module(module, architecture), **override}, module)

    def model_rule(self, module: str, cls: str, architecture: str, override: Mapping[str, Any]) -> ModelRule:
        """How a model of this class is built and tapped; a class without a rule gets a fresh FFN and the reason."""
        unknown = {"reason": f"model class {cls} has no rule"}
        merged = {**self._module(module, architecture), **self.models.get(cls, unknown), **override}
        return parse_model_rule(merged, cls)

    def _module(self, module: str, architecture: str) -> dict[str, Any]:
        merged = dict(self.modules.get(module, {}))
        for pattern, values in self.architectures.items():
            if fnmatchcase(architecture, pattern):
                merged.update(values)
        return merged

    def ffn_rule(self, cls: str) -> FfnRule | str:
        """The FFN of a block class, or the reason why it has none to reuse."""
        return self.blocks.get(cls) or self.fresh.get(cls, f"block class {cls} has no rule")


def patch_size(architecture: str) -> int:
    """Side in pixels of the patches that the architecture's name states; 0 where it states none.

    >>> patch_size("vit_base_patch16_224"), patch_size("resnet50")
    (16, 0)
    """
    match = _PATCH.search(architecture)
    return int(match[1]) if match else 0


def multiple_of(rule: ModelRule, architecture: str) -> int:
    """Sides at which the model can be built are multiples of this many pixels."""
    patch = patch_size(architecture)
    return 16 if rule.patch14 and patch == 14 else rule.multiple or patch or 16


def valid_near(resolution: int, multiple: int, minimum: int = 1, maximum: int = MAX_RESOLUTION) -> list[int]:
    """The nearest sides, in pixels, below and above `resolution` that are multiples and within bounds.

    >>> valid_near(500, 32)
    [480, 512]
    """
    least = -(-max(minimum, 1) // multiple) * multiple
    most = maximum // multiple * multiple
    below = min(max(resolution // multiple * multiple, least), most)
    above = min(max(-(-resolution // multiple) * multiple, least), most)
    return sorted({below, above})


def check_resolution(name: str, resolution: int, rule: ModelRule, architecture: str) -> None:
    """Raise BadResolution, with the nearest valid sizes, unless the rule allows a square of this side in pixels."""
    multiple = multiple_of(rule, architecture)
    if resolution % multiple == 0 and max(rule.minimum, 1) <= resolution <= rule.maximum:
        return
    near = valid_near(resolution, multiple, rule.minimum, rule.maximum)
    least, most = valid_near(1, multiple, rule.minimum)[0], valid_near(MAX_RESOLUTION, multiple, 1, rule.maximum)[-1]
    expected = f"{least} alone" if least == most else f"multiples of {multiple} from {least} to {most}"
    raise BadResolution(
        f"{name} cannot be built at {resolution} pixels: expected {expected}; try --res {' or '.join(map(str, near))}"
    )


def parse_ffn_rule(values: Mapping[str, Any], where: str) -> FfnRule:
    """The FFN rule that a table of TOML states. Raises BadCard."""
    known = _known(values, FfnRule, where)
    if not {"kind", "branch"} <= set(values):
        raise BadCard(f"{where}: an FFN rule needs `kind` and `branch`, got {', '.join(sorted(values))}")
    return FfnRule(**known)


def parse_model_rule(values: Mapping[str, Any], where: str) -> ModelRule:
    """The model rule that a table of TOML states. Raises BadCard."""
    known = _known(values, ModelRule, where)
    if isinstance(known.get("ffn"), Mapping):
        known["ffn"] = parse_ffn_rule(known["ffn"], f"{where}.ffn")
    return ModelRule(**known)


def _known(values: Mapping[str, Any], kind: type, where: str) -> dict[str, Any]:
    """`values` with tuples for lists, each key a field of `kind`. Raises BadCard."""
    known = [entry.name for entry in fields(kind)]
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise BadCard(f"{where}: unknown key {key!r}; {hint}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


@cache
def load_rules(path: Path | None = None) -> Rules:
    """The rule table at `path`, by default the shipped `models/timm_rules.toml`. Raises BadCard."""
    path = path or files.root() / "models" / "timm_rules.toml"
    table = files.read_toml(path)
    known = ("modules", "filters", "architectures", "models", "blocks", "fresh")
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise BadCard(f"{path}: unknown table {unknown[0]!r}; known: {', '.join(known)}")
    parts = {part: _by_name(table.get(part, []), f"{path.name} {part}") for part in known[:-1]}
    for part in known[:-2]:
        for name, values in parts[part].items():
            parse_model_rule(values, f"{path.name} {part} {name}")
    blocks = {name: parse_ffn_rule(rule, f"{path.name} blocks {name}") for name, rule in parts["blocks"].items()}
    names = parts["modules"].keys() | parts["filters"].keys()
    modules = {name: {**parts["modules"].get(name, {}), **parts["filters"].get(name, {})} for name in names}
    return Rules(modules, parts["models"], parts["architectures"], blocks, table.get("fresh", {}))


def _by_name(entries: list[dict[str, Any]], where: str) -> dict[str, Mapping[str, Any]]:
    """Each entry under every name in its `names`. Raises BadCard for an entry without names and a name given twice."""
    found: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        names = entry.get("names", [])
        if not names:
            raise BadCard(f"{where}: entry {entry} has no `names`; expected the classes that it is about")
        for name in names:
            if name in found:
                raise BadCard(f"{where}: {name!r} is named twice; keep one entry")
            found[name] = {key: value for key, value in entry.items() if key != "names"}
    return found
