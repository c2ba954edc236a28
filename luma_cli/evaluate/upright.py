"""An image file as it is meant to be seen: RGB of 8 bits, turned as its EXIF tag says. No torch.

H W pixels as seen.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luma_cli.data.decode import decode_image, is_rotated
from luma_cli.errors import BadSample

Pixels = NDArray[np.uint8]
_ORIENTATION = 0x0112


def read_upright(path: Path) -> Pixels:
    """RGB [H, W, 3]. Raises BadSample, naming the file, when it cannot be read as that; see `decode_image`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadSample(f"{path}: cannot be read: {error.strerror}") from error
    pixels = decode_image(data, str(path))
    if not is_rotated(data):
        return pixels
    with Image.open(io.BytesIO(data)) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
    return np.ascontiguousarray(turned(pixels, orientation))


def turned(stored: Pixels, orientation: int) -> Pixels:
    """Stored pixels [h, w, 3] as EXIF 2.3, tag Orientation, says that they are seen; an unknown number says nothing."""
    turn: Callable[[Pixels], Pixels] | None = {
        2: lambda pixels: pixels[:, ::-1],
        3: lambda pixels: pixels[::-1, ::-1],
        4: lambda pixels: pixels[::-1],
        5: lambda pixels: pixels.transpose(1, 0, 2),
        6: lambda pixels: np.rot90(pixels, -1),
        7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: lambda pixels: np.rot90(pixels, 1),
    }.get(orientation)
    return stored if turn is None else turn(stored)
