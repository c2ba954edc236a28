"""`export`: a segmenter written to a file, which appears only once it computes what the segmenter computes."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from luma_cli.catalogue.datasets import LabelTable
from luma_cli.errors import BuildError, UsageError
from luma_cli.export import onnx_file, traced, weights_file
from luma_cli.export.check import NUM_INPUTS, TOLERANCE, Agreement, Run, agreements, demand, random_images
from luma_cli.export.facts import ExportFacts
from luma_cli.export.graph import Graph
from luma_cli.head.segmenter import Segmenter
from luma_cli.version import __version__

Format = Literal["torch-export", "onnx", "safetensors"]
SUFFIXES: dict[Format, str] = {"torch-export": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors"}


@dataclass(frozen=True, slots=True)
class Exported:
    """The files that were written, the model file first, what is inside, and how well it agrees with torch."""

    format: Format
    files: tuple[Path, ...]
    facts: ExportFacts
    agreements: tuple[Agreement, ...]
    num_inputs: int
    tolerance: float

    def to_json(self) -> dict[str, Any]:
        """Schema 1."""
        return {
            "schema": 1,
            "format": self.format,
            "files": [str(path) for path in self.files],
            "bytes": sum(path.stat().st_size for path in self.files),
            "check": {
                "inputs": self.num_inputs,
                "tolerance": self.tolerance,
                "outputs": [
                    {
                        "name": each.output,
                        "max_abs_difference": each.max_abs_difference,
                        "scale": each.scale,
                        "relative": each.relative,
                    }
                    for each in self.agreements
                ],
            },
            "facts": self.facts.to_json(),
        }


def export(
    segmenter: Segmenter,
    out: str | Path,
    form: Format = "onnx",
    *,
    resolution: int = 0,
    batch: int = 1,
    scores: bool = False,
    classes: LabelTable | None = None,
    run_id: str = "",
    step: int = 0,
    weights_sha256: str = "",
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
) -> Exported:
    """Write `segmenter`, which stays as it is, to `out` in float32 and check the file on random images.

    resolution: side of the input in pixels, 0 for the segmenter's own. batch: images per call, 0 for any number; says
    nothing to safetensors. scores: see Graph. classes, run_id, step, weights_sha256: kept in the file as they are.
    tolerance: largest difference from torch, as a part of an output's largest value.

    Raises UsageError for a file that exists or a segmenter without a head, BuildError when the graph cannot be written
    or computes something else; there is no file then, and one that existed is as it was.

    >>> export(build("test_vit", 64), "test_vit.onnx").agreements[0].relative < 1e-4  # doctest: +SKIP
    True
    """
    path = Path(out)
    if form == "onnx":
        onnx_file.require()
    _refuse(path, overwrite)
    graph = Graph(_plain_copy(segmenter), scores)
    facts = _facts(graph, resolution, batch, classes)
    facts = replace(facts, run_id=run_id, step=step, weights_sha256=weights_sha256, version=__version__)
    _demand_size(graph, facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made = Path(folder) / path.name
        run = _write(graph, facts, made, form)
        found = agreements(graph, run, [batch or number + 1 for number in range(NUM_INPUTS)], facts.resolution)
        demand(found, tolerance)
        if form == "torch-export":
            made.with_name(f"{made.name}.json").write_text(json.dumps(facts.to_json(), indent=1), encoding="utf-8")
        files = _publish(Path(folder), path)
    return Exported(form, files, facts, tuple(found), NUM_INPUTS, tolerance)


def _refuse(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a folder, expected a file to write; try --out {path / 'model'}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; give another --out, or --force to replace it")


def _plain_copy(segmenter: Segmenter) -> Segmenter:
    """The segmenter on the CPU in float32 and eval mode; a copy unless it is that already."""
    wanted = all(p.dtype == torch.float32 and p.device.type == "cpu" for p in segmenter.parameters())
    if wanted and not segmenter.training:
        return segmenter
    return copy.deepcopy(segmenter).to(device="cpu", dtype=torch.float32).eval()


def _facts(graph: Graph, resolution: int, batch: int, classes: LabelTable | None) -> ExportFacts:
    segmenter = graph.segmenter
    backbone, config = segmenter.backbone, segmenter.config
    if classes is not None and classes.num_classes != config.num_classes:
        raise BuildError(f"the head has {config.num_classes} classes, the dataset {classes.num_classes}; give its card")
    return ExportFacts(
        backbone=backbone.spec.name,
        head=config.name,
        num_classes=config.num_classes,
        resolution=resolution or backbone.resolution,
        mean=backbone.normalisation.mean,
        std=backbone.normalisation.std,
        batch=batch,
        classes=classes,
        outputs=graph.outputs,
    )


def _demand_size(graph: Graph, facts: ExportFacts) -> None:
    """Raise UsageError when the segmenter does not take images of this size."""
    try:
        with torch.inference_mode():
            graph(random_images(1, facts.resolution))
    except (RuntimeError, AssertionError, ValueError) as error:
        built = graph.segmenter.backbone.resolution
        raise UsageError(
            f"{facts.backbone} was built for {built} px and does not take {facts.resolution} px; leave out --res"
        ) from error


def _write(graph: Graph, facts: ExportFacts, path: Path, form: Format) -> Run:
    """Write the file; what computes from it."""
    writers: dict[Format, Callable[[Graph, ExportFacts, Path], None]] = {
        "torch-export": traced.write_traced,
        "onnx": onnx_file.write_onnx,
        "safetensors": weights_file.write_weights,
    }
    writers[form](graph, facts, path)
    if form == "safetensors":
        return weights_file.load_weights(path, graph)
    return traced.load_traced(path) if form == "torch-export" else onnx_file.load_onnx(path)


def _publish(folder: Path, path: Path) -> tuple[Path, ...]:
    """Move what is in `folder` beside `path`, the model file last: it is there only when the others are."""
    names = sorted((each.name for each in folder.iterdir()), key=lambda name: name == path.name)
    for name in names:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
        os.replace(folder / name, path.parent / name)
    return tuple(path.parent / name for name in reversed(names))
