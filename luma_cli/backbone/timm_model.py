"""Build the timm model behind a name at a size, with random weights and without the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.models import is_model, model_entrypoint, split_model_name_tag
from torch import nn

from luma_cli.backbone.no_init import NoInit
from luma_cli.catalogue.rules import ModelRule, load_rules, patch_size
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BuildError, UnknownName, WeightsError
from luma_cli.isotropic.entrypoints import register


@dataclass(frozen=True, slots=True)
class Recipe:
    """What `timm.create_model` needs, resolved: architecture, rule of its module, arguments that its source brings."""

    name: str
    architecture: str
    tag: str
    module: str
    rule: ModelRule
    arguments: Mapping[str, Any]
    source: str = ""


def recipe_for(spec: BackboneSpec) -> Recipe:
    """The recipe for `spec`, a timm name with or without tag, `local-dir:` or `hf-hub:` (from the cache alone).

    Raises UnknownName, WeightsError.
    """
    arguments: Mapping[str, Any] = {}
    source = spec.timm_name if spec.timm_name.startswith(("local-dir:", "hf-hub:")) else ""
    if source:
        config = read_config(source)
        architecture, arguments, tag = config["architecture"], config.get("model_args") or {}, ""
    else:
        architecture, tag = split_model_name_tag(spec.timm_name)
    register()
    if not is_model(architecture):
        raise UnknownName(f"{architecture!r} is not a model of timm {timm.__version__}; try `luma list {architecture}`")
    module = model_entrypoint(architecture).__module__.rpartition(".")[2]
    rule = load_rules().build_rule(module, architecture, spec.rule)
    return Recipe(spec.name, architecture, tag, module, rule, dict(arguments), source)


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


def build(recipe: Recipe, resolution: int, device: torch.device, seed: int = 0) -> nn.Module:
    """The model on `device` at `resolution` pixels, weights drawn from `seed`; the global generator is left as it was.

    Raises BuildError.
    """
    own = {**recipe.arguments, **size_arguments(recipe, resolution), **recipe.rule.arguments}
    arguments = {**own, "pretrained": False, "num_classes": 0}
    with torch.random.fork_rng(devices=[]), device, NoInit():
        torch.manual_seed(seed)
        try:
            model: nn.Module = timm.create_model(recipe.architecture, **arguments)
        except (RuntimeError, AssertionError, ValueError, TypeError, KeyError, ZeroDivisionError) as error:
            raise BuildError(f"{recipe.name} cannot be built at {resolution} pixels: {first_line(error)}") from error
    return model


def size_arguments(recipe: Recipe, resolution: int) -> dict[str, Any]:
    """Constructor arguments that say the size, by rule."""
    if recipe.rule.size == "plain":
        return {}
    patch14 = recipe.rule.patch14 and patch_size(recipe.architecture) == 14
    return {"img_size": resolution, **({"patch_size": 16} if patch14 else {})}


def first_line(error: Exception) -> str:
    """What `error` says, in one line."""
    return next(iter(str(error).strip().splitlines()), "its layers refuse this size")


def class_name(module: nn.Module) -> str:
    """`module.Class` as the rule table spells it, e.g. `vision_transformer.Block`."""
    return f"{type(module).__module__.rpartition('.')[2]}.{type(module).__qualname__}"
