"""Weights of another resolution, layout or code, brought to the names and shapes of luma's own models.

Plain ViTs of timm load into token merging. The WTF benchmark (arXiv 2308.09372,
https://github.com/tobna/WhatTransformerToFavor) publishes no weights; who trained with its code has a `.tar` with a
`model_state`. Hydra, linear attention, Performer, Linformer, both Synthesizers, ToMe, FNet and Switch compute what ours
do. Not the same, and refused by their keys: Nyström without the paper's convolution, AFNO without its inner skip, GFNet
with one skip per block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isqrt

import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from luma_cli.isotropic.vit import TokenMixer

_RENAMED = {
    "attn.out.": "attn.proj.",
    "attn.to_out.": "attn.proj.",
    "attn.fast_attention.projection_matrix": "attn.directions",
    "attn.proj_k": "attn.key_mixtures",
    "attn.proj_v": "attn.value_mixtures",
    "attn.f_a.": "attn.first.",
    "attn.f_b.": "attn.second.",
    "attn.v.": "attn.value.",
    "attn.random_attn_1": "attn.seeing",
    "attn.random_attn_2": "attn.seen",
}
_QUERIES = re.compile(r"(.*\.attn\.)to_q\.(weight|bias)")
_OPTIONAL = re.compile(r"blocks\.\d+\.(ls[12]\.gamma|attn\.(?:qkv|value|first|second)\.bias)")
_ROUTER = re.compile(r"(.*\.mlp\.)switch\.(weight|bias)")
_EXPERT = re.compile(r"(.*\.mlp\.experts\.)(\d+)\.(fc[12]\.(?:weight|bias))")


def convert(state: dict[str, Tensor], model: VisionTransformer) -> dict[str, Tensor]:
    """`state` with patch and position embeddings resampled as timm does, and each mixer's parameters as it says.

    Names of the WTF benchmark's code become ours first. Weights of a plain ViT are weights for token merging too.
    """
    state = without_class_position(from_wtf(wtf_switch(state), model), model.patch_embed.num_patches)
    converted: dict[str, Tensor] = checkpoint_filter_fn(state, model)
    for name, module in model.named_modules():
        if isinstance(module, TokenMixer):
            own = [key for key in converted if key.startswith(f"{name}.")]
            converted |= {key: module.resampled(key.removeprefix(f"{name}."), converted[key]) for key in own}
    return converted


def from_wtf(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """`state` with the benchmark's names, if it has any, turned into ours; another layout comes back as it is.

    LayerScales and biases that no block has (`-no_layer_scale`, `-no_qkv_bias`) become ones and zeros: the same
    function. FNet's norm comes after the mean over tokens there and before it here. Raises KeyError when one of three
    projections is missing.
    """
    converted = {_renamed(key): value for key, value in state.items()}
    _join_projections(converted)
    _cut_padding(converted)
    if not any(".attn." in key for key in converted):  # FNet alone
        for name in ("weight", "bias"):
            if f"fc_norm.{name}" in converted:
                converted[f"norm.{name}"] = converted.pop(f"fc_norm.{name}")
    return {**converted, **dict(_neutral(converted, model))}


def _renamed(key: str) -> str:
    for foreign, own in _RENAMED.items():
        key = key.replace(f".{foreign}", f".{own}", 1)
    return key


def _join_projections(state: dict[str, Tensor]) -> None:
    """Three layers `to_q`, `to_k` and `to_v` become one `qkv`."""
    for match in filter(None, map(_QUERIES.fullmatch, tuple(state))):
        start, kind = match.groups()
        state[f"{start}qkv.{kind}"] = torch.cat([state.pop(f"{start}to_{part}.{kind}") for part in "qkv"])


def _cut_padding(state: dict[str, Tensor]) -> None:
    """Factors of random attention without the entries beyond the last token, which the benchmark never reads."""
    positions = state.get("pos_embed")
    if positions is None:
        return
    length = positions.shape[1] + (1 if "cls_token" in state else 0)
    for key, value in state.items():
        if key.endswith(".attn.seeing"):
            state[key] = value[:, :length]
        elif key.endswith(".attn.seen"):
            state[key] = value[:, :, :length]


def _neutral(state: Mapping[str, Tensor], model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Ones for LayerScales and zeros for biases of the model that the state lacks in every block."""
    present = {match[1] for match in map(_OPTIONAL.fullmatch, state) if match}
    for key, value in model.state_dict().items():
        match = _OPTIONAL.fullmatch(key)
        block = ".".join(key.split(".")[:2]) + "."
        if match and match[1] not in present and any(other.startswith(block) for other in state):
            yield key, torch.ones_like(value) if match[1].endswith("gamma") else torch.zeros_like(value)


def wtf_switch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the Switch layers of that code as ours; others untouched.

    Experts one by one become stacks, `switch` becomes `router`. Those layers were trained without multiplying by the
    gate and without dropping tokens: the first is kept in the weights (`unit_gates`), the second needs a capacity
    factor of as many as there are experts.
    """
    converted: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        if router := _ROUTER.fullmatch(key):
            converted[f"{router[1]}router.{router[2]}"] = value
            converted[f"{router[1]}unit_gates"] = torch.tensor(True)
        elif expert := _EXPERT.fullmatch(key):
            stacks.setdefault(expert[1] + expert[3], {})[int(expert[2])] = value
        else:
            converted[key] = value
    return converted | {key: _stacked(experts) for key, experts in stacks.items()}


def _stacked(experts: dict[int, Tensor]) -> Tensor:
    """Weights [out, in] of every expert as [E, in, out], biases [out] as [E, out]."""
    ordered = (experts[index] for index in range(len(experts)))
    return torch.stack([value.mT if value.ndim == 2 else value for value in ordered])


def without_class_position(state: dict[str, Tensor], num_patches: int) -> dict[str, Tensor]:
    """`state` with the class token's position, where it has one, added to the token: the model only ever sees the sum.

    A position embedding [1, 1 + h h, C] is taken to have one, [1, h h, C] and that of `num_patches` of the model, such
    as [1, 2 x 5, C], to have none.
    """
    token, positions = state.get("cls_token"), state.get("pos_embed")
    if token is None or positions is None or positions.ndim != 3:
        return state
    num_others = positions.shape[1] - 1
    if positions.shape[1] == num_patches or num_others < 1 or isqrt(num_others) ** 2 != num_others:
        return state
    return {**state, "cls_token": token + positions[:, :1], "pos_embed": positions[:, 1:]}
