"""Costs counted by passes on the meta device: facts of a backbone, a segmenter with its head, and module by module."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import groupby
from typing import Any

import torch
from torch import nn

from luma_cli.backbone.backbone import Backbone, joint_blocks, meta_twin
from luma_cli.backbone.create import create_backbone
from luma_cli.backbone.levels import own_maps
from luma_cli.backbone.query_ffn import QueryFfn
from luma_cli.catalogue.costs import BackboneFacts, Block, format_blocks, format_levels
from luma_cli.catalogue.head_cost import head_macs, head_params
from luma_cli.catalogue.heads import HeadConfig, needs_blocks, plan_head
from luma_cli.errors import LumaError, MeasureError
from luma_cli.head import segmenter as segmenters
from luma_cli.head.eomt import EomtHead
from luma_cli.head.luma import LumaHead
from luma_cli.head.mask2former import Mask2FormerHead
from luma_cli.head.segmenter import Segmenter, block_of, tap_of
from luma_cli.isotropic.mixtures import idle_params
from luma_cli.measure.cost import Cost, CountJob, Refusal
from luma_cli.measure.count import Count, Counting, count, known_zero

RGB = 3
SEPARATOR = " > "  # between a caller and a module that it does not own
_FVCORE_WITHOUT_MACS = ("batch_norm", "group_norm", "layer_norm", "instance_norm", "adaptive_avg_pool2d")


def answer(job: CountJob) -> BackboneFacts | Cost | Refusal:
    """The facts or the checked cost that `job` asks for, or a refusal."""
    try:
        if job.head is None:
            return backbone_facts(create_backbone(job.spec, job.resolution, device="meta"))
        segmenter = segmenters.build(job.spec, job.resolution, head=job.head, device="meta")
        counted = segmenter_cost(segmenter)
        known = Count(counted.backbone_macs, counted.activations, unknown_ops=counted.unknown_ops)
        facts = backbone_facts(segmenter.backbone, known)
        return checked(counted, (head_macs(facts, job.head), head_params(facts, job.head)))
    except LumaError as error:
        return Refusal.of(error)
    except Exception as error:  # a backbone that fails in its own code must not hide the others
        text = str(error).strip().splitlines() or ["no message"]
        named = f"{job.spec.name} at {job.resolution}"
        return Refusal("MeasureError", f"{named} could not be counted: {type(error).__name__}: {text[0]}")


def checked(counted: Cost, formula: tuple[int, int]) -> Cost | Refusal:
    """`counted`, or a refusal if the closed form gives its head other multiply-adds or parameters."""
    if formula == (counted.head_macs, counted.head_params):
        return counted
    return Refusal(
        "MeasureError",
        f"{counted.backbone} at {counted.resolution}: the closed form gives the head {formula[0]} multiply-adds and "
        f"{formula[1]} parameters, counted were {counted.head_macs} and {counted.head_params}",
    )


def backbone_facts(backbone: Backbone, counted: Count | None = None) -> BackboneFacts:
    """The facts of `backbone` at its own resolution, from a twin without data.

    counted: the count of its forward on one image, if known; it saves the pass.
    """
    twin = meta_twin(backbone)
    side = twin.resolution
    counted = counted or count(twin, torch.empty(1, RGB, side, side, device="meta"))
    plan = plan_head(tap_of(twin), HeadConfig())
    query_ffn_macs = _ffn_macs(twin.query_ffn, twin.width) if plan.ffn == "reused" else 0
    joint = [_token_and_pair_macs(block, twin.width) for block in reversed(joint_blocks(twin))]
    return BackboneFacts(
        architecture=twin.spec.architecture,
        resolution=side,
        macs=counted.macs,
        params=num_parameters(twin),
        activations=counted.activations,
        width=twin.width,
        stride=twin.stride,
        num_tokens=twin.num_tokens,
        ffn=plan.ffn,
        query_ffn_macs=query_ffn_macs,
        num_heads=plan.num_heads,
        final_norm=twin.has_final_norm,
        complete=counted.complete,
        unknown_ops=" ".join(counted.unknown_ops),
        timm=version("timm"),
        active_params=num_active_parameters(twin),
        num_prefix_tokens=twin.sites.num_prefix_tokens,
        blocks=format_blocks(_blocks(twin, query_ffn_macs)),
        no_joint=twin.rule.joint_refusal,
        joint_blocks=" ".join(f"{each[0]}x{each[1]}*{len(list(same))}" for each, same in groupby(joint)),
        levels=format_levels(each.level for each in own_maps(twin)),
    )


def num_parameters(module: nn.Module) -> int:
    """Parameters of `module`, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def num_active_parameters(module: nn.Module) -> int:
    """Parameters of `module` that one token meets: all but those of luma's experts that it is not sent to."""
    return num_parameters(module) - idle_params(module)


def _blocks(backbone: Backbone, last_ffn_macs: int) -> list[Block]:
    """The blocks that queries can read, last first, with the cost of a query in their FFNs."""
    found = [block_of(backbone, back) for back in range(len(backbone.sites.found))]
    known: dict[object, int] = {}  # blocks of the same shapes are counted once
    blocks = [replace(block, ffn_macs=last_ffn_macs) for block in found[:1]]
    for back, block in enumerate(found[1:], 1):
        ffn, macs = backbone.earlier_ffn(back), 0
        if block.lends_ffn and isinstance(ffn, QueryFfn):
            likeness = _likeness(ffn)
            if likeness not in known:
                known[likeness] = _ffn_macs(ffn, block.width)
            macs = known[likeness]
        blocks.append(replace(block, ffn_macs=macs))
    return blocks


def _likeness(ffn: QueryFfn) -> object:
    """A key that FFNs of the same rule, classes and shapes share."""
    modules = [module for part in ffn.parts() if isinstance(part, nn.Module) for module in part.modules()]
    shapes = [tuple(parameter.shape) for module in modules for parameter in module.parameters(recurse=False)]
    return ffn.rule, tuple(type(module) for module in modules), tuple(shapes)


def _ffn_macs(ffn: Callable[[torch.Tensor], torch.Tensor], width: int) -> int:
    """Multiply-adds of one query through `ffn`."""
    return count(ffn, torch.empty(1, 1, width, device="meta")).macs


def _token_and_pair_macs(block: nn.Module, width: int) -> tuple[int, int]:
    """Multiply-adds of a transformer block per token and per pair of tokens, from counts with one and two tokens."""
    # Attention has one product per pair; every other layer works on each token alone.
    one, two = (count(block, torch.empty(1, tokens, width, device="meta")).macs for tokens in (1, 2))
    per_pair = (two - 2 * one) // 2
    return one - per_pair, per_pair


def segmenter_cost(segmenter: Segmenter) -> Cost:
    """Counted cost of `segmenter` on one image of its backbone's resolution; the head's is what it adds."""
    twin = meta_twin(segmenter)
    side = twin.backbone.resolution
    images = torch.empty(1, RGB, side, side, device="meta")
    made: list[torch.Tensor] = []
    backbone = count(lambda: made.append(twin.backbone(images)))
    (features,) = made
    num_blocks, head = 0, Count(0, 0)
    if twin.runs_blocks:  # inside the backbone: count the whole, subtract the backbone
        num_blocks = twin.head.plan.num_joint if isinstance(twin.head, EomtHead) else 0
        whole = count(twin, images)
        head = replace(whole, macs=whole.macs - backbone.macs, activations=whole.activations - backbone.activations)
    elif twin.head is not None:
        num_blocks = twin.config.l2 if isinstance(twin.head, LumaHead) else 0
        reads_blocks = (isinstance(twin.head, LumaHead) and needs_blocks(twin.config)) or isinstance(
            twin.head, Mask2FormerHead
        )
        head = count(twin.decode, twin.read(images) if reads_blocks else features, (side, side))
    return Cost(
        backbone=twin.backbone.spec.name,
        architecture=twin.backbone.spec.architecture,
        resolution=side,
        head=twin.config,
        backbone_macs=backbone.macs,
        head_macs=head.macs,
        backbone_params=num_parameters(twin.backbone),
        backbone_active_params=num_active_parameters(twin.backbone),
        head_params=num_parameters(twin.head) if twin.head is not None else 0,
        activations=backbone.activations,
        width=twin.backbone.width,
        stride=twin.backbone.stride,
        num_tokens=features.shape[2] * features.shape[3],
        ffn=twin.ffn,
        l2=num_blocks,
        complete=backbone.complete and head.complete,
        unknown_ops=tuple(sorted({*backbone.unknown_ops, *head.unknown_ops})),
        timm=version("timm"),
        source="counted",
    )


def count_by_module(root: nn.Module, *inputs: Any) -> tuple[Count, Counter[str]]:
    """The count of `root(*inputs)`, and the multiply-adds of every module by path; the root's path is ''.

    A module owned by its caller has its own name (`backbone.model.blocks.11.mlp`), a borrowed one the caller's before
    it (`head > backbone.model.blocks.11.mlp`): what two parts share counts in each for its own calls.
    """
    names = {module: name for name, module in root.named_modules()}
    running: list[str] = []  # paths, innermost last
    macs_of: Counter[str] = Counter()

    def on_macs(macs: int) -> None:
        for path in dict.fromkeys(running):  # once each, though a module may call itself
            macs_of[path] += macs

    def enter(module: nn.Module, inputs: Any) -> None:
        running.append(_path(running[-1], names[module]) if running else names[module])

    counting = Counting(on_macs)
    with ExitStack() as hooks:
        for module in names:
            hooks.enter_context(module.register_forward_pre_hook(enter))
            hooks.enter_context(module.register_forward_hook(lambda *_: running.pop() and None, always_call=True))
        with torch.inference_mode(), counting:
            root(*inputs)
    return counting.result(), macs_of


def _path(running: str, name: str) -> str:
    """The path of module `name`, called by the module whose path is `running`."""
    caller, _, owner = running.rpartition(SEPARATOR)
    prefix = caller + SEPARATOR if caller else ""
    owned = not owner or name.startswith(f"{owner}.")
    return f"{prefix}{name}" if owned else f"{running}{SEPARATOR}{name}"


@dataclass(frozen=True, slots=True)
class ModuleCost:
    """Multiply-adds of one module and all that it calls, by our count and by fvcore's.

    path: dotted name; `caller > name` for a borrowed module, such as the reused FFN in the head.
    fvcore_macs: None where fvcore cannot separate borrowed calls from owned ones.
    """

    path: str
    macs: int
    fvcore_macs: int | None
    params: int


def by_module(segmenter: Segmenter, max_depth: int = 5) -> list[ModuleCost]:
    """Every module with multiply-adds, in the model's order and down to `max_depth` dots; the first is the whole.

    `segmenter` is on the CPU with data, as fvcore runs it. Raises MeasureError for operators unknown to fvcore.
    """
    side = segmenter.backbone.resolution
    _, ours = count_by_module(meta_twin(segmenter), torch.empty(1, RGB, side, side, device="meta"))
    theirs = fvcore_macs(segmenter, torch.zeros(1, RGB, side, side))
    params = {name: num_parameters(module) for name, module in segmenter.named_modules()}
    names = {path: path.rpartition(SEPARATOR)[2] for path, macs in ours.items() if macs}
    borrowed = {name for path, name in names.items() if path != name}
    return [
        ModuleCost(path, ours[path], None if name in borrowed else theirs[name], params[name])
        for path, name in names.items()
        if name.count(".") < max_depth
    ]


def fvcore_macs(module: nn.Module, *inputs: torch.Tensor) -> Counter[str]:
    """Fvcore's multiply-adds per module name, called modules counted with their caller.

    Raises MeasureError for an operator that neither fvcore nor our list of known zeros has.
    """

    # fvcore has no handle for fused attention (fvcore issue 143), and counts norms and pooling, which we do not
    def attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        query, key, value = (item.type().sizes() for item in inputs[:3])
        return Counter({"attention": math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])})

    def weighted_bags(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        table, indices = (item.type().sizes() for item in inputs[:2])
        return Counter({"embedding_bag": math.prod(indices) * table[-1]})

    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    with warnings.catch_warnings(), torch.no_grad():
        # fvcore warns about torch.jit and every unknown operator; what matters is raised below
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(module, inputs)
        analysis.ancestor_mode("caller").unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle("aten::scaled_dot_product_attention", attention)
        analysis.set_op_handle("aten::embedding_bag", weighted_bags)
        for name in _FVCORE_WITHOUT_MACS:
            analysis.set_op_handle(f"aten::{name}", lambda inputs, outputs: Counter())
        logger.setLevel(logging.ERROR)
        try:
            found, unsupported = analysis.by_module(), analysis.unsupported_ops()
        finally:
            logger.setLevel(level)
    zero = {name.replace(".", "::") for name in known_zero()}
    if unknown := sorted(name for name in unsupported if name not in zero):
        listed = ", ".join(unknown)
        raise MeasureError(f"fvcore cannot count {listed}; leave out --by-module: `luma cost` counts them")
    return Counter({name: int(macs) for name, macs in found.items()})
