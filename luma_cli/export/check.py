"""The graph that is exported, and the check that a file computes the same as it does on random images.

B batch, K queries, C classes, H W pixels of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from luma_cli.errors import BuildError, UsageError
from luma_cli.head.parts import HeadOutput
from luma_cli.head.segmenter import Segmenter
from luma_cli.seeds import MODEL, seed_of

INPUT = "images"
NUM_INPUTS = 3
# Part of an output's largest value. Measured with random weights on a CPU in onnxruntime, ViT-S, Swin-T and tiny models
# under every head: at most 2e-6 (docs/use/predict.md).
TOLERANCE = 1e-4
Run = Callable[[Tensor], Sequence[Tensor]]


class Graph(nn.Module):
    """A segmenter whose output is a tuple of tensors, named by `outputs`.

    scores: one score per class and pixel of the input in place of the head's own tensors, as evaluation adds them up
    over windows: for queries the sum of mask probability times class probability, for a linear head its logits.
    """

    def __init__(self, segmenter: Segmenter, scores: bool = False) -> None:
        """Raises UsageError for a segmenter without a head."""
        if segmenter.config.name == "none":
            raise UsageError("a backbone without a head has no predictions to export; choose a run with a head")
        super().__init__()
        self.segmenter = segmenter
        self.scores = scores

    @property
    def outputs(self) -> tuple[tuple[str, str], ...]:
        """Name and shape of every output."""
        if self.scores:
            return (("scores", "[B, C, H, W]"),)
        if self.segmenter.config.name == "linear":
            return (("logits", "[B, C, H / stride, W / stride]"),)
        side = self.segmenter.mask_size((1000, 1000))[0]
        stride = f"{1000 / side:.3g}"
        masks = f"[B, K, H / {stride}, W / {stride}]"
        return (("class_logits", "[B, K, C + 1], the last being no object"), ("mask_logits", masks))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, H, W], normalised -> the outputs in their order."""
        output = self.segmenter(images)
        if not self.scores:
            return tuple(output)
        size = (images.shape[2], images.shape[3])
        if not isinstance(output, HeadOutput):
            return (interpolate(output.logits, size, mode="bilinear", align_corners=False),)
        # As EoMT's released code (arXiv 2503.19108): no threshold, "no object" left out.
        masks = interpolate(output.mask_logits, size, mode="bilinear", align_corners=False).sigmoid()
        classes = output.class_logits.softmax(-1)[..., :-1]
        return (torch.einsum("bqhw,bqc->bchw", masks, classes),)


@dataclass(frozen=True, slots=True)
class Agreement:
    """One output over all inputs: largest absolute difference, and the largest absolute value it is compared with."""

    JSON_ALSO = ("relative",)

    output: str = field(metadata={"json": "name"})
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
