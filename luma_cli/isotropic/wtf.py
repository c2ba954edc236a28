"""Checkpoints in the layout of the WTF benchmark's public code, brought to the names and shapes of ours.

The benchmark (arXiv 2308.09372, https://github.com/tobna/WhatTransformerToFavor) publishes no weights; who trained with
its code has a `.tar` with a `model_state`. Hydra, linear attention, Performer, Linformer, both Synthesizers, ToMe and
FNet compute what ours do. Not the same, and refused by their keys: Nyström without the paper's convolution, AFNO
without its inner skip, GFNet with one skip per block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

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
        if match and match[1] not in present and any(_same_block(key, other) for other in state):
            ones = match[1].endswith("gamma")
            yield key, torch.ones_like(value) if ones else torch.zeros_like(value)


def _same_block(key: str, other: str) -> bool:
    return other.startswith(".".join(key.split(".")[:2]) + ".")
