"""The segmenter that a run's configuration describes."""

from __future__ import annotations

from luma_cli.backbone.timm_model import Normalisation
from luma_cli.catalogue.names import resolve
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.measure import imports
from luma_cli.train.run_config import RunConfig


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
