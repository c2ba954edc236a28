"""A trained segmenter out of a run or a checkpoint: built from its configuration, filled with its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from luma_cli.backbone.timm_model import Normalisation
from luma_cli.catalogue.names import resolve
from luma_cli.errors import CheckpointError, RunError
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.measure import imports
from luma_cli.train import checkpoints
from luma_cli.train.checkpoint import EMA, STATE
from luma_cli.train.checkpoints import damage, read_manifest
from luma_cli.train.config import RunConfig, with_imports
from luma_cli.train.run_folder import CONFIG, MODEL, read_config
from luma_cli.train.runs import FoundRun, find_run

Which = Literal["best", "latest"]


@dataclass(frozen=True, slots=True)
class Restored:
    """A segmenter in eval mode. sha256: of the weights file, which names the checkpoint in an EvaluationRecord.

    run_id is empty and step 0 for weights that came without their run. which: `best` or `latest` of the run, empty
    where the checkpoint was named.
    """

    segmenter: Segmenter
    config: RunConfig
    step: int
    run_id: str
    sha256: str
    weights: Path
    which: str = ""


def build_model(config: RunConfig, weights: str = "random") -> Segmenter:
    """The segmenter of `config` on the CPU, in eval mode, with weights as in `--weights`.

    Images are normalised as the run does it, once the configuration says how. Raises UnknownName, BadResolution,
    WeightsError, BuildError.
    """
    for target in config.imports:
        imports.load(imports.find(target))
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
    imports: Sequence[str] = (),
) -> Restored:
    """The segmenter that `run` names, see `find_run`: its best or latest checkpoint, or the very one that is named.

    The averaged weights are taken where there are some, unless `ema` is off. Every byte is checked against the
    manifest. imports: modules with the backbone's class, which a checkpoint names and which run only where the caller
    names them. Raises RunError for an unknown run, CheckpointError for a damaged one, UsageError without `imports`.

    >>> restore("latest").segmenter  # doctest: +SKIP
    """
    found = find_run(run, database)
    weights, chosen = (found.checkpoint, "") if found.checkpoint else _chosen(found, which)
    if not weights.is_file():
        weights /= EMA if ema and (weights / EMA).is_file() else MODEL
    config = with_imports(read_config(weights.parent / CONFIG), imports)
    step, sha256 = _verified(weights)
    segmenter = build_model(config)
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights} is not a safetensors file: {error}") from error
    _fill(segmenter, tensors, weights)
    return Restored(segmenter.to(device, dtype).eval(), config, step, found.run_id, sha256, weights, chosen)


def choose_classes(segmenter: Segmenter, indices: Sequence[int]) -> None:
    """Let `segmenter` predict the classes of these indices alone, in this order: a pixel is given to the likeliest.

    The probability of a query's other classes joins that of "no object".
    """
    if segmenter.head is None or tuple(indices) == tuple(range(segmenter.config.num_classes)):
        return
    kept = list(indices)

    def chosen(layer: nn.Module, inputs: object, logits: Tensor) -> Tensor:
        if isinstance(layer, nn.Conv2d):
            return logits[:, kept]
        others = sorted(set(range(logits.shape[-1])) - set(kept))
        rest = logits[..., others].logsumexp(-1, keepdim=True)
        return torch.cat([logits[..., kept], rest.to(logits.dtype)], -1)

    segmenter.head.classify.register_forward_hook(chosen)
    segmenter.config = replace(segmenter.config, num_classes=len(kept))


def _chosen(found: FoundRun, which: Which) -> tuple[Path, str]:
    if found.folder is None:
        place = found.record.folder if found.record else "a folder of its own"
        raise RunError(
            f"run {found.run_id} has its checkpoints in {place}, which is not here; name a checkpoint's path"
        )
    path = checkpoints.best(found.folder) if which == "best" else checkpoints.latest_sound(found.folder).path
    return path, which if which == "latest" or read_manifest(path).best else "latest"


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
