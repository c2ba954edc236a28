"""A graph traced by torch.export, on its own as a file or on the way to ONNX."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from luma_cli.errors import BuildError
from luma_cli.export.check import Run, random_images
from luma_cli.export.facts import KEY, ExportFacts
from luma_cli.export.graph import INPUT, Graph
from luma_cli.export.quiet import quiet

_EXTRA = f"{KEY}.json"


def trace(graph: Graph, facts: ExportFacts) -> ExportedProgram:
    """The graph at the resolution and batch of `facts`. Raises BuildError when it cannot be traced so."""
    images = random_images(facts.batch or 2, facts.resolution)  # of 1, torch would take it that the batch is always 1
    shapes = None if facts.batch else {INPUT: {0: Dim("batch", min=1)}}
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(graph, (images,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises what the traced code raises, and a dozen classes of its own
        remedy = "try --format safetensors" if facts.batch else "try --batch 1"
        raise BuildError(f"{facts.backbone} cannot be traced: {_first_line(error)}; {remedy}") from error


def write_traced(graph: Graph, facts: ExportFacts, path: Path) -> None:
    """Write a .pt2 file to `path` with the facts inside. Raises BuildError."""
    program = trace(graph, facts)
    with quiet():
        torch.export.save(program, path, extra_files={_EXTRA: facts.to_text()})


def load_traced(path: Path) -> Run:
    """The file's own computation."""
    with quiet():
        program = torch.export.load(path).module()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = program(images)
        return outputs

    return run


def read_facts(path: Path) -> str:
    """The facts inside a file that `write` made, as JSON text."""
    extra = {_EXTRA: ""}
    with quiet():
        torch.export.load(path, extra_files=extra)
    return extra[_EXTRA]


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
