"""`export`: a segmenter written to a file, which appears only once it computes what the segmenter computes.

Exporters warn and log about their own internals; none of it is for the user, whose verdict is the check.

What a reader of an exported file must know: preprocessing, classes, outputs, where it comes from. No torch.

It stands inside every file: `metadata_props` of ONNX, the header of safetensors, an extra file of torch.export.

A graph traced by torch.export, on its own as a file or on the way to ONNX.

A graph as an ONNX file, and the file run by onnxruntime. The packages are the extra `export`.

A segmenter's weights as one safetensors file: whoever builds the same segmenter can load them.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.func import functional_call

from luma_cli.catalogue.datasets import LabelTable
from luma_cli.errors import BuildError, UsageError
from luma_cli.export.check import INPUT, NUM_INPUTS, TOLERANCE, Agreement, Graph, Run, agreements, demand, random_images
from luma_cli.head.segmenter import Segmenter
from luma_cli.version import __version__


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no log lines below CRITICAL while inside; both are as before afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


SCHEMA = 1
# The one key under which other tools' metadata does not collide with ours.
KEY = "luma"


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """The model, and how images are brought to it and its outputs are read.

    resolution: side of the square input in pixels. mean, std: of red, green, blue, for values from 0 to 1; the graph
    takes images that are normalised already. batch: images per call, 0 for any number. classes: names and colours in
    the order of the indices, None when no dataset is known. outputs: name and shape of each, as text.
    """

    backbone: str
    head: str
    num_classes: int
    resolution: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    batch: int = 1
    classes: LabelTable | None = None
    outputs: tuple[tuple[str, str], ...] = ()
    run_id: str = ""
    step: int = 0
    weights_sha256: str = ""
    version: str = ""

    def to_json(self) -> dict[str, Any]:
        """Schema 1."""
        return {
            "schema": SCHEMA,
            "backbone": self.backbone,
            "head": self.head,
            "input": {
                "name": "images",
                "shape": [self.batch or "batch", 3, self.resolution, self.resolution],
                "channels": "RGB",
                "values": "(image / 255 - mean) / std",
                "mean": list(self.mean),
                "std": list(self.std),
            },
            "outputs": [{"name": name, "shape": shape} for name, shape in self.outputs],
            "num_classes": self.num_classes,
            "classes": self._classes(),
            "run_id": self.run_id or None,
            "step": self.step or None,
            "weights_sha256": self.weights_sha256 or None,
            "luma": self.version,
        }

    def to_text(self) -> str:
        """`to_json` as one line, for a file's metadata."""
        return json.dumps(self.to_json(), allow_nan=False)

    def _classes(self) -> list[dict[str, Any]] | None:
        if self.classes is None:
            return None
        return [
            {"index": index, "name": each.name, "values": list(each.values), "colour": list(each.colour)}
            for index, each in enumerate(self.classes.classes)
        ]


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


def write_weights(graph: Graph, facts: ExportFacts, path: Path) -> None:
    """Write the segmenter's state dict to `path`, the facts in its header; a reused FFN is in it once."""
    state = {name: values.detach().cpu().clone().contiguous() for name, values in _state(graph).items()}
    save_file(state, path, metadata={KEY: facts.to_text(), "format": "pt"})


def load_weights(path: Path, graph: Graph) -> Run:
    """The segmenter's computation with the file's weights in place of its own. Raises BuildError if one is missing."""
    state = load_file(path)
    missing = sorted(_state(graph).keys() - state.keys())
    if missing:
        raise BuildError(f"{path} lacks {missing[0]}, one of {len(missing)} missing weights; export again")
    learnt = {name for name, _ in graph.segmenter.named_parameters()}
    replaced = {
        f"segmenter.{name}": nn.Parameter(values, requires_grad=False) if name in learnt else values
        for name, values in state.items()
    }

    def run(images: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = functional_call(graph, replaced, (images,), strict=False)
        return outputs

    return run


def _state(graph: Graph) -> dict[str, Tensor]:
    with torch.no_grad():
        return graph.segmenter.state_dict()


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
        require()
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
        "torch-export": write_traced,
        "onnx": write_onnx,
        "safetensors": write_weights,
    }
    writers[form](graph, facts, path)
    if form == "safetensors":
        return load_weights(path, graph)
    return load_traced(path) if form == "torch-export" else load_onnx(path)


def _publish(folder: Path, path: Path) -> tuple[Path, ...]:
    """Move what is in `folder` beside `path`, the model file last: it is there only when the others are."""
    names = sorted((each.name for each in folder.iterdir()), key=lambda name: name == path.name)
    for name in names:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
        os.replace(folder / name, path.parent / name)
    return tuple(path.parent / name for name in reversed(names))
