"""Weights for a backbone: random ones from a seed, or a file that cannot run code, fitted by timm's own filters.

Nothing but `pretrained` may download, and only what timm itself would.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict, get_pretrained_cfg
from torch import Tensor, nn

from luma_cli.backbone.backbone import LoadedWeights
from luma_cli.backbone.fitting import fit
from luma_cli.backbone.timm_model import Recipe, build, source_folder
from luma_cli.catalogue.weights import SOURCES, local_file
from luma_cli.errors import WeightsError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
# Where timm's own checkpoints, those of Hiera, MViT and the WTF benchmark (`model_state`), EVA (`module`) and I-JEPA
# (`encoder`) hold them.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "module", "encoder")


def load_weights(
    recipe: Recipe, resolution: int, weights: str, seed: int, unused: list[str]
) -> tuple[nn.Module, LoadedWeights]:
    """The model of `recipe` on the CPU with the weights asked for; what is `unused` may be absent from a file.

    weights: `random`, `pretrained`, a file, `local-dir:FOLDER` or `hf-hub:OWNER/REPO`. Raises WeightsError.
    """
    model = build(recipe, resolution, torch.device("cpu"), seed)
    if weights == "random":
        return model, LoadedWeights("random", seed)
    path = find_file(recipe, weights)
    fitted = fit(model, read_state_dict(path), recipe, path, unused)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = weights if weights == "pretrained" else str(path)
    return model, LoadedWeights(source, seed, digest, fitted.ignored, fitted.conversions)


def find_file(recipe: Recipe, weights: str) -> Path:
    """The file on disk that `weights` names, downloaded only for `pretrained`. Raises WeightsError."""
    if weights == "pretrained" and not recipe.source:
        return _pretrained_file(recipe)
    source = recipe.source if weights == "pretrained" else weights
    if source.startswith(SOURCES):
        folder = source_folder(source)
        found = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
        if not found:
            raise WeightsError(f"{source}: neither {' nor '.join(WEIGHT_FILES)} in {folder}; put one there")
        return found[0]
    return local_file(source)


def _pretrained_file(recipe: Recipe) -> Path:
    name = f"{recipe.architecture}.{recipe.tag}" if recipe.tag else recipe.architecture
    config = get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsError(f"{name} has no public weights in timm; use --weights random or --weights FILE")
    if not config.hf_hub_id:
        raise WeightsError(f"{name}: download {config.url} yourself and use --weights FILE")
    files = (config.hf_hub_filename,) if config.hf_hub_filename else WEIGHT_FILES
    for file in files:
        cached = try_to_load_from_cache(config.hf_hub_id, file)
        if isinstance(cached, str):
            return Path(cached)
    return _download(config.hf_hub_id, files)


def _download(repo: str, files: tuple[str, ...]) -> Path:
    reason = "offline"
    for file in files:
        try:
            return Path(hf_hub_download(repo, file))
        except (OSError, ValueError) as error:  # the hub's errors are OSErrors or ValueErrors
            reason = type(error).__name__
    raise WeightsError(
        f"{files[0]} of {repo} is neither in {constants.HF_HUB_CACHE} nor reachable ({reason}); "
        f"run `hf download {repo}` where there is a network, or use --weights FILE"
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name in a `.safetensors` file or a pickle of nothing but tensors. Raises WeightsError."""
    checkpoint = _read(path)
    if isinstance(checkpoint, Mapping):
        inner = next((checkpoint[key] for key in _WRAPPERS if isinstance(checkpoint.get(key), Mapping)), checkpoint)
        tensors = {str(key): value for key, value in clean_state_dict(dict(inner)).items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise WeightsError(f"{path} holds no named tensors; expected a state dict of a timm model")


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is not a safetensors file: {error}") from error
    if path.suffix not in _PICKLES:
        raise WeightsError(f"{path}: unknown kind of file; expected .safetensors, or {', '.join(_PICKLES)}")
    try:
        with warnings.catch_warnings(action="ignore"):  # old pickle protocols: what matters is refused or loaded
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} was refused: it holds more than tensors and could run code; use .safetensors"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as PyTorch weights; expected a file of torch.save") from error
