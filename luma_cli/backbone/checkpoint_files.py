"""Files of weights as people have them: read without running code, and where in them the tensors of one model may lie.

Of two places that fit alike, averaged weights come before raw ones, as timm has it, and a teacher before its student,
as DINOv2 publishes it.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import pathlib
import pickle
import re
import types
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from luma_cli.errors import WeightsError

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
# Plain containers in which training scripts keep their arguments: to build one runs no code of the file.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    collections.defaultdict,
    *(
        (kind, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for kind, name in ((pathlib.PurePosixPath, "PosixPath"), (pathlib.PureWindowsPath, "WindowsPath"))
    ),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "u1", "?")),
]
_COMPILED_OR_SHARDED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_BETTER, _WORSE = {"ema", "teacher"}, {"student", "momentum", "target"}
_MAX_DEPTH = 4


def read(path: Path) -> tuple[Any, str]:
    """What `path` holds, tensors on the CPU, and its SHA-256; of an `.index.json`, its shards'. Raises WeightsError."""
    if path.name.endswith(".index.json"):
        parts = [read(shard) for shard in _shards(path)]
        merged = {key: value for tensors, _ in parts for key, value in tensors.items()}
        return merged, hashlib.sha256("\n".join(digest for _, digest in parts).encode()).hexdigest()
    contents = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    with path.open("rb") as file:
        return contents, hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """The largest mapping of names to tensors in the file, and its SHA-256. Raises WeightsError where there is none."""
    contents, digest = read(path)
    found = max((tensors for _, tensors in _mappings(contents, ())), key=len, default=None)
    if not found:
        raise WeightsError(f"{path} holds no named tensors; expected a checkpoint")
    return found, digest


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{index} is no index of shards; expected JSON with a weight_map from keys to files"
        ) from error
    for name in names:
        if Path(name).name != name or name.endswith(".json"):
            raise WeightsError(f"{index} names the shard {name!r}; expected the name of a file beside it")
        if not (index.parent / name).is_file():
            raise WeightsError(f"{index} names the shard {name}, which is not beside it; copy it there")
    return [index.parent / name for name in names]


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error


def _pickle(path: Path) -> Any:
    if path.suffix not in _PICKLES:
        raise WeightsError(f"{path}: unknown kind of file; expected .safetensors, or {', '.join(_PICKLES)}")
    try:
        # old pickle protocols warn: what matters is refused or loaded
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path} was refused: {_unsafe(str(error), path)}") from error
    except (RuntimeError, OSError, EOFError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise WeightsError(f"{path} cannot be read as PyTorch weights; expected a file of torch.save") from error


def _unsafe(said: str, path: Path) -> str:
    """What in a pickle could run code, and what to save instead."""
    try:
        names = list(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # older files than torch looks into; its own refusal then names the first
        names = re.findall(r"GLOBAL (\S+)", said)
    if any(name.startswith("torch.nn.modules.") for name in names):
        return (
            "it is a whole module and could run code; save model.state_dict() instead, with safetensors or torch.save"
        )
    what = f"{names[0]}, which is more than tensors" if names else "more than tensors"
    return f"it holds {what} and could run code; save model.state_dict() alone, or use .safetensors"


@dataclass(frozen=True, slots=True)
class ModelInFile:
    """Tensors that may be one model's: those whose keys begin with `prefix` in the mapping at `where`, prefix removed.

    note: which names were translated; empty for none. overlap: how many keys are the model's own.
    """

    where: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    note: str
    overlap: int

    @property
    def place(self) -> str:
        """Where it lies in the file, e.g. `model.teacher.backbone.`; empty for all of the file."""
        return "".join(f"{key}." for key in self.where) + self.prefix

    @property
    def rank(self) -> int:
        """0 for averaged weights and teachers, 2 for students, 1 for all others."""
        words = set(re.split(r"[._]", self.place))
        return 0 if words & _BETTER else 2 if words & _WORSE else 1


def models_in(checkpoint: Any, own: Collection[str]) -> list[ModelInFile]:
    """Where in a file the tensors of a model with the keys `own` may lie, the likeliest first."""
    found = []
    for where, tensors in _mappings(checkpoint, ()):
        for prefix in _prefixes(tensors, len(own) // 3):
            inner = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            renamed, note = from_transformers(inner)
            found.append(ModelInFile(where, prefix, renamed, note, len(renamed.keys() & set(own))))
    most = max((each.overlap for each in found), default=0)
    return sorted(found, key=lambda each: (2 * each.overlap < most, each.rank, -each.overlap, len(each.prefix)))


def _mappings(value: Any, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every mapping in a file that holds tensors, and the keys that lead to it."""
    if not isinstance(value, Mapping):
        return
    tensors = {
        _COMPILED_OR_SHARDED.sub("", str(key)): entry for key, entry in value.items() if isinstance(entry, Tensor)
    }
    if tensors:
        yield where, tensors
    for key, entry in value.items() if len(where) < _MAX_DEPTH else ():
        yield from _mappings(entry, (*where, str(key)))


def _prefixes(tensors: Mapping[str, Tensor], least: int) -> list[str]:
    """No prefix, and those that at least as many keys begin with."""
    counts: collections.Counter[str] = collections.Counter()
    for key in tensors:
        parts = key.split(".")[:-1]
        counts.update("".join(f"{part}." for part in parts[:length]) for length in range(1, len(parts) + 1))
    return ["", *(prefix for prefix, count in counts.items() if count >= max(least, 1))]


# Names of transformers' Dinov2Model, Dinov2WithRegistersModel and DINOv3ViTModel -> those of Meta's own code, which
# timm's filters read.
_NAMES = (
    (r"embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.(cls_token|mask_token|register_tokens)", r"\1"),
    (r"(?:encoder\.|model\.)?layer\.(\d+)\.", r"blocks.\1."),
    (r"layernorm\.", "norm."),
    (r"(blocks\.\d+)\.attention\.(?:output\.dense|o_proj)\.", r"\1.attn.proj."),
    (r"(blocks\.\d+)\.attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.", r"\1.attn.\2."),
    (r"(blocks\.\d+)\.layer_scale([12])\.lambda1", r"\1.ls\2.gamma"),
    (r"(blocks\.\d+)\.mlp\.weights_in\.", r"\1.mlp.w12."),
    (r"(blocks\.\d+)\.mlp\.weights_out\.", r"\1.mlp.w3."),
)


def from_transformers(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """`state` of transformers' DINOv2 or DINOv3 with the names of Meta's code, and a note; others as they are."""
    if "embeddings.cls_token" not in state or not any(".layer_scale1.lambda1" in key for key in state):
        return state, ""
    third = "embeddings.position_embeddings" not in state  # rotations instead
    gated = any(".mlp.gate_proj." in key for key in state)
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        for pattern, name in _NAMES:
            key = re.sub(rf"^{pattern}", name, key)
        if third:
            key = key.replace("register_tokens", "storage_tokens")
            key = key.replace(".mlp.gate_proj.", ".mlp.w1.").replace(
                ".mlp.up_proj.", ".mlp.w2." if gated else ".mlp.fc1."
            )
            key = key.replace(".mlp.down_proj.", ".mlp.w3." if gated else ".mlp.fc2.")
        renamed[key] = value
    if gated and not third:  # newer versions of transformers keep the two halves apart
        for key in [key for key in renamed if ".mlp.gate_proj." in key]:
            up, down = (key.replace("gate_proj", each) for each in ("up_proj", "down_proj"))
            renamed[key.replace("gate_proj", "w12")] = torch.cat([renamed.pop(key), renamed.pop(up)])
            renamed[key.replace("gate_proj", "w3")] = renamed.pop(down)
    for start in [key.removesuffix("q.weight") for key in renamed if key.endswith(".attn.q.weight")]:
        for kind in ("weight", "bias"):
            parts = [renamed.pop(f"{start}{part}.{kind}", None) for part in "qkv"]
            present = next((part for part in parts if part is not None), None)
            if present is not None:  # DINOv3's keys have no bias: zero
                filled = [torch.zeros_like(present) if part is None else part for part in parts]
                renamed[f"{start}qkv.{kind}"] = torch.cat(filled)
    if not third:
        renamed.setdefault("mask_token", torch.zeros(1, 1))  # how timm's filter knows DINOv2
    return renamed, f"names of transformers' DINOv{3 if third else 2} -> timm's"
