"""Random changes of a training image and its label map, in EoMT's order (arXiv 2503.19108, released transforms).

Colour, flip, scale jitter, padding, crop. Every pixel equals the one that torchvision's v2 functionals give on the
whole image with one binary mask per class: a nearest resize picks the same pixel of a map as of each of its masks, and
padding is in no mask. All numbers are drawn first, so a draw that leaves no labelled pixel costs no colour change.

H W pixels of the image, R side of the crop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from luma_cli.catalogue.datasets import IGNORED, Labels
from luma_cli.catalogue.recipes import Augmentation
from luma_cli.data.change import Change, draw_change
from luma_cli.data.hue import shift_hue

# EoMT redraws without end. Labels that one crop in ten shows are missed 50 times in a row once in 200.
MAX_DRAWS = 50


def augment(
    image: NDArray[np.uint8], labels: Labels, resolution: int, augmentation: Augmentation, seed: int
) -> tuple[Tensor, Tensor]:
    """Image [H, W, 3] and class indices [H, W] -> uint8 image [3, R, R] and class indices [R, R], by `seed` alone.

    Redrawn while no labelled pixel is left, at most MAX_DRAWS times; the last draw is returned then, without labels.
    Padding is black and IGNORED.
    """
    with _one_thread():
        return _augment(image, labels, resolution, augmentation, np.random.Generator(np.random.Philox(seed)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """The mean that contrast is relative to is a sum of floats, whose last bit depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _augment(
    image: NDArray[np.uint8],
    labels: Labels,
    resolution: int,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    hopeless = not (labels != IGNORED).any()
    for _ in range(1 if hopeless else MAX_DRAWS):
        change = draw_change(rng, labels.shape, resolution, augmentation)
        changed = change_labels(labels, change, resolution)
        if (changed != IGNORED).any():
            break
    return change_image(image, change, resolution), changed


def change_labels(labels: Labels, change: Change, resolution: int) -> Tensor:
    """Class indices [H, W] -> [R, R], the nearest ones, IGNORED where padded."""
    mask = tv_tensors.Mask(torch.from_numpy(labels)[None])
    if change.flip:
        mask = functional.horizontal_flip(mask)
    return _crop(functional.resize(mask, [change.height, change.width]), change, resolution, IGNORED)[0]


def change_image(image: NDArray[np.uint8], change: Change, resolution: int) -> Tensor:
    """Image [H, W, 3] -> uint8 [3, R, R], bilinear with antialiasing, black where padded."""
    pixels = change_colours(tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)), change)
    if change.flip:
        pixels = functional.horizontal_flip(pixels)
    # Resizing is twice as fast with a pixel's channels side by side, the rest with one channel after the other.
    pixels = functional.resize(
        pixels[None].contiguous(memory_format=torch.channels_last), [change.height, change.width]
    )
    return _crop(pixels[0], change, resolution, 0)


def change_colours(pixels: Tensor, change: Change) -> Tensor:
    """uint8 [3, H, W] -> the same with other colours."""
    pixels = pixels.contiguous()
    if change.brightness is not None:
        pixels = functional.adjust_brightness(pixels, change.brightness)
    if change.contrast is not None and change.contrast_first:
        pixels = functional.adjust_contrast(pixels, change.contrast)
    if change.saturation is not None:
        pixels = functional.adjust_saturation(pixels, change.saturation)
    if change.hue is not None:
        pixels = torch.from_numpy(shift_hue(pixels.numpy(), change.hue))
    if change.contrast is not None and not change.contrast_first:
        pixels = functional.adjust_contrast(pixels, change.contrast)
    return pixels


def _crop(pixels: Tensor, change: Change, resolution: int, fill: int) -> Tensor:
    """[.., height, width] -> [.., R, R] from (top, left), padded below and to the right."""
    part = pixels[..., change.top : change.top + resolution, change.left : change.left + resolution].as_subclass(Tensor)
    cropped = part.new_full((*part.shape[:-2], resolution, resolution), fill)
    cropped[..., : part.shape[-2], : part.shape[-1]] = part
    return cropped
