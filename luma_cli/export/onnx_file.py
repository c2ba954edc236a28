"""A graph as an ONNX file, and the file run by onnxruntime. The packages are the extra `export`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from luma_cli.errors import BuildError
from luma_cli.export.check import Run
from luma_cli.export.facts import KEY, ExportFacts
from luma_cli.export.graph import INPUT, Graph
from luma_cli.export.quiet import quiet
from luma_cli.export.traced import trace

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require() -> None:
    """Raise BuildError, naming the extra, when a package is missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise BuildError(f"--format onnx needs {', '.join(missing)}; try: pip install 'luma-seg[export]'")


def write_onnx(graph: Graph, facts: ExportFacts, path: Path) -> None:
    """Write an ONNX file to `path`, its weights beside it in `<path>.data` from 2 GB on. Raises BuildError."""
    program = trace(graph, facts)
    try:
        with torch.no_grad(), quiet():
            found = torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=[name for name, _ in graph.outputs],
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise BuildError(
            f"{facts.backbone} cannot be written as ONNX: {_cause(error)}; try another --format"
        ) from error
    if found is None:
        raise BuildError(f"{facts.backbone} cannot be written as ONNX: torch gave no program; try another --format")
    found.model.metadata_props[KEY] = facts.to_text()
    with quiet():
        found.save(str(path))


def load_onnx(path: Path) -> Run:
    """The file's own computation, in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(each) for each in session.run(None, {INPUT: images.numpy()}))

    return run


def _cause(error: BaseException) -> str:
    """The first line of the innermost reason: the outer ones are reports of many pages."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
