"""A trained segmenter out of a run or a checkpoint: built from its configuration, filled with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from luma_cli.backbone.timm_model import Normalisation, recipe_for
from luma_cli.backbone.weights import filtered, resampled
from luma_cli.catalogue.names import resolve
from luma_cli.errors import CheckpointError
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.measure import imports as own
from luma_cli.train.checkpoint import fill
from luma_cli.train.config import RunConfig, with_imports
from luma_cli.train.foreign import built, foreign_config, is_foreign, read_foreign, set_norm_eps
from luma_cli.train.runs import FoundWeights, Which, find_weights

_BACKBONE, _CLASS_LAYER = "backbone.model.", "head.classify."


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
        own.load(own.find(target))
    spec = resolve(config.backbone, imported=bool(config.imports))
    segmenter = build(spec, config.resolution, head=config.head, weights=weights, seed=config.seed)
    set_norm_eps(segmenter, config.norm_eps)
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
    data: str | None = None,
) -> Restored:
    """The segmenter that `run` names, see `find_run`: its best or latest checkpoint, or the very one that is named.

    Also a file of another program, see `foreign.py`, whose classes are those of the dataset `data`.

    The averaged weights are taken where there are some, unless `ema` is off. Every byte is checked against the
    manifest. imports: modules with the backbone's class, which a checkpoint names and which run only where the caller
    names them. Raises RunError for an unknown run, CheckpointError for a damaged one, UsageError without `imports`.

    >>> restore("latest").segmenter  # doctest: +SKIP
    """
    if is_foreign(path := Path(run).expanduser()):
        other = read_foreign(path)
        config = foreign_config(other, data)
        return Restored(built(other).to(device, dtype), config, 0, "", other.sha256, path)
    found = find_weights(run, which, database, ema=ema)
    config = with_imports(found.config, imports)
    segmenter = build_model(config)
    fill(segmenter, _tensors(found.file), found.file)
    segmenter = segmenter.to(device, dtype).eval()
    return Restored(segmenter, config, found.step, found.run_id, found.sha256, found.file, found.which)


def start_from(segmenter: Segmenter, found: FoundWeights, config: RunConfig) -> str:
    """Fill the segmenter of `config` with the weights of a trained one; says what became of its class layer.

    Tables that depend on the resolution are resized. Classes of the same names take their rows, in whichever order; if
    the configuration says so, the class layer stays as it was drawn. Raises CheckpointError.
    """
    own = segmenter.state_dict()
    tensors = _tensors(found.file)
    backbone = {name.removeprefix(_BACKBONE): each for name, each in tensors.items() if name.startswith(_BACKBONE)}
    model = segmenter.backbone.model
    if any(
        f"{_BACKBONE}{name}" in own and each.shape != own[f"{_BACKBONE}{name}"].shape for name, each in backbone.items()
    ):
        module = recipe_for(segmenter.backbone.spec).module
        backbone = resampled(model, filtered(model, backbone, module, segmenter.backbone.rule))
    tensors |= {f"{_BACKBONE}{name}": each for name, each in backbone.items()}
    layer = [name for name in tensors if name.startswith(_CLASS_LAYER)]
    said = "class layer drawn anew"
    if config.init["class_layer"]:
        before, now = found.config.classes.names, config.classes.names
        rows = [before.index(name) for name in now]
        for name in layer:
            tensors[name] = tensors[name][[*rows, *range(len(rows), len(tensors[name]))]]
        said = "class layer kept" if before == now else "class layer kept, in the order of the data's classes"
    else:
        tensors |= {name: own[name] for name in layer}
    fill(segmenter, tensors, found.file)
    return said


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is not a safetensors file: {error}") from error


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
