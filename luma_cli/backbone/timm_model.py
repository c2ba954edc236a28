"""The timm model behind a name, built at a size with random weights and without the network, and its normalisation.

A segmenter takes images that are normalised already: whoever reads images from files does it with `Normalisation`.
Layouts of a patch map: `tokens` [B,N,D], `nhwc` [B,H,W,D], `nchw` [B,D,H,W].
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from timm.models import get_pretrained_cfg, is_model, model_entrypoint, split_model_name_tag
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from luma_cli.catalogue.own import entries
from luma_cli.catalogue.rules import Layout, ModelRule, load_rules, patch_size
from luma_cli.catalogue.spec import SOURCES, BackboneSpec
from luma_cli.errors import BuildError, UnknownName, WeightsError


@dataclass(frozen=True, slots=True)
class BuildRecipe:
    """What `timm.create_model` needs, resolved: architecture, rule of its module, arguments that its source brings."""

    name: str
    architecture: str
    tag: str
    module: str
    rule: ModelRule
    arguments: Mapping[str, Any]
    source: str = ""

    @property
    def tagged(self) -> str:
        """Timm's name of the architecture with its tag, where it has one."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture


def recipe_for(spec: BackboneSpec) -> BuildRecipe:
    """The recipe for `spec`, a timm name with or without tag, `local-dir:` or `hf-hub:` (from the cache alone).

    Raises UnknownName, WeightsError.
    """
    arguments: Mapping[str, Any] = {}
    source = spec.timm_name if spec.timm_name.startswith(SOURCES) else ""
    if source:
        config = read_config(source)
        architecture, arguments, tag = config["architecture"], config.get("model_args") or {}, ""
    else:
        architecture, tag = split_model_name_tag(spec.timm_name)
    if architecture in entries():
        from luma_cli.isotropic.entrypoints import register  # other models need none of these files

        register()
    if not is_model(architecture):
        raise UnknownName(f"{architecture!r} is not a model of timm {timm.__version__}; try `luma list {architecture}`")
    module = short_module(model_entrypoint(architecture).__module__)
    rule = load_rules().build_rule(module, architecture, spec.rule)
    return BuildRecipe(spec.name, architecture, tag, module, rule, dict(arguments), source)


def source_folder(source: str) -> Path:
    """Folder on disk behind `local-dir:FOLDER` or a cached `hf-hub:OWNER/REPO`. Raises WeightsError."""
    kind, _, where = source.partition(":")
    if kind == "local-dir":
        folder = Path(where).expanduser()
        if not (folder / "config.json").is_file():
            raise WeightsError(f"{source}: no config.json in {folder}; expected a folder written by timm's save_for_hf")
        return folder
    repo, _, revision = where.partition("@")
    cached = try_to_load_from_cache(repo, "config.json", revision=revision or None)
    if not isinstance(cached, str):
        raise WeightsError(f"{source}: config.json is not in the Hugging Face cache; run `hf download {repo}` first")
    return Path(cached).parent


def read_config(source: str) -> Mapping[str, Any]:
    """The `config.json` of a timm model behind `local-dir:` or a cached `hf-hub:`. Raises WeightsError."""
    path = source_folder(source) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{source}: {path} is not JSON ({error}); expected the config of a timm model") from error
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise WeightsError(f"{source}: {path} is not a timm model's config: no architecture in it")
    return config


def build(recipe: BuildRecipe, resolution: int, device: torch.device, seed: int = 0) -> nn.Module:
    """The model on `device` at `resolution` pixels, weights drawn from `seed`; the global generator is left as it was.

    Raises BuildError.
    """
    rule = recipe.rule
    size = {} if rule.size == "plain" else {"img_size": resolution}
    if size and rule.patch14 and patch_size(recipe.architecture) == 14:
        size["patch_size"] = 16
    arguments = {**recipe.arguments, **size, **rule.arguments, "pretrained": False, "num_classes": 0}
    with torch.random.fork_rng(devices=[]), device, NoInit(), redirect_stdout(StringIO()):  # stdout is for answers
        torch.manual_seed(seed)
        try:
            model: nn.Module = timm.create_model(recipe.architecture, **arguments)
        except _BUILD_ERRORS as error:
            if device.type == "meta" and NO_VALUES in str(error):
                # Its __init__ reads values, as in `[x.item() for x in torch.linspace(...)]`, which meta does not have.
                return build(recipe, resolution, torch.device("cpu"), seed).to(device)
            raise BuildError(f"{recipe.name} cannot be built at {resolution} pixels: {first_line(error)}") from error
    return model


NO_VALUES = "meta tensor"  # in torch's errors about reading a value on the meta device
_BUILD_ERRORS = (RuntimeError, AssertionError, ValueError, TypeError, KeyError, ZeroDivisionError)


_FILLING = frozenset({"normal_", "uniform_", "clamp_", "erfinv_", "mul_", "add_", "div_", "fill_", "zero_", "copy_"})


class NoInit(TorchFunctionMode):
    """While active, in-place fillings of meta tensors do nothing, as these have no values: a third of the time."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """`func`, or its first argument as it is."""
        if getattr(func, "__name__", "") in _FILLING and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def rescale_rotations(model: nn.Module, factor: float) -> None:
    """Let DINOv3's rotary coordinates be scaled in train mode, in each pass by a draw from [1 / factor, factor].

    As transformers' DINOv3 does by default (`pos_embed_rescale`), which timm leaves out; other models stay as they are.
    """
    for module in model.modules():
        if isinstance(module, RotaryEmbeddingDinoV3):
            module.rescale_coords, module.aug_active = (factor, True) if factor > 1 else (None, False)


def first_line(error: Exception) -> str:
    """What `error` says, in one line."""
    return next(iter(str(error).strip().splitlines()), "its layers refuse this size")


def class_name(module: nn.Module) -> str:
    """`module.Class` as the rule table spells it, e.g. `vision_transformer.Block`, for classes of timm and of luma.

    Others by their whole path: torchvision's `resnet.ResNet` is not timm's.
    """
    place, name = type(module).__module__, type(module).__qualname__
    return f"{short_module(place)}.{name}" if short_module(place) else f"{place}.{name}"


def short_module(place: str) -> str:
    """The last part of the path of a module of timm or of luma; empty for any other."""
    return place.rpartition(".")[2] if place.partition(".")[0] in ("timm", "luma_cli") else ""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """`(image - mean) / std` per channel, in the order red, green, blue, of images with values from 0 to 1.

    source: where the numbers come from, e.g. `timm's config of vit_base_patch16_clip_224.openai`.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    source: str = "ImageNet's, as nothing states others"


def normalisation_of(recipe: BuildRecipe, weights: str) -> Normalisation:
    """The numbers for `weights` as in `--weights`.

    A folder's or hub repository's own config.json comes first, then timm's config of the tag in the name, then that of
    the architecture. Raises WeightsError when a config states numbers that are none.
    """
    source = weights if weights.startswith(SOURCES) else recipe.source
    if source and weights != "random":
        stated = read_config(source).get("pretrained_cfg")
        if isinstance(stated, Mapping) and {"mean", "std"} <= stated.keys():
            return _stated(stated, f"config.json of {source}")
    config = get_pretrained_cfg(recipe.tagged)
    if config is None:
        return Normalisation()
    return _stated({"mean": config.mean, "std": config.std}, f"timm's config of {recipe.tagged}")


def _stated(values: Mapping[str, Any], source: str) -> Normalisation:
    mean, std = _three(values["mean"], source), _three(values["std"], source)
    if min(std) <= 0:
        raise WeightsError(f"{source}: std is {list(std)}, expected three numbers above 0; correct the file")
    return Normalisation(mean, std, source)


def _three(values: Any, source: str) -> tuple[float, float, float]:
    """Three finite numbers; timm writes one where the channels share it."""
    numbers = [values] * 3 if isinstance(values, (int, float)) else values
    if isinstance(numbers, (list, tuple)) and len(numbers) in (1, 3):
        numbers = list(numbers) * (3 // len(numbers))
        if all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
            return float(numbers[0]), float(numbers[1]), float(numbers[2])
    raise WeightsError(f"{source}: mean or std is {values!r}, expected three numbers; correct the file")


def to_tokens(grid: Tensor, layout: Layout) -> Tensor:
    """Tokens [B,N,D] of a map in `layout`."""
    if layout == "nchw":
        return grid.flatten(2).transpose(1, 2)
    return grid.flatten(1, 2) if layout == "nhwc" else grid


def from_tokens(tokens: Tensor, layout: Layout, size: tuple[int, int]) -> Tensor:
    """Map in `layout` of tokens [B,N,D]; `size` is H, W with H * W = N."""
    batch, _, width = tokens.shape
    if layout == "tokens":
        return tokens
    if layout == "nhwc":
        return tokens.reshape(batch, *size, width)
    return tokens.transpose(1, 2).reshape(batch, width, *size)
