"""The part under test: a segmenter, its backbone or its head, as one callable on rotating random inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.head import segmenter as segmenters
from luma_cli.measure.cost import spec_of
from luma_cli.store.records import Configuration

NUM_INPUTS = 3  # constant inputs run up to 13% faster than random ones (measured on an H200)
PLAIN_CONVOLUTIONS = 4  # a patch embedding and a neck; more make a convolutional model

Build = Callable[..., Any]


class Decoder(nn.Module):
    """The head alone as a module, so that it can be compiled."""

    def __init__(self, segmenter: Any, resolution: int):
        super().__init__()
        self.segmenter = segmenter
        self._size = (resolution, resolution)

    def forward(self, features: Tensor) -> Any:
        """Features [B, D, h, w] -> prediction."""
        return self.segmenter.decode(features, self._size)


class Subject:
    """The part under test and its inputs. Calls run in whatever contexts the caller has entered."""

    def __init__(self, configuration: Configuration, device: torch.device, build: Build | None = None):
        head = HeadConfig(name="none") if configuration.part == "backbone" else configuration.head
        self._configuration = configuration
        self._device = device
        self._dtype: torch.dtype = getattr(torch, configuration.dtype)
        self.segmenter = (build or segmenters.build)(
            spec_of(configuration),
            configuration.resolution,
            head=head,
            weights=configuration.weights,
            device=device,
            dtype=self._dtype,
            seed=configuration.seed,
        ).eval()
        self.module: nn.Module = self.segmenter
        if configuration.part == "head":
            self.module = Decoder(self.segmenter, configuration.resolution)
        self._eager = self.module
        self._layout: torch.memory_format = torch.contiguous_format

    @property
    def is_convolutional(self) -> bool:
        """Whether the memory layout is worth trying."""
        convolutions = sum(isinstance(module, nn.Conv2d) for module in self.segmenter.backbone.modules())
        return convolutions > PLAIN_CONVOLUTIONS

    def set_layout(self, layout: torch.memory_format) -> None:
        """Put weights and later inputs into this memory layout."""
        self._layout = layout
        with torch.inference_mode(False):  # weights moved in inference mode could never train again
            self.segmenter.to(memory_format=layout)

    @property
    def ffn(self) -> str:
        """Whose feed-forward layers the queries use: reused, fresh, or none without a head."""
        return "none" if self.segmenter.head is None else str(self.segmenter.ffn)

    @property
    def weights(self) -> dict[str, Any]:
        """The file that was loaded, what was changed so that it fits, and the mean and std that it wants of images."""
        loaded, normalisation = self.segmenter.backbone.weights, self.segmenter.backbone.normalisation
        return {
            "source": loaded.source,
            "sha256": loaded.sha256,
            "conversions": list(loaded.conversions),
            "normalisation": asdict(normalisation),
        }

    def run_backbone(self) -> None:
        """One call of the backbone alone."""
        self.segmenter.backbone(self._images(1, 0))

    def compile(self, mode: str) -> None:
        """Compile the part for static shapes."""
        self.module = torch.compile(self.module, mode=None if mode == "default" else mode, dynamic=False)  # type: ignore[assignment]

    def inputs(self, batch: int, count: int = NUM_INPUTS) -> list[Any]:
        """Random inputs of exactly this batch, seeded: images, or what the head takes where it is the part."""
        images = [self._images(batch, index) for index in range(count)]
        if self._configuration.part != "head":
            return images
        return [self._laid_out(self.segmenter.read(image)) for image in images]

    def _laid_out(self, taken: Any) -> Any:
        """What a head takes, cut off from its backbone; the map in the memory layout under test, tokens as they are."""
        if isinstance(taken, Tensor):
            return taken.detach().contiguous(memory_format=self._layout)
        return taken._replace(features=self._laid_out(taken.features), tokens=tuple(t.detach() for t in taken.tokens))

    def _images(self, batch: int, index: int) -> Tensor:
        """Images [B, 3, R, R] of standard normal noise, made on the device in their own dtype."""
        generator = torch.Generator(self._device).manual_seed(self._configuration.seed * NUM_INPUTS + index)
        shape = (batch, 3, self._configuration.resolution, self._configuration.resolution)
        noise = torch.randn(shape, generator=generator, device=self._device, dtype=self._dtype)
        return noise.contiguous(memory_format=self._layout)

    def caller(self, batch: int, count: int = NUM_INPUTS, *, eager: bool = False) -> Callable[[int], Any]:
        """A call that rotates through `count` inputs of this batch; `eager` leaves a compiled module out."""
        inputs = self.inputs(batch, count)
        module = self._eager if eager else self.module
        return lambda number: module(inputs[number % len(inputs)])

    def largest_numel(self) -> int:
        """Elements per image of the largest tensor that a module takes or gives."""
        largest = 3 * self._configuration.resolution**2

        def look(module: nn.Module, arguments: Any, output: Any) -> None:
            nonlocal largest
            for tensor in (*arguments, *(output if isinstance(output, (tuple, list)) else (output,))):
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.numel())

        with contextlib.ExitStack() as hooks:
            for module in self.segmenter.modules():
                hooks.enter_context(module.register_forward_hook(look))
            self.caller(1, 1, eager=True)(0)
        return largest
