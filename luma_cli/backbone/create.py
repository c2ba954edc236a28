"""Create a backbone at a resolution, tap its last block on the patch grid and remove what never runs.

Facts about the model (map shape, unused parameters) come from one forward on the meta device, which needs no weights
and no memory; for other devices a twin on meta gives them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from luma_cli.backbone import unused
from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.query_ffn import part
from luma_cli.backbone.taps import Trace, ffn_of, own_heads
from luma_cli.backbone.timm_model import (
    NO_VALUES,
    BuildRecipe,
    build,
    class_name,
    first_line,
    normalisation_of,
    recipe_for,
    short_module,
)
from luma_cli.backbone.weights import load_weights
from luma_cli.catalogue.heads import default_heads
from luma_cli.catalogue.rules import ModelRule, check_resolution, load_rules, multiple_of
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BadResolution, BuildError

_META = torch.device("meta")
_NEAR_TRIES = 8
_FORWARD_ERRORS = (RuntimeError, AssertionError, ValueError, IndexError, TypeError, ZeroDivisionError, AttributeError)


def create_backbone(
    spec: BackboneSpec,
    resolution: int,
    *,
    weights: str = "random",
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Backbone:
    """The backbone `spec` for squares of `resolution` pixels, in eval mode, on `device`.

    weights: `random` (drawn from `seed`), `pretrained`, a file, `local-dir:FOLDER` or `hf-hub:OWNER/REPO`.
    Raises BadResolution, WeightsError or BuildError.

    >>> spec = BackboneSpec("vit_tiny_patch16_224", "vit_tiny_patch16_224", "vit_tiny_patch16_224")
    >>> create_backbone(spec, 512, device="meta").grid
    (32, 32)
    """
    device = torch.device(device)
    recipe = recipe_for(spec)
    check_resolution(spec.name, resolution, recipe.rule, recipe.architecture)
    twin, names = _twin(spec, recipe, resolution)
    normalisation = normalisation_of(recipe, weights)
    if device == _META:
        twin.normalisation = normalisation
        return _prune(twin, names)
    model, loaded = load_weights(recipe, resolution, weights, seed, names)
    backbone = attach(model, spec, resolution, recipe.module, recipe.architecture)
    for name in ("width", "grid", "stride", "query_width", "num_heads", "sites"):
        setattr(backbone, name, getattr(twin, name))
    backbone.weights, backbone.normalisation = loaded, normalisation
    return _prune(backbone, names).to(device)


def _twin(spec: BackboneSpec, recipe: BuildRecipe, resolution: int) -> tuple[Backbone, list[str]]:
    """The backbone on meta and the names of what never runs. Raises BadResolution with sizes that do work, if any."""
    try:
        return _try(spec, recipe, resolution)
    except BuildError as error:
        near = _working_near(spec, recipe, resolution)
        if not near:
            raise
        sizes = " or ".join(map(str, near))
        raise BadResolution(f"{error}; try --res {sizes}") from error


def _try(spec: BackboneSpec, recipe: BuildRecipe, resolution: int) -> tuple[Backbone, list[str]]:
    twin = attach(build(recipe, resolution, _META), spec, resolution, recipe.module, recipe.architecture)
    names = inspect(twin)
    if not short_module(type(twin.model).__module__):
        check_own_map(twin)
    height, width = twin.grid
    if twin.rule.aligned and (height != width or resolution % width):
        raise BuildError(
            f"{spec.name} gives a map of {height} x {width} at {resolution} pixels, which does not divide it"
        )
    return twin, names


def _working_near(spec: BackboneSpec, recipe: BuildRecipe, resolution: int) -> list[int]:
    """The nearest smaller and larger size, in pixels, at which the backbone is seen to run."""
    step = multiple_of(recipe.rule, recipe.architecture)
    found = []
    for direction in (-step, step):
        for size in (resolution + direction * count for count in range(1, _NEAR_TRIES + 1)):
            if max(recipe.rule.minimum, step) <= size <= recipe.rule.maximum:
                with suppress(BuildError):
                    _try(spec, recipe, size)
                    found.append(size)
                    break
    return found


def wrap(model: nn.Module, spec: BackboneSpec, resolution: int) -> Backbone:
    """One's own module as a backbone, as `spec.rule` describes it; its forward gives the map unless a rule says else.

    The map's shape is found by one forward of zeros on the module's own device. Raises BuildError.
    """
    known = class_name(model) in load_rules().models
    rule = spec.rule if known else {"features": "forward", **spec.rule}
    backbone = attach(model, replace(spec, rule=rule), resolution, "", "")
    names = inspect(backbone)
    check_own_map(backbone)
    return _prune(backbone, names)


def check_own_map(backbone: Backbone) -> None:
    """Raise BuildError unless two images give two square maps of numbers [2, D, H, W]: one's own code may do anything.

    docs/use/own_modules.md says what is expected.
    """
    with torch.no_grad():
        found = backbone(_zeros(backbone, 2))
    if found.shape != (2, backbone.width, *backbone.grid):
        raise _not_a_map(backbone, f"{list(found.shape)} for two images, and [1, {backbone.width}, ...] for one")
    if backbone.grid[0] != backbone.grid[1]:
        hint = "; it looks like [B, H, W, D]: add .permute(0, 3, 1, 2)" if found.shape[1] == found.shape[2] else ""
        raise _not_a_map(backbone, f"{list(found.shape)}, which is not square{hint}")
    if not found.is_meta and not found.isfinite().all():
        raise _not_a_map(backbone, "NaN or infinite values for an image of zeros")


def _not_a_map(backbone: Backbone, what: str) -> BuildError:
    return BuildError(
        f"{backbone.spec.name} gives {what}; expected one map [B, D, H, W] of square images [B, 3, S, S], with H = W = "
        "S / stride (docs/use/own_modules.md)"
    )


def _kind(output: object) -> str:
    """What a forward gave that is no tensor, in words."""
    if isinstance(output, (list, tuple)):
        shapes = ", ".join(str(list(each.shape)) for each in output if isinstance(each, Tensor))
        return f"a {type(output).__name__} of {len(output)}{f' maps {shapes}; give one of them' if shapes else ''}"
    if isinstance(output, dict):
        return f"a dict with {', '.join(map(str, list(output)[:4]))}"
    return "None" if output is None else f"a {type(output).__name__}"


def attach(model: nn.Module, spec: BackboneSpec, resolution: int, module: str, architecture: str) -> Backbone:
    """`model` with its tapped block found by rule; parameters and map are not looked at yet."""
    rule = load_rules().model_rule(module, class_name(model), architecture, spec.rule)
    if not hasattr(model, "forward_intermediates"):  # timm's models have it; of others the forward gives the map
        rule = replace(rule, features="forward")
    model.eval()
    no_tap = rule.reason or "no rule names its last block"
    return Backbone(model, spec, resolution, rule, ffn_of(tapped_block(model, rule), rule) if rule.tap else no_tap)


def tapped_block(model: nn.Module, rule: ModelRule) -> nn.Module:
    """The last block on the patch grid. Raises BuildError when the rule's path leads nowhere."""
    paths = (rule.tap,) if isinstance(rule.tap, str) else rule.tap
    built = [found for path in paths if (found := part(model, path)) is not None]
    block = next((found for found in built if not isinstance(found, nn.Identity)), next(iter(built), None))
    if not isinstance(block, nn.Module):
        raise BuildError(f"{type(model).__name__}.{rule.tap} is not a block; correct `tap` in the rule of this class")
    return block


def inspect(backbone: Backbone) -> list[str]:
    """Run one forward, set what it shows of the map, and return the names of what never ran."""
    model, rule, side = backbone.model, backbone.rule, backbone.resolution
    with Trace(model, tapped_block(model, rule) if rule.tap else None, rule) as trace:
        features, reached, ran = _trace(backbone)
    if features.ndim != 4:
        hint = ", which look like class scores" if features.ndim == 2 else ""
        raise _not_a_map(backbone, f"{list(features.shape)}{hint}")
    if features.shape[0] != 1:
        raise _not_a_map(backbone, f"{list(features.shape)} for one image")
    backbone.width, backbone.grid = features.shape[1], (features.shape[2], features.shape[3])
    backbone.stride = round(side / features.shape[3])
    backbone.sites = trace.sites(backbone.width, backbone.num_tokens)
    ffn = None if backbone.ffn_reason else backbone.ffn
    backbone.query_width = ffn.width if ffn else backbone.width
    heads = own_heads(ffn, rule) if ffn else 0
    divides = heads > 0 and backbone.width % heads == 0
    backbone.num_heads = heads if divides else default_heads(backbone.width)
    keep: list[nn.Module | nn.Parameter] = ffn.parts() if ffn else []
    if backbone.final_norm is not None:
        keep.append(backbone.final_norm)
    names = unused.unused_names(backbone.model, reached, ran, keep)
    singles = unused.single_parameters(backbone.model, names)
    whole = [name for name in names if name not in singles]
    return next(kept for kept in (names, whole, []) if _runs_without(backbone, kept, features, reached))


def _runs_without(backbone: Backbone, names: list[str], features: Tensor, reached: set[int]) -> bool:
    """Whether the forward, run once more without these, gives the same map from the same parameters.

    On meta, where every layer is timm's and there are no values to compare, modules that never ran need no proof.
    """
    if not names or (features.is_meta and not unused.single_parameters(backbone.model, names)):
        return True
    with unused.removed(backbone.model, names):
        try:
            again, still_reached, _ = _trace(backbone)
        except BuildError:
            return False
    return still_reached == reached and (features.is_meta or torch.equal(again, features))


def _trace(backbone: Backbone) -> tuple[Tensor, set[int], set[int]]:
    try:
        output, reached, ran = unused.trace(backbone, _zeros(backbone, 1))
    except _FORWARD_ERRORS as error:
        values = "; luma counts without values: its forward must not branch on them (.item(), float(tensor), if tensor)"
        hint = values if NO_VALUES in str(error) else ""
        said = first_line(error)
        raise BuildError(f"{backbone.spec.name} cannot run at {backbone.resolution} pixels: {said}{hint}") from error
    if not isinstance(output, Tensor):
        raise _not_a_map(backbone, _kind(output))
    return output, reached, ran


def _zeros(backbone: Backbone, num_images: int) -> Tensor:
    side, first = backbone.resolution, next(backbone.parameters(), torch.empty(0))
    with torch.inference_mode(False):
        return torch.zeros(num_images, 3, side, side, device=first.device, dtype=first.dtype)


def _prune(backbone: Backbone, names: list[str]) -> Backbone:
    backbone.pruned = unused.parameters_of(backbone.model, names)
    backbone.num_pruned = sum(backbone.model.get_parameter(name).numel() for name in backbone.pruned)
    unused.remove(backbone.model, names)
    return backbone
