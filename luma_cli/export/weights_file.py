"""A segmenter's weights as one safetensors file: whoever builds the same segmenter can load them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from luma_cli.errors import BuildError
from luma_cli.export.check import Run
from luma_cli.export.facts import KEY, ExportFacts
from luma_cli.export.graph import Graph


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
