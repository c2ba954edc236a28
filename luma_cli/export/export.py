"""`export`: write a segmenter to a file for other programs, and keep the file only if it computes the same as torch.

Three formats: a graph of torch.export, the same graph as ONNX (packages of the extra `export`), and the weights alone
as safetensors. `ExportFacts` stands inside every file: in the `metadata_props` of ONNX, in the header of safetensors,
in an extra file of torch.export.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from luma_cli.files import honour_umask
from luma_cli.head.segmenter import Segmenter
from luma_cli.to_json import to_json
from luma_cli.version import __version__

Format = Literal["torch-export", "onnx", "safetensors"]
SUFFIXES: dict[Format, str] = {"torch-export": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors"}
KEY = "luma"  # of the facts in a file's metadata: one key, which no other tool uses
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """What a reader of the file must know: preprocessing, classes, outputs, where the model comes from.

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

    def __json__(self) -> dict[str, Any]:
        """Schema 1."""
        return {
            "schema": 1,
            "backbone": self.backbone,
            "head": self.head,
            "input": {
                "name": INPUT,
                "shape": [self.batch or "batch", 3, self.resolution, self.resolution],
                "channels": "RGB",
                "values": "(image / 255 - mean) / std",
                "mean": self.mean,
                "std": self.std,
            },
            "outputs": [{"name": name, "shape": shape} for name, shape in self.outputs],
            "num_classes": self.num_classes,
            "classes": None
            if self.classes is None
            else [
                {"index": index, "name": each.name, "values": each.values, "colour": each.colour}
                for index, each in enumerate(self.classes.classes)
            ],
            "run_id": self.run_id or None,
            "step": self.step or None,
            "weights_sha256": self.weights_sha256 or None,
            "luma": __version__,
        }

    def to_text(self) -> str:
        """The JSON as one line, for a file's metadata."""
        return json.dumps(to_json(self), allow_nan=False)


@dataclass(frozen=True, slots=True)
class Exported:
    """The files that were written, the model file first, what is inside, and how well it agrees with torch."""

    format: Format
    files: tuple[Path, ...]
    facts: ExportFacts
    agreements: tuple[Agreement, ...]
    num_inputs: int
    tolerance: float

    def __json__(self) -> dict[str, Any]:
        """Schema 1."""
        return {
            "schema": 1,
            "format": self.format,
            "files": self.files,
            "bytes": sum(path.stat().st_size for path in self.files),
            "check": {"inputs": self.num_inputs, "tolerance": self.tolerance, "outputs": self.agreements},
            "facts": self.facts,
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
    if (other := {suffix: name for name, suffix in SUFFIXES.items()}.get(path.suffix, form)) != form:
        raise UsageError(
            f"{path} would be read as {other}, but the format is {form}; "
            f"try --out {path.with_suffix(SUFFIXES[form])} or --format {other}"
        )
    if form == "onnx":
        require()
    if path.is_dir():
        raise UsageError(f"{path} is a folder, expected a file to write; try --out {path / 'model'}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; give another --out, or --force to replace it")
    graph = Graph(_plain_copy(segmenter), scores)
    backbone, config = segmenter.backbone, segmenter.config
    if classes is not None and classes.num_classes != config.num_classes:
        raise BuildError(f"the head has {config.num_classes} classes, the dataset {classes.num_classes}; give its card")
    facts = ExportFacts(
        backbone=backbone.spec.name,
        head=config.name,
        num_classes=config.num_classes,
        resolution=resolution or backbone.resolution,
        mean=backbone.normalisation.mean,
        std=backbone.normalisation.std,
        batch=batch,
        classes=classes,
        outputs=graph.outputs,
        run_id=run_id,
        step=step,
        weights_sha256=weights_sha256,
    )
    _demand_size(graph, facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made = Path(folder) / path.name
        run = _write(graph, facts, made, form)
        found = agreements(graph, run, [batch or number + 1 for number in range(NUM_INPUTS)], facts.resolution)
        demand(found, tolerance)
        if form == "torch-export":
            made.with_name(f"{made.name}.json").write_text(json.dumps(to_json(facts), indent=1), encoding="utf-8")
        files = _publish(Path(folder), path)
    return Exported(form, files, facts, tuple(found), NUM_INPUTS, tolerance)


def _plain_copy(segmenter: Segmenter) -> Segmenter:
    """The segmenter on the CPU in float32 and eval mode; a copy unless it is that already."""
    plain = all(p.dtype == torch.float32 and p.device.type == "cpu" for p in segmenter.parameters())
    if plain and not segmenter.training:
        return segmenter
    return copy.deepcopy(segmenter).to(device="cpu", dtype=torch.float32).eval()


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
    """Write the file, and load what computes from it."""
    if form == "safetensors":
        write_weights(graph, facts, path)
        return load_weights(path, graph)
    if form == "torch-export":
        write_traced(graph, facts, path)
        return load_traced(path)
    write_onnx(graph, facts, path)
    return load_onnx(path)


def _publish(folder: Path, path: Path) -> tuple[Path, ...]:
    """Move what is in `folder` beside `path`, the model file last: it is there only when the others are."""
    names = sorted((each.name for each in folder.iterdir()), key=lambda name: name == path.name)
    for name in names:
        honour_umask(folder / name)
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
        os.replace(folder / name, path.parent / name)
    return tuple(path.parent / name for name in reversed(names))


def trace(graph: Graph, facts: ExportFacts) -> ExportedProgram:
    """The graph at the resolution and batch of `facts`. Raises BuildError when it cannot be traced so."""
    images = random_images(facts.batch or 2, facts.resolution)  # from a batch of 1, torch infers that it is always 1
    shapes = None if facts.batch else {INPUT: {0: Dim("batch", min=1)}}
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(graph, (images,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises what the traced code raises, and a dozen classes of its own
        remedy = "try --format safetensors" if facts.batch else "try --batch 1"
        raise BuildError(f"{facts.backbone} cannot be traced: {_first_line(error)}; {remedy}") from error


def write_traced(graph: Graph, facts: ExportFacts, path: Path) -> None:
    """Write a .pt2 file to `path` with the facts inside, in `luma.json`. Raises BuildError."""
    program = trace(graph, facts)
    with quiet():
        torch.export.save(program, path, extra_files={f"{KEY}.json": facts.to_text()})


def load_traced(path: Path) -> Run:
    """The file's own computation."""
    with quiet():
        run: Run = torch.export.load(path).module()
    return run


def require() -> None:
    """Raise BuildError, naming the extra, when a package that ONNX needs is missing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise BuildError(f"--format onnx needs {', '.join(missing)}; try: pip install 'luma-seg[export]'")


def write_onnx(graph: Graph, facts: ExportFacts, path: Path) -> None:
    """Write an ONNX file to `path`, its weights beside it in `<path>.data` from 2 GB on. Raises BuildError."""
    program = trace(graph, facts)
    refusal = f"{facts.backbone} cannot be written as ONNX"
    names = [name for name, _ in graph.outputs]
    try:
        with torch.no_grad(), quiet():
            found = torch.onnx.export(program, input_names=[INPUT], output_names=names, dynamo=True, verbose=False)
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # the outer errors are reports of many pages
            cause = cause.__cause__
        raise BuildError(f"{refusal}: {_first_line(cause)}; try another --format") from error
    if found is None:
        raise BuildError(f"{refusal}: torch gave no program; try another --format")
    found.model.metadata_props[KEY] = facts.to_text()
    with quiet():
        found.save(str(path))


def load_onnx(path: Path) -> Run:
    """The file's own computation, in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: tuple(torch.from_numpy(each) for each in session.run(None, {INPUT: images.numpy()}))


def write_weights(graph: Graph, facts: ExportFacts, path: Path) -> None:
    """Write the segmenter's state dict to `path`, the facts in its header; a reused FFN is in it once."""
    # clone: safetensors refuses tensors that share memory
    state = {name: values.detach().cpu().clone().contiguous() for name, values in graph.segmenter.state_dict().items()}
    save_file(state, path, metadata={KEY: facts.to_text(), "format": "pt"})


def load_weights(path: Path, graph: Graph) -> Run:
    """The segmenter's computation with the file's weights in place of its own. Raises BuildError if one is missing."""
    state = load_file(path)
    missing = sorted(graph.segmenter.state_dict().keys() - state.keys())
    if missing:
        raise BuildError(f"{path} lacks {missing[0]}, one of {len(missing)} missing weights; export again")
    learnt = {name for name, _ in graph.segmenter.named_parameters()}
    replaced: dict[str, Tensor] = {
        f"segmenter.{name}": nn.Parameter(values, requires_grad=False) if name in learnt else values
        for name, values in state.items()
    }
    return lambda images: functional_call(graph, replaced, (images,), strict=False)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no log lines below CRITICAL while inside: exporters report their own internals."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
