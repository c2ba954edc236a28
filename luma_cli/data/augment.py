"""Random changes of a training image and its label map, in EoMT's order (arXiv 2503.19108, released transforms).

Colour, flip, scale jitter, padding, crop. Every pixel equals torchvision's v2 functionals on the whole image with one
binary mask per class: a nearest resize picks the same pixel of a map as of each of its masks. All numbers are drawn
first, so that a draw without labelled pixels costs no colour change. H W pixels of the image, R side of the crop.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from luma_cli.catalogue.datasets import IGNORED, Labels
from luma_cli.catalogue.recipes import Augmentation

# EoMT has no limit. Labels that one crop in ten shows are missed 50 times in a row once in 200.
MAX_DRAWS = 50


@dataclass(frozen=True, slots=True)
class Change:
    """The changes of an image and its label map, in this order; None leaves a step out.

    brightness; contrast where `contrast_first`; saturation; hue; contrast where not; flip left to right; upside down;
    turn by degrees about the middle; resizing to height x width; padding below and to the right up to R; the crop R x R
    from (top, left).
    """

    brightness: float | None
    contrast: float | None
    contrast_first: bool
    saturation: float | None
    hue: float | None
    flip: bool
    height: int
    width: int
    top: int
    left: int
    upside_down: bool = False
    degrees: float = 0.0


def draw_change(rng: np.random.Generator, size: tuple[int, int], resolution: int, augmentation: Augmentation) -> Change:
    """The next change of an image of size (H, W) for crops of `resolution` R, from 13 numbers of `rng`, 15 with turns.

    A scale of 1 is where the whole image just fits into the crop, as torchvision's ScaleJitter has it. Sides are
    rounded down, to at least one pixel.
    """
    chances, places = rng.random(6), rng.random(7)
    # Only then, so that recipes without turns draw what they always drew.
    turns = rng.random(2) if augmentation.vflip_chance or augmentation.rotate_degrees else (1.0, 0.5)
    fits = min(resolution / size[0], resolution / size[1])
    scale = augmentation.scale_min + places[4] * (augmentation.scale_max - augmentation.scale_min)
    height, width = (max(1, int(side * fits * scale)) for side in size)
    ranges = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
    spreads = [
        float(spread * (2 * place - 1)) if chance < augmentation.colour_chance else None
        for spread, chance, place in zip(ranges, chances, places, strict=False)
    ]
    brightness, contrast, saturation = (None if spread is None else 1 + spread for spread in spreads[:3])
    return Change(
        brightness=brightness,
        contrast=contrast,
        contrast_first=bool(chances[4] < 0.5),
        saturation=saturation,
        hue=spreads[3],
        flip=bool(chances[5] < augmentation.flip_chance),
        height=height,
        width=width,
        top=int(places[5] * (max(height, resolution) - resolution + 1)),
        left=int(places[6] * (max(width, resolution) - resolution + 1)),
        upside_down=bool(turns[0] < augmentation.vflip_chance),
        degrees=float(augmentation.rotate_degrees * (2 * turns[1] - 1)),
    )


def augment(
    image: NDArray[np.uint8], labels: Labels, resolution: int, augmentation: Augmentation, seed: int
) -> tuple[Tensor, Tensor]:
    """Image [H, W, 3] and class indices [H, W] -> uint8 image [3, R, R] and class indices [R, R], by `seed` alone.

    Redrawn while no labelled pixel is left, at most MAX_DRAWS times; the last draw is returned then, without labels.
    Padding is black and IGNORED.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    hopeless = not (labels != IGNORED).any()
    with _one_thread():
        for _ in range(1 if hopeless else MAX_DRAWS):
            change = draw_change(rng, labels.shape, resolution, augmentation)
            changed = change_labels(labels, change, resolution)
            if (changed != IGNORED).any():
                break
        return change_image(image, change, resolution), changed


@contextmanager
def _one_thread() -> Iterator[None]:
    """Contrast is relative to a mean, a sum of floats whose last bit depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def change_labels(labels: Labels, change: Change, resolution: int) -> Tensor:
    """Class indices [H, W] -> [R, R], the nearest ones, IGNORED where padded."""
    mask = _flipped_and_turned(tv_tensors.Mask(torch.from_numpy(labels)[None]), change, IGNORED)
    return _crop(functional.resize(mask, [change.height, change.width]), change, resolution, IGNORED)[0]


def change_image(image: NDArray[np.uint8], change: Change, resolution: int) -> Tensor:
    """Image [H, W, 3] -> uint8 [3, R, R], bilinear with antialiasing, black where padded."""
    pixels = change_colours(tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)), change)
    pixels = _flipped_and_turned(pixels, change, 0)
    # Resizing is twice as fast with a pixel's channels side by side, the rest with one channel after the other.
    pixels = functional.resize(
        pixels[None].contiguous(memory_format=torch.channels_last), [change.height, change.width]
    )
    return _crop(pixels[0], change, resolution, 0)


def _flipped_and_turned(pixels: Tensor, change: Change, fill: int) -> Tensor:
    """An image or a mask [.., H, W] after flips and the turn; what comes from outside is `fill`."""
    if change.flip:
        pixels = functional.horizontal_flip(pixels)
    if change.upside_down:
        pixels = functional.vertical_flip(pixels)
    if change.degrees:
        pixels = functional.rotate(pixels, change.degrees, functional.InterpolationMode.BILINEAR, fill=fill)
    return pixels


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


_BLOCK = 32768  # pixels; smaller blocks cost calls: 4096 took 2.6 times as long, 65536 no less
_FROM_BYTE = np.float32(1 / 255)
_TO_BYTE = np.float32(255 + 1 - 1e-3)  # as torchvision scales floats to bytes, which are then cut off
_SIXTH, _ONE = np.float32(1 / 6), np.float32(1)

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def shift_hue(pixels: Bytes, shift: float) -> Bytes:
    """RGB [3, H, W] -> the same with hues turned by `shift`, from -0.5 to 0.5 of the colour circle.

    Equal to torchvision's `adjust_hue` on bytes: its float32 operations in its order, but only on the middle channel,
    because the largest and the smallest keep their values and change places. 2.7 ms instead of 17 for 683 x 512 pixels.
    """
    flat = np.ascontiguousarray(pixels).reshape(3, -1)
    shifted = np.empty_like(flat)
    for start in range(0, flat.shape[1], _BLOCK):
        part = slice(start, start + _BLOCK)
        _shift_block(flat[:, part], np.float32(shift), shifted[:, part])
    return shifted.reshape(pixels.shape)


def _shift_block(pixels: Bytes, shift: np.float32, shifted: Bytes) -> None:
    """RGB [3, n] -> `shifted` [3, n]."""
    largest = np.maximum(np.maximum(pixels[0], pixels[1]), pixels[2])
    smallest = np.minimum(np.minimum(pixels[0], pixels[1]), pixels[2])
    value = _floats(largest)
    spread = value - _floats(smallest)
    sector, rest = _turned(pixels, largest, value, spread + (largest == smallest), shift)
    saturation = spread / np.maximum(value, _FROM_BYTE)
    part = saturation * rest
    falling = ((_ONE - part) * value * _TO_BYTE).astype(np.uint8)
    rising = ((part + (_ONE - saturation)) * value * _TO_BYTE).astype(np.uint8)
    odd = _mask(sector % 2 == 1)
    middle = (falling & odd) | (rising & ~odd)
    at = [_mask(sector == number) for number in range(6)]
    at[0] |= _mask(sector == 6)
    # Which two sixths of the circle a channel is largest in, and which two in between.
    for channel, (top, between) in enumerate((((0, 5), (1, 4)), ((1, 2), (0, 3)), ((3, 4), (2, 5)))):
        is_top, is_between = at[top[0]] | at[top[1]], at[between[0]] | at[between[1]]
        shifted[channel] = (largest & is_top) | (middle & is_between) | (smallest & ~(is_top | is_between))


def _turned(pixels: Bytes, largest: Bytes, value: Floats, spread: Floats, shift: np.float32) -> tuple[Bytes, Floats]:
    """The sixth of the colour circle [n], 0 to 6, that a shifted hue is in, and how far into it, from 0 to 1.

    `spread` is 1 where a colour is grey.
    """
    red, green, blue = pixels
    is_red = _mask(red == largest)
    is_green = _mask(green == largest) & ~is_red
    is_blue = ~(is_red | is_green)
    first = (blue & is_red) | (red & is_green) | (green & is_blue)
    second = (green & is_red) | (blue & is_green) | (red & is_blue)
    start = (is_green & 2) | (is_blue & 4)
    hue = (value - _floats(first)) / spread + start - (value - _floats(second)) / spread
    hue = hue * _SIXTH + _ONE
    hue -= hue >= 1
    hue += shift
    hue += hue < 0
    hue -= hue >= 1
    hue *= 6
    sector = hue.astype(np.uint8)
    return sector, hue - sector


def _floats(channel: Bytes) -> Floats:
    return channel.astype(np.float32) * _FROM_BYTE


def _mask(flags: NDArray[np.bool_]) -> Bytes:
    """False and True -> bytes 0 and 255."""
    return np.negative(flags.view(np.uint8))
