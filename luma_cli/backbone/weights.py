"""Weights for a backbone: random ones from a seed, or a file that cannot run code, fitted to the model.

Nothing but `pretrained` may download, and only what timm itself would. A file is converted by timm's own checkpoint
filter, and the tables that the filter leaves at another size are resampled; what does not fit then is refused by its
first keys. Absolute position embeddings are resampled as timm does for ViTs (bicubic, antialiased), relative ones as
the model's own code does while it runs (linear, `vision_transformer_sam.get_rel_pos`) or as timm's other filters do
(bias tables).
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from math import isqrt
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from timm.layers.pos_embed import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from timm.models import get_pretrained_cfg, is_model
from torch import Tensor, nn

from luma_cli.backbone.backbone import LoadedWeights
from luma_cli.backbone.checkpoint_files import ModelInFile, models_in, read
from luma_cli.backbone.timm_model import BuildRecipe, build, class_name, source_folder
from luma_cli.catalogue.rules import ModelRule, load_rules
from luma_cli.catalogue.spec import SOURCES, WEIGHT_FILES, local_file, weights_in
from luma_cli.errors import WeightsError

_FILTER_ERRORS = (KeyError, RuntimeError, ValueError, IndexError, AttributeError, AssertionError, TypeError)
_AFTER_THE_MAP = ("head", "fc", "classifier", "fc_norm", "pre_logits", "attn_pool")
_MAX_TRIES = 8  # places in a file that are looked at
_MAX_PREFIX = 16  # class and register tokens that a position embedding may hold before its grid


def load_weights(
    recipe: BuildRecipe, resolution: int, weights: str, seed: int, unused: list[str]
) -> tuple[nn.Module, LoadedWeights]:
    """The model of `recipe` on the CPU with the weights asked for; what is `unused` may be absent from a file.

    weights: `random`, `pretrained`, a file, `local-dir:FOLDER` or `hf-hub:OWNER/REPO`. Raises WeightsError.
    """
    model = build(recipe, resolution, torch.device("cpu"), seed)
    if weights == "random":
        return model, LoadedWeights("random", seed)
    path = find_file(recipe, weights)
    checkpoint, digest = read(path)
    ignored, changes = fit(model, checkpoint, recipe, path, unused)
    source = weights if weights == "pretrained" else str(path)
    return model, LoadedWeights(source, seed, digest, ignored, changes)


def find_file(recipe: BuildRecipe, weights: str) -> Path:
    """The file on disk that `weights` names, downloaded only for `pretrained`. Raises WeightsError."""
    if weights == "pretrained" and not recipe.source:
        return _pretrained_file(recipe)
    source = recipe.source if weights == "pretrained" else weights
    if source.startswith(SOURCES):
        return weights_in(source_folder(source))
    return local_file(source)


def _pretrained_file(recipe: BuildRecipe) -> Path:
    name = recipe.tagged
    config = get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsError(f"{name} has no public weights in timm; use --weights random or --weights FILE")
    repo = config.hf_hub_id
    if not repo:
        raise WeightsError(f"{name}: download {config.url} yourself and use --weights FILE")
    files = (config.hf_hub_filename,) if config.hf_hub_filename else WEIGHT_FILES[:2]
    for file in files:
        cached = try_to_load_from_cache(repo, file)
        if isinstance(cached, str):
            return Path(cached)
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


def fit(
    model: nn.Module, checkpoint: Any, recipe: BuildRecipe, path: Path, unused: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Load the tensors in `checkpoint` into `model`, wherever they lie in it, converted for its size.

    `unused` parts of the model may be absent from the file. Returns the keys of the file that the map does not need,
    and what was changed (`conversions`). Raises WeightsError, naming the first keys and shapes, when a parameter that
    runs is missing or has another shape, when it is quantised, NaN or infinite, or when the file holds a tensor that
    would change the map and that the model has no place for.
    """
    rule = load_rules().model_rule(recipe.module, class_name(model), recipe.architecture, {})
    own = model.state_dict()
    options = models_in(checkpoint, [key for key in own if not _under(key, unused)])
    if not options:
        raise WeightsError(f"{path} holds no named tensors; expected a state dict of a timm model")
    refused: list[tuple[ModelInFile, list[str]]] = []
    for option in options[:_MAX_TRIES]:
        state, found = _converted(model, option.tensors, recipe, rule, unused)
        if not found:
            break
        refused.append((option, found))
    else:
        raise _refusal(path, recipe, *max(refused, key=lambda each: (each[0].overlap, -len(each[1]))), own)
    wanted = {key: value for key, value in state.items() if key in own and not _under(key, unused)}
    model.load_state_dict(wanted, strict=False)
    if found := _not_numbers(model, wanted):
        raise _refusal(path, recipe, option, found, own)
    interpolation = str(rule.filter_arguments.get("interpolation", "bicubic"))
    changes = conversions(option.tensors, wanted, interpolation)
    return tuple(sorted(state.keys() - own.keys())), (*_taken(option, options), *changes)


def _converted(
    model: nn.Module, file: dict[str, Tensor], recipe: BuildRecipe, rule: ModelRule, unused: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of `file` for `model`, and what does not fit."""
    try:
        # timm warns that resampling bias tables is slow; some of its filters change what they are given, or print
        with warnings.catch_warnings(action="ignore"), redirect_stdout(StringIO()):
            state = resampled(model, filtered(model, dict(file), recipe.module, rule))
    except _FILTER_ERRORS as error:
        found = _problems(model, file, recipe, rule, unused)
        return file, found or [f"{type(error).__name__}: {error}"]
    return state, _problems(model, state, recipe, rule, unused) or _dropped(model, file, state, recipe)


def _taken(option: ModelInFile, options: Sequence[ModelInFile]) -> Iterator[str]:
    """Where the tensors lay in the file, and where others lay that have the same names."""
    if option.prefix:
        yield f"prefix {option.prefix} removed"
    alike = [each for each in options if each is not option and each.tensors.keys() >= option.tensors.keys()]
    if alike:
        taken, others = (_some([each.place or "its top level" for each in places]) for places in ([option], alike))
        yield f"{taken.rstrip('.')} taken, {others.rstrip('.')} is there as well"
    if option.note:
        yield option.note


def _dropped(
    model: nn.Module, file: Mapping[str, Tensor], state: Mapping[str, Tensor], recipe: BuildRecipe
) -> list[str]:
    """Tensors that timm's filter leaves out though a module of the model has a place for them that was not built.

    Zeros change nothing, and DINOv3's `bias_mask` says which part of a bias counts.
    """
    kept = {value.data_ptr() for value in state.values()}
    modules = dict(model.named_modules())
    found = []
    for key, value in file.items():
        owner, _, name = key.rpartition(".")
        if key in state or value.data_ptr() in kept or getattr(modules.get(owner), name, 0) is not None:
            continue
        mask = file.get(f"{key}_mask")
        if (value if mask is None else value * mask.nan_to_num()).count_nonzero():
            found.append(f"{key} {list(value.shape)} is not in the model{_sibling(recipe.architecture)}")
    return found


def _sibling(architecture: str) -> str:
    """Advice to take timm's variant of an architecture whose projections have biases, where there is one."""
    return f", but {architecture}_qkvb has it" if is_model(f"{architecture}_qkvb") else ""


def filtered(model: nn.Module, state: dict[str, Tensor], module: str, rule: ModelRule) -> dict[str, Tensor]:
    """`state` as timm's checkpoint filter for the class of `model` converts it: renamed keys, resampled positions."""
    if not rule.filter:
        return state
    place, _, name = rule.filter.rpartition(":")
    function = getattr(importlib.import_module(place or f"timm.models.{module}"), name)
    takes_model = len(inspect.signature(function).parameters) > 1
    converted: dict[str, Tensor] = function(*((state, model) if takes_model else (state,)), **rule.filter_arguments)
    return converted


def _refusal(
    path: Path, recipe: BuildRecipe, option: ModelInFile, problems: Sequence[str], own: Collection[str]
) -> WeightsError:
    """What does not fit at the likeliest place in the file; where no key is the model's, which keys there are."""
    if option.overlap:
        what = (f"under {option.place} " if option.place else "") + _some(problems, most=3, separator="; ")
    else:
        what = f"it holds {_some(list(option.tensors), most=3)}, expected such keys as {', '.join(list(own)[:3])}"
    return WeightsError(
        f"{path} does not fit {recipe.architecture}: {what}; "
        f"give weights of {recipe.architecture} or use --weights random"
    )


def _problems(
    model: nn.Module, state: Mapping[str, Tensor], recipe: BuildRecipe, rule: ModelRule, unused: Sequence[str]
) -> list[str]:
    own = model.state_dict()
    found = []
    for key, value in own.items():
        if _under(key, unused):
            continue
        if key in state and state[key].shape != value.shape:
            found.append(f"{key} is {list(state[key].shape)}, expected {list(value.shape)}")
        elif key in state and value.is_floating_point() and not state[key].is_floating_point():
            found.append(f"{key} is {str(state[key].dtype).removeprefix('torch.')}, expected floating-point numbers")
        elif key not in state and value.is_floating_point():  # counters and index tables are rebuilt
            found.append(f"{key} {list(value.shape)} is missing")
    config = get_pretrained_cfg(recipe.architecture)
    classifiers = (config.classifier if config else None) or ()
    names = [classifiers] if isinstance(classifiers, str) else classifiers
    needless = {*_AFTER_THE_MAP, *(name.partition(".")[0] for name in names), rule.norm}
    for key, value in state.items():
        if key not in own and _matters(model, key, value, needless, unused):
            found.append(f"{key} {list(value.shape)} is not in the model")
    return found


def _not_numbers(model: nn.Module, loaded: Iterable[str]) -> list[str]:
    """What is NaN or infinite after loading: a diverged run, or half precision that overflowed."""
    own = model.state_dict()
    tensors = ((key, own[key]) for key in loaded if own[key].is_floating_point() and not own[key].is_meta)
    return [f"{key} holds NaN or infinite values" for key, value in tensors if not value.isfinite().all()]


def _matters(model: nn.Module, key: str, value: Tensor, needless: set[str], unused: Sequence[str]) -> bool:
    """Whether leaving this tensor of the file out would change the map.

    It would inside a module that runs, such as a deeper block or a layer scale, and as one more prefix token [1,n,D].
    It would not in a classifier, in a final norm that is not built, in a decoder, or as an index table.
    """
    parts = key.split(".")
    children = dict(model.named_children())
    if not value.is_floating_point() or parts[0] in needless or _under(key, unused):
        return False
    if parts[0] in children:
        names = [f"{parts[0]}.{name}" for name, _ in children[parts[0]].named_parameters()]
        return not names or any(not _under(name, unused) for name in names)
    if len(parts) > 1 or value.ndim != 3 or len(value) != 1 or key == "mask_token":
        return False
    # tokens of the model's own width would stand beside its patches
    own = dict(model.named_parameters())
    widths = {parameter.shape[-1] for name, parameter in own.items() if "." not in name and parameter.ndim == 3}
    embedding = own.get("patch_embed.proj.weight")
    return value.shape[-1] in (widths if embedding is None else widths | {embedding.shape[0]})


def _under(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def resampled(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with its tables of another size brought to the size in `model`; what cannot be is left as it was."""
    changed = dict(state)
    for key, wanted in model.state_dict().items():
        if key in state and state[key].shape != wanted.shape:
            changed[key] = _table(model, key, state[key], wanted)
    return changed


def _table(model: nn.Module, key: str, value: Tensor, wanted: Tensor) -> Tensor:
    owner, _, name = key.rpartition(".")
    if value.ndim != wanted.ndim:
        return value
    if name == "pos_embed" and value.shape[-1] == wanted.shape[-1]:
        return _positions(value, wanted)
    if name in ("rel_pos_h", "rel_pos_w") and value.shape[1:] == wanted.shape[1:]:
        return F.interpolate(value.T[None].float(), size=len(wanted), mode="linear")[0].T.to(value.dtype)
    if name == "relative_position_bias_table" and value.shape[-1] == wanted.shape[-1] and _is_square(len(value)):
        window: tuple[int, int] = model.get_submodule(owner).window_size  # type: ignore[assignment]
        table: Tensor = resize_rel_pos_bias_table(value, window, tuple(wanted.shape))
        return table
    return value


def _positions(value: Tensor, wanted: Tensor) -> Tensor:
    """[1,N,D] without prefix tokens on a square grid, or [1,H,W,D]."""
    resized = value
    if value.ndim == 4:
        resized = resample_abs_pos_embed_nhwc(value, list(wanted.shape[1:3]))
    elif value.ndim == 3 and _is_square(value.shape[1]) and _is_square(wanted.shape[1]):
        side = isqrt(wanted.shape[1])
        resized = resample_abs_pos_embed(value, [side, side], num_prefix_tokens=0)
    return resized


def _is_square(number: int) -> bool:
    return isqrt(number) ** 2 == number


def conversions(file: Mapping[str, Tensor], loaded: Mapping[str, Tensor], interpolation: str) -> tuple[str, ...]:
    """One short text for each kind of change from the tensors of the `file` to those that were `loaded`.

    interpolation: how position embeddings were resampled, e.g. `bicubic`.

    >>> conversions({"a": torch.zeros(1, 3)}, {"a": torch.zeros(1, 3)}, "bicubic")
    ()
    """
    places = {value.data_ptr(): key for key, value in file.items() if value.data_ptr()}
    tails = {key.partition(".")[2]: key for key in file}
    # loaded key -> key in the file: of the same name, else the same memory, else the same name behind a prefix
    found = {
        key: key if key in file else places.get(value.data_ptr()) or tails.get(key) for key, value in loaded.items()
    }
    sources = {key: source for key, source in found.items() if source}
    pairs = {key: (file[source], loaded[key]) for key, source in sources.items()}
    used = set(sources.values())
    left = [key.partition(".")[0] for key, value in file.items() if key not in used and value.is_floating_point()]
    names = {
        "keys renamed": [f"{source} -> {key}" for key, source in sources.items() if source != key],
        "values converted": [key for key, pair in pairs.items() if _other_values(*pair)],
        "left out, as the map needs none of it": list(dict.fromkeys(left)),
    }
    resized = {key: pair for key, pair in pairs.items() if _resized(*pair)}
    listed = (f"{what}: {_some(which)}" for what, which in names.items() if which)
    return (*_sizes(resized, interpolation), *listed)


def _resized(old: Tensor, new: Tensor) -> bool:
    """Whether the shape is another one, and not only written otherwise (a linear layer as a 1 x 1 convolution)."""
    return old.shape != new.shape and not (old.numel() == new.numel() and old.ndim != new.ndim)


def _other_values(old: Tensor, new: Tensor) -> bool:
    same = old.shape != new.shape or old.data_ptr() == new.data_ptr() or old.is_meta or new.is_meta
    return not same and not torch.equal(old, new)


def _sizes(resized: Mapping[str, tuple[Tensor, Tensor]], interpolation: str) -> Iterable[str]:
    """Patch, absolute and relative positions, then anything else by its shapes."""
    relative: dict[str, int] = {}
    for key, (old, new) in sorted(resized.items()):
        name = key.rpartition(".")[2]
        if old.ndim == new.ndim == 4 and old.shape[:2] == new.shape[:2]:
            yield f"patch {old.shape[-1]} -> {new.shape[-1]} by resampling"
        elif name == "pos_embed":
            yield f"position embedding {_grids(old, new)} by {interpolation} resampling"
        elif name.startswith("rel"):
            sizes = f"{_side(old, new)} -> {_side(new, old)}"
            relative[sizes] = relative.get(sizes, 0) + 1
        else:
            yield f"{key} {list(old.shape)} -> {list(new.shape)}"
    if relative:
        count = sum(relative.values())
        yield f"{count} table{'s' if count > 1 else ''} of relative positions resampled, {_some(list(relative))}"


def _grids(old: Tensor, new: Tensor) -> str:
    """`37 x 37 -> 32 x 32`, or the numbers of tokens where they are not a grid behind the same prefix tokens."""
    if old.ndim == 4:
        return f"{old.shape[1]} x {old.shape[2]} -> {new.shape[1]} x {new.shape[2]}"
    counts = old.shape[1], new.shape[1]
    for prefix in range(min(_MAX_PREFIX, *counts)):
        before, after = (isqrt(count - prefix) for count in counts)
        if (before**2 + prefix, after**2 + prefix) == counts:
            return f"{before} x {before} -> {after} x {after}"
    return f"{counts[0]} -> {counts[1]} tokens"


def _side(table: Tensor, other: Tensor) -> str:
    """How many relative positions: per side of a square table, `13 x 13`, else in all."""
    if table.ndim == 3:
        return f"{table.shape[1]} x {table.shape[2]}"
    for extra in (0, 3):  # BEiT's tables hold three entries for the class token
        side, other_side = isqrt(len(table) - extra), isqrt(len(other) - extra)
        if (side**2 + extra, other_side**2 + extra) == (len(table), len(other)):
            return f"{side} x {side}"
    return str(len(table))


def _some(names: Sequence[str], most: int = 4, separator: str = ", ") -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more
