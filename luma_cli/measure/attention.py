"""Which attention kernel runs: forced through torch's or timm's switches, checked before, listed after.

timm reads its switch when a module is built, so `set_fused` comes before building. torch's `sdpa_kernel` is exclusive:
a call that its only backend refuses raises, so every call is asked about beforehand.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.backends.cuda import (
    SDPAParams,
    can_use_cudnn_attention,
    can_use_efficient_attention,
    can_use_flash_attention,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

BACKENDS: dict[str, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
_ASK: dict[str, Callable[[SDPAParams, bool], bool]] = {
    "flash": can_use_flash_attention,
    "efficient": can_use_efficient_attention,
    "cudnn": can_use_cudnn_attention,
}


@dataclass(frozen=True, slots=True)
class Attend:
    """One call of scaled dot product attention: its tensors and whether it has a mask."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    dropout: float
    causal: bool
    scale: float | None
    grouped: bool

    @classmethod
    def of(cls, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Attend:
        """The call, however its arguments were passed."""
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = {**dict(zip(names, arguments, strict=False)), **keywords}
        return cls(
            given["query"],
            given["key"],
            given["value"],
            given.get("attn_mask"),
            float(given.get("dropout_p", 0.0)),
            bool(given.get("is_causal", False)),
            given.get("scale"),
            bool(given.get("enable_gqa", False)),
        )

    def describe(self) -> str:
        """E.g. `query [1, 12, 1024, 64] float32, no mask`."""
        dtype = str(self.query.dtype).removeprefix("torch.")
        return f"query {list(self.query.shape)} {dtype}, {'no mask' if self.mask is None else 'masked'}"

    def parameters(self) -> SDPAParams:
        """The call as torch's `can_use_*` take it."""
        return SDPAParams(self.query, self.key, self.value, self.mask, self.dropout, self.causal, self.grouped)


class AttentionWatch(TorchFunctionMode):
    """Sees every call of scaled dot product attention made under it and passes it to `on_call`."""

    def __init__(self, on_call: Callable[[Attend], None]):
        super().__init__()
        self._on_call = on_call

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look, then let the call through."""
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            self._on_call(Attend.of(args, kwargs))
        return func(*args, **kwargs)


def set_fused(attention: str) -> int | None:
    """Set timm's switch for models built from now on; returns its level, None where timm's own default stays.

    0: written-out attention. 2: fused also where timm calls it experimental (Swin, XCiT, Visformer).
    """
    if attention == "auto":
        return None
    from timm.layers.config import set_fused_attn

    level = 0 if attention == "unfused" else 2
    set_fused_attn(level > 0, experimental=level > 1)
    return level


@contextlib.contextmanager
def forced(attention: str) -> Iterator[None]:
    """Only this backend of torch for calls inside; `auto`, `unfused` and `flash-attn` leave torch its choice."""
    backend = BACKENDS.get(attention)
    if backend is None:
        yield
        return
    with sdpa_kernel(backend):
        yield


def refusal(call: Attend, attention: str) -> str:
    """Why the backend cannot run this call; empty when it can."""
    ask = _ASK.get(attention)
    if ask is None:
        return ""
    with _said() as said:
        return "" if ask(call.parameters(), True) else said() or "no reason given by torch"


@contextlib.contextmanager
def _said() -> Iterator[Callable[[], str]]:
    """Collects what torch says meanwhile: as Python warnings, or from C++ straight to file descriptor 2."""
    with tempfile.TemporaryFile() as file, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)

        def text() -> str:
            file.seek(0)
            raw = [*(str(w.message) for w in caught), *file.read().decode(errors="replace").splitlines()]
            return "; ".join(dict.fromkeys(line for line in map(_plain, raw) if line))

        try:
            yield text
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _plain(line: str) -> str:
    """A warning of torch without its time, its source line and the function that gave it."""
    line = re.sub(r"^\[W\S* \S+ \S+\] (Warning: )?", "", line.strip())
    line = re.sub(r"\s*\((?:function \w+|Triggered internally at [^)]*)\)", "", line)
    return line.strip().rstrip(".")
