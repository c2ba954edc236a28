"""A picture that is painted layer by layer together with its label map, for datasets that are drawn. No torch.

H W pixels. Lengths are in units of the shorter side, so a scene looks the same at any number of pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luma_cli.catalogue.datasets import Labels

Mask = NDArray[np.bool_]
Colour = tuple[float, float, float]
Pixels = NDArray[np.float32]


class Canvas:
    """Pixels [H, W, 3] from 0 to 1, values of a label file [H, W], and the generator that paints on them.

    y [H, 1] runs down from 0 to `bottom`, x [1, W] to the right from 0 to `right`.
    """

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        side = min(height, width)
        self.rng = rng
        self.pixels: Pixels = np.zeros((height, width, 3), dtype=np.float32)
        self.values: Labels = np.zeros((height, width), dtype=np.uint8)
        self.y: Pixels = _centres(height, side)[:, None]
        self.x: Pixels = _centres(width, side)[None, :]
        self.bottom = height / side
        self.right = width / side

    def paint(self, mask: Mask, colour: Colour | Pixels, value: int | None = None) -> None:
        """Cover `mask` [H, W] with one colour or with pixels [H, W, 3], and label it `value`; None keeps its label."""
        texture = np.broadcast_to(np.asarray(colour, dtype=np.float32), self.pixels.shape)
        self.pixels[mask] = texture[mask]
        if value is not None:
            self.values[mask] = value

    def everywhere(self) -> Mask:
        """A mask of all pixels."""
        return np.ones(self.values.shape, dtype=np.bool_)

    def noise(self, cell: float) -> Pixels:
        """Smooth random numbers [H, W] from 0 to 1 that change over `cell`."""
        rows, columns = int(self.bottom / cell) + 2, int(self.right / cell) + 2
        coarse = Image.fromarray(self.rng.random((rows, columns), dtype=np.float32))
        box = (0.5, 0.5, 0.5 + self.right / cell, 0.5 + self.bottom / cell)
        fine = coarse.resize(self.values.shape[::-1], Image.Resampling.BILINEAR, box=box)
        return np.asarray(fine, dtype=np.float32)

    def textured(self, base: Colour, cell: float, strength: float) -> Pixels:
        """A colour [H, W, 3] near `base`, lighter and darker by up to half of `strength` over `cell`."""
        tint = np.asarray(base, dtype=np.float32) + self.rng.normal(0, 0.04, 3).astype(np.float32)
        shade = (self.noise(cell) - 0.5) * strength
        return np.asarray(tint + shade[:, :, None], dtype=np.float32)

    def box(self, top: float, left: float, height: float, width: float) -> Mask:
        """A mask of a rectangle."""
        rows = (self.y >= top) & (self.y < top + height)
        columns = (self.x >= left) & (self.x < left + width)
        return np.asarray(rows & columns, dtype=np.bool_)

    def ellipse(self, y: float, x: float, radius_y: float, radius_x: float) -> Mask:
        """A mask of an ellipse around (y, x)."""
        squares = ((self.y - y) / radius_y) ** 2 + ((self.x - x) / radius_x) ** 2
        return np.asarray(squares < 1, dtype=np.bool_)

    def finished(self, sensor_noise: float = 0.02) -> NDArray[np.uint8]:
        """The picture, RGB [H, W, 3], with the noise of a sensor."""
        noisy = self.pixels + self.rng.normal(0, sensor_noise, self.pixels.shape).astype(np.float32)
        return np.asarray(np.clip(noisy * 255 + 0.5, 0, 255), dtype=np.uint8)


def _centres(num_pixels: int, side: int) -> Pixels:
    return np.asarray((np.arange(num_pixels) + 0.5) / side, dtype=np.float32)
