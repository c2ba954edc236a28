"""A trained segmenter out of a run or a checkpoint: built from its configuration, filled with its weights."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from luma_cli.backbone.timm_model import Normalisation
from luma_cli.catalogue.names import resolve
from luma_cli.errors import CheckpointError, RunError
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.measure.imports import find, load
from luma_cli.train import checkpoints
from luma_cli.train.checkpoint import EMA, MODEL, STATE
from luma_cli.train.checkpoints import damage, read_manifest
from luma_cli.train.config import RunConfig
from luma_cli.train.run_folder import CONFIG, read_config
from luma_cli.train.runs import FoundRun, find_run

Which = Literal["best", "latest"]


@dataclass(frozen=True, slots=True)
class Restored:
    """A segmenter in eval mode. sha256: of the weights file, which names the checkpoint in an EvaluationRecord.

    run_id is empty and step 0 for weights that came without their run.
    """

    segmenter: Segmenter
    config: RunConfig
    step: int
    run_id: str
    sha256: str
    weights: Path


def build_model(config: RunConfig, weights: str = "random") -> Segmenter:
    """The segmenter of `config` on the CPU, in eval mode, with weights as in `--weights`.

    Images are normalised as the run does it, once the configuration says how. Raises UnknownName, BadResolution,
    WeightsError, BuildError.
    """
    for target in config.imports:
        load(find(target))
    spec = resolve(config.backbone, imported=bool(config.imports))
    segmenter = build(spec, config.resolution, head=config.head, weights=weights, seed=config.seed)
    if config.mean:
        mean, std = config.mean, config.std
        segmenter.backbone.normalisation = Normalisation((*mean,), (*std,), "the run's configuration")  # type: ignore[arg-type]
    return segmenter


def restore(
    run: str,
    which: Which = "best",
    *,
    database: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    ema: bool = True,
    imports: str | None = None,
) -> Restored:
    """The segmenter that `run` names, see `find_run`: its best or latest checkpoint, or the very one that is named.

    The averaged weights are taken where there are some, unless `ema` is off. Every byte is checked against the
    manifest. imports: the module or file that registers the run's own backbone; what its configuration names is never
    run unasked. Raises RunError for an unknown run, CheckpointError for a damaged one or without `imports`.

    >>> restore("latest").segmenter  # doctest: +SKIP
    """
    found = find_run(run, database)
    weights = found.checkpoint or _chosen(found, which)
    if not weights.is_file():
        weights /= EMA if ema and (weights / EMA).is_file() else MODEL
    config = read_config(weights.parent / CONFIG)
    if config.imports and not imports:
        raise CheckpointError(
            f"{weights.parent / CONFIG} wants to run {', '.join(config.imports)}; read it and, if you trust it, "
            f"add --import {shlex.quote(config.imports[0])}"
        )
    config = replace(config, imports=(imports,) if imports else ())
    step, sha256 = _verified(weights)
    segmenter = build_model(config)
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights} is not a safetensors file: {error}") from error
    _fill(segmenter, tensors, weights)
    return Restored(segmenter.to(device, dtype).eval(), config, step, found.run_id, sha256, weights)


def _chosen(found: FoundRun, which: Which) -> Path:
    if found.folder is None:
        place = found.record.folder if found.record else "a folder of its own"
        raise RunError(
            f"run {found.run_id} has its checkpoints in {place}, which is not here; name a checkpoint's path"
        )
    return checkpoints.best(found.folder) if which == "best" else checkpoints.latest_sound(found.folder).path


def _fill(segmenter: Segmenter, state: Mapping[str, Tensor], source: Path) -> None:
    """Loads `state` into `segmenter`. Raises CheckpointError unless every name and shape is the model's own."""
    expected = {name: tuple(tensor.shape) for name, tensor in segmenter.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(expected.keys() | given.keys()):
        if expected.get(name) != given.get(name):
            pair = (given.get(name, "nothing"), expected.get(name, "no such name"))
            raise CheckpointError(f"{source} is of another model: {name} has {pair[0]}, expected {pair[1]}")
    segmenter.load_state_dict(dict(state), strict=True)


def _verified(weights: Path) -> tuple[int, str]:
    """Step and SHA-256 of a weights file: as its checkpoint's manifest says, and true; else computed."""
    folder = weights.parent
    if checkpoints.is_checkpoint(folder):
        manifest = read_manifest(folder)
        if why := damage(folder, manifest):
            raise CheckpointError(f"{folder} is damaged: {why}; name another checkpoint")
        if weights.name in manifest.files:
            return manifest.step, manifest.files[weights.name].sha256
    if not weights.is_file():
        raise CheckpointError(f"{weights} does not exist; expected the weights of a checkpoint")
    try:
        step = int(json.loads((folder / STATE).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        step = 0
    with weights.open("rb") as file:
        return step, hashlib.file_digest(file, "sha256").hexdigest()
