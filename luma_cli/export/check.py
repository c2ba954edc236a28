"""Whether an exported file computes what the segmenter computes: both on the same random images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from luma_cli.errors import BuildError
from luma_cli.export.graph import Graph
from luma_cli.seeds import MODEL, seed_of

Run = Callable[[Tensor], Sequence[Tensor]]

# Part of an output's largest value. Measured with random weights on a CPU in onnxruntime, ViT-S, Swin-T and tiny models
# under every head: at most 2e-6 (docs/predict.md).
TOLERANCE = 1e-4
NUM_INPUTS = 3


@dataclass(frozen=True, slots=True)
class Agreement:
    """One output over all inputs: largest absolute difference, and the largest absolute value it is compared with."""

    output: str
    max_abs_difference: float
    scale: float

    @property
    def relative(self) -> float:
        """The difference as a part of the scale; infinite when the output itself is not finite."""
        return self.max_abs_difference / self.scale if self.scale > 0 else float(self.max_abs_difference > 0)


def agreements(graph: Graph, run: Run, batches: Sequence[int], resolution: int) -> list[Agreement]:
    """Compare `run`, the exported file, with `graph` on normal random images, one set of them per entry of `batches`.

    Raises BuildError when the file gives another number or shape of outputs.
    """
    names = [name for name, _ in graph.outputs]
    worst, scale = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for number, batch in enumerate(batches):
        images = random_images(batch, resolution, number)
        with torch.inference_mode():
            expected, found = graph(images), run(images)
        if [tuple(each.shape) for each in found] != [tuple(each.shape) for each in expected]:
            raise BuildError(
                f"the exported file gives {_shapes(found)} for {_shapes([images])}, not {_shapes(expected)}"
            )
        for name, wanted, got in zip(names, expected, found, strict=True):
            worst[name] = max(worst[name], _largest(got.float() - wanted))
            scale[name] = max(scale[name], _largest(wanted))
    return [Agreement(name, worst[name], scale[name]) for name in names]


def demand(found: Sequence[Agreement], tolerance: float) -> None:
    """Raise BuildError, naming the worst output, when one differs by more than `tolerance` of its scale."""
    worst = max(found, key=lambda each: each.relative)
    if not worst.relative <= tolerance:
        raise BuildError(
            f"{worst.output} of the exported file differs from torch by {worst.max_abs_difference:.3g}, "
            f"{worst.relative:.2g} of its largest value {worst.scale:.3g}, expected at most {tolerance:g}; nothing was "
            "written; another --format may agree"
        )


def random_images(batch: int, resolution: int, number: int = 0) -> Tensor:
    """Normal random images [batch, 3, resolution, resolution], the same for the same arguments."""
    generator = torch.Generator().manual_seed(seed_of(MODEL, number))
    return torch.randn(batch, 3, resolution, resolution, generator=generator)


def _largest(values: Tensor) -> float:
    """Largest absolute value; infinite when one is not finite."""
    largest = values.abs().max().item()
    return largest if largest == largest else float("inf")


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join(str(tuple(each.shape)) for each in tensors)
