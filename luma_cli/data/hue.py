"""Shifts the hue of an image exactly as torchvision's `adjust_hue` does on bytes, in a fraction of its time. No torch.

Of a colour's three channels the largest and the smallest keep their values and only change places; the one between is
computed with torchvision's float32 operations in their order. Selections are masks of bytes, and pixels go through in
blocks that stay in the cache: 2.7 ms for 683 x 512 pixels, where torchvision's takes 17 ms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 32768  # pixels; smaller blocks cost calls: 4096 took 2.6 times as long, 65536 no less
_FROM_BYTE = np.float32(1 / 255)
_TO_BYTE = np.float32(255 + 1 - 1e-3)  # as torchvision scales floats to bytes, which are then cut off
_SIXTH, _ONE = np.float32(1 / 6), np.float32(1)

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def shift_hue(pixels: Bytes, shift: float) -> Bytes:
    """RGB [3, H, W] -> the same with hues turned by `shift`, from -0.5 to 0.5 of the colour circle."""
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
    """0 to 255 -> 0 to 1."""
    return channel.astype(np.float32) * _FROM_BYTE


def _mask(flags: NDArray[np.bool_]) -> Bytes:
    """False and True -> bytes 0 and 255."""
    return np.negative(flags.view(np.uint8))
