"""Put a checkpoint's tensors into a model: converted by timm's filter, or refused by the first keys that do not fit."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from luma_cli.backbone.conversion import conversions
from luma_cli.backbone.resampling import resampled
from luma_cli.backbone.timm_model import Recipe, class_name
from luma_cli.catalogue.rules import ModelRule, load_rules
from luma_cli.errors import WeightsError

_FILTER_ERRORS = (KeyError, RuntimeError, ValueError, IndexError, AttributeError, AssertionError, TypeError)
_AFTER_THE_MAP = ("head", "fc", "classifier", "fc_norm", "pre_logits", "attn_pool")
_NUM_NAMED = 3


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a file went into a model. ignored: its keys that the map does not need; conversions: what was changed."""

    ignored: tuple[str, ...]
    conversions: tuple[str, ...]


def fit(model: nn.Module, state: dict[str, Tensor], recipe: Recipe, path: Path, unused: Sequence[str]) -> Fitted:
    """Load `state` into `model`, converted for its size; `unused` parts of the model may be absent from the file.

    Raises WeightsError, naming the first keys and shapes, when a parameter that runs is missing or has another shape,
    when it is quantised, NaN or infinite, or when the file holds a tensor that would change the map and that the model
    has no place for.
    """
    rule = load_rules().model_rule(recipe.module, class_name(model), recipe.architecture, {})
    file = dict(state)  # some of timm's filters change what they are given
    try:
        with warnings.catch_warnings(action="ignore"):  # timm's interpolation of bias tables calls itself slow
            state = resampled(model, filtered(model, state, recipe.module, rule))
    except _FILTER_ERRORS as error:
        found = _problems(model, file, recipe, rule, unused) or [f"{type(error).__name__}: {error}"]
        raise _refusal(path, recipe, found) from error
    if found := _problems(model, state, recipe, rule, unused):
        raise _refusal(path, recipe, found)
    own = model.state_dict()
    wanted = {key: value for key, value in state.items() if key in own and not _under(key, unused)}
    model.load_state_dict(wanted, strict=False)
    if found := _not_numbers(model, wanted):
        raise _refusal(path, recipe, found)
    interpolation = str(rule.filter_arguments.get("interpolation", "bicubic"))
    return Fitted(tuple(sorted(state.keys() - own.keys())), conversions(file, wanted, interpolation))


def filtered(model: nn.Module, state: dict[str, Tensor], module: str, rule: ModelRule) -> dict[str, Tensor]:
    """`state` as timm's checkpoint filter for the class of `model` converts it: renamed keys, resampled positions."""
    if not rule.filter:
        return state
    place, _, name = rule.filter.rpartition(":")
    function = getattr(importlib.import_module(place or f"timm.models.{module}"), name)
    takes_model = len(inspect.signature(function).parameters) > 1
    converted: dict[str, Tensor] = function(*((state, model) if takes_model else (state,)), **rule.filter_arguments)
    return converted


def _refusal(path: Path, recipe: Recipe, problems: Sequence[str]) -> WeightsError:
    more = f" and {len(problems) - _NUM_NAMED} more" if len(problems) > _NUM_NAMED else ""
    return WeightsError(
        f"{path} does not fit {recipe.architecture}: {'; '.join(problems[:_NUM_NAMED])}{more}; "
        f"give weights of {recipe.architecture} or use --weights random"
    )


def _problems(
    model: nn.Module, state: Mapping[str, Tensor], recipe: Recipe, rule: ModelRule, unused: Sequence[str]
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
    needless = {*_AFTER_THE_MAP, *_classifiers(recipe), rule.norm}
    for key, value in state.items():
        if key not in own and _matters(model, key, value, needless, unused):
            found.append(f"{key} {list(value.shape)} is not in the model")
    return found


def _not_numbers(model: nn.Module, loaded: Iterable[str]) -> list[str]:
    """What is NaN or infinite after loading: a diverged run, or half precision that overflowed."""
    own = model.state_dict()
    tensors = ((key, own[key]) for key in loaded if own[key].is_floating_point() and not own[key].is_meta)
    return [f"{key} holds NaN or infinite values" for key, value in tensors if not value.isfinite().all()]


def _classifiers(recipe: Recipe) -> Iterable[str]:
    """First names of the classifier's layers, as timm's config of the architecture has them."""
    config = get_pretrained_cfg(recipe.architecture)
    names = config.classifier if config else None
    return [name.partition(".")[0] for name in ([names] if isinstance(names, str) else names or ())]


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
        own = [f"{parts[0]}.{name}" for name, _ in children[parts[0]].named_parameters()]
        return not own or any(not _under(name, unused) for name in own)
    return len(parts) == 1 and value.ndim == 3 and len(value) == 1 and key != "mask_token" and _is_width(model, value)


def _is_width(model: nn.Module, value: Tensor) -> bool:
    """Whether these are tokens of the model's own width: they would stand beside its patches."""
    own = dict(model.named_parameters())
    widths = {parameter.shape[-1] for name, parameter in own.items() if "." not in name and parameter.ndim == 3}
    embedding = own.get("patch_embed.proj.weight")
    return value.shape[-1] in (widths if embedding is None else widths | {embedding.shape[0]})


def _under(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
