"""Proof that the FFN lent to queries is the one that the tapped block runs.

Initial scales are so small (LayerScale 1e-5) that a missing FFN passes a naive comparison, so on a copy every scale and
norm of the FFN is redrawn from N(0,1) first. Then one forward of the whole model is watched: Z enters the FFN, Y
leaves the block, and the change that the query path makes to Z must be the change that the block itself made.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.query_ffn import QueryFfn, part
from luma_cli.backbone.timm_model import to_tokens

MAX_RELATIVE_ERROR = 1e-4
MIN_RELATIVE_CHANGE = 1e-2
Status = Literal["exact", "spatial", "wrong", "fresh"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check found.

    status: `exact` the query path reproduces the block on every token; `spatial` the FFN mixes positions, it reproduces
    the block on the whole grid and queries run it on 1 x 1 images; `wrong` it does not; `fresh` there is none to check.
    error: relative error of the FFN's change; change: size of that change relative to its input.
    is_map: whether the feature map is the tapped block's output.
    """

    status: Status
    error: float
    change: float
    is_map: bool
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the backbone can be used as its rule says."""
        return self.status != "wrong"


@dataclass(frozen=True, slots=True)
class Observed:
    """Tensors of one forward: `entry` Z before the FFN, `start` the block's input, `end` its output, `features`."""

    entry: Tensor
    start: Tensor
    end: Tensor
    features: Tensor


def check(backbone: Backbone, *, seed: int = 0) -> Verdict:
    """Prove the FFN of `backbone` on a copy with scales redrawn; the backbone itself is left as it is.

    Weights must be real ones (not on meta). One forward of one image.
    """
    if not backbone.ffn_kind:
        return Verdict("fresh", 0.0, 0.0, True, backbone.ffn_reason)
    generator = torch.Generator().manual_seed(seed)
    twin = copy.deepcopy(backbone).float().eval()
    redraw_scales(twin.ffn, generator)
    side = twin.resolution
    image = torch.randn(1, 3, side, side, generator=generator).to(next(twin.parameters()).device)
    with torch.no_grad():
        seen = observe(twin, image)
        return judge(twin.ffn, seen, residual(twin.ffn, seen))


def redraw_scales(ffn: QueryFfn, generator: torch.Generator) -> None:
    """Draw every vector of the FFN's parts from N(0,1) (norms, LayerScales, gammas, biases), variances from 0.5 to 1.5.

    Matrices are drawn to keep the size of their input, so that the FFN counts beside a skip path that is scaled too.
    """
    with torch.no_grad():
        for found in ffn.parts():
            parameters = [found] if isinstance(found, nn.Parameter) else list(found.parameters())
            for parameter in parameters:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / _fan_in(parameter) ** 0.5)
            for norm in [] if isinstance(found, nn.Parameter) else found.modules():
                if isinstance(norm, _BatchNorm) and norm.running_var is not None and norm.running_mean is not None:
                    norm.running_mean.copy_(0.5 * torch.randn(norm.running_mean.shape, generator=generator))
                    norm.running_var.copy_(0.5 + torch.rand(norm.running_var.shape, generator=generator))


def _fan_in(parameter: Tensor) -> int:
    """Inputs per output of a layer's weight: [out, in, ...], or [experts, in, out] in a stack of experts."""
    is_vector = parameter.numel() == max(parameter.shape, default=1)
    if is_vector or (parameter.ndim == 2 and parameter.shape[0] <= 4):  # EfficientViM keeps four gates in one
        return 1  # a scale
    return parameter.shape[1] if parameter.ndim == 3 else parameter.numel() // parameter.shape[0]


def observe(backbone: Backbone, image: Tensor) -> Observed:
    """One forward of the real model, with the tapped block and the first module of its FFN watched."""
    ffn = backbone.ffn
    seen: dict[str, Tensor] = {}
    entry = next(m for name in ffn.rule.branch if isinstance(m := part(ffn.block, name), nn.Module))
    entry = next(iter(entry.children())) if isinstance(entry, nn.ModuleList) else entry

    def keep_end(_: nn.Module, __: Any, output: Any) -> None:
        seen["end"] = output if isinstance(output, Tensor) else output[ffn.rule.output_index]

    hooks = [
        entry.register_forward_pre_hook(lambda _, inputs: seen.__setitem__("entry", inputs[0])),
        ffn.block.register_forward_pre_hook(lambda _, inputs: seen.__setitem__("start", inputs[0])),
        ffn.block.register_forward_hook(keep_end),
    ]
    try:
        features = backbone(image)
    finally:
        for hook in hooks:
            hook.remove()
    return Observed(seen["entry"].clone(), seen["start"], seen["end"], features)


def residual(ffn: QueryFfn, seen: Observed) -> Tensor:
    """What the real block added to its skip path: tokens [B,N,D]."""
    output = ffn.rule.output or ffn.rule.layout
    end = to_tokens(seen.end, output)
    if ffn.rule.residual == "input":
        return end - to_tokens(seen.start, output)
    return end - to_tokens(seen.entry, ffn.rule.layout)


def judge(ffn: QueryFfn, seen: Observed, truth: Tensor) -> Verdict:
    """Compare the change that `ffn` makes to Z with `truth`, the change that the block made."""
    tokens = to_tokens(seen.entry, ffn.rule.layout)
    if ffn.rule.alone:
        side = round(tokens.shape[1] ** 0.5)
        sizes = {"nhwc": tuple(seen.entry.shape[1:3]), "nchw": tuple(seen.entry.shape[2:4]), "tokens": (side, side)}
        ours = to_tokens(ffn.on_grid(seen.entry, sizes[ffn.rule.layout]), ffn.rule.layout) - tokens
    else:
        ours = ffn(tokens) - tokens
    error = _relative(ours - truth, truth)
    change = _relative(truth, tokens)
    is_map = same_map(seen, ffn)
    if change < MIN_RELATIVE_CHANGE:
        return Verdict("wrong", error, change, is_map, f"the block changes Z by {change:.1e} only: nothing is proved")
    if not error <= MAX_RELATIVE_ERROR:
        return Verdict("wrong", error, change, is_map, f"relative error {error:.1e}, at most {MAX_RELATIVE_ERROR:.0e}")
    return Verdict("spatial" if ffn.rule.alone else "exact", error, change, is_map, "")


def _relative(part_: Tensor, whole: Tensor) -> float:
    return float(part_.norm() / whole.norm().clamp_min(1e-30))


def same_map(seen: Observed, ffn: QueryFfn) -> bool:
    """Whether the feature map holds the tokens of the block's output, in any order; prefix tokens come first."""
    end = to_tokens(seen.end, ffn.rule.output or ffn.rule.layout)
    features = to_tokens(seen.features, "nchw")
    prefix = end.shape[1] - features.shape[1]
    if prefix < 0 or end.shape[2] != features.shape[2]:
        return False
    ours, theirs = end[:, prefix:].sum(1), features.sum(1)
    return bool(torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())))
