"""Drawn scenes with the label values of ADE20K and of Cityscapes: a landscape and a street. No torch.

Painters put one thing each on a canvas, with its own texture and shape. Its colours vary from picture to picture and
overlap with those of others, so that texture and shape count. H W pixels; lengths are in units of the shorter side.
Values: ADE20K's objectInfo150.txt (0 is "other"), Cityscapes' labelIds (github.com/mcordts/cityscapesScripts).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

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

    def paint(self, mask: Mask, colour: Colour | Pixels, value: int) -> None:
        """Cover `mask` [H, W] or [H, 1] with one colour or with pixels [H, W, 3], and label it `value`."""
        mask = np.broadcast_to(mask, self.values.shape)
        self.pixels[mask] = np.broadcast_to(np.asarray(colour, dtype=np.float32), self.pixels.shape)[mask]
        self.values[mask] = value

    def noise(self, cell: float) -> Pixels:
        """Smooth random numbers [H, W] from 0 to 1 that change over `cell`."""
        rows, columns = int(self.bottom / cell) + 2, int(self.right / cell) + 2
        coarse = Image.fromarray(self.rng.random((rows, columns), dtype=np.float32))
        box = (0.5, 0.5, 0.5 + self.right / cell, 0.5 + self.bottom / cell)
        fine = coarse.resize(self.values.shape[::-1], Image.Resampling.BILINEAR, box=box)
        return np.asarray(fine, dtype=np.float32)

    def colour(self, least: Colour, most: Colour) -> Colour:
        """A colour between two."""
        red, green, blue = self.rng.uniform(least, most).tolist()
        return red, green, blue

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


WHEEL: Colour = (0.07, 0.07, 0.08)
GLASS: Colour = (0.55, 0.68, 0.78)


def sky(canvas: Canvas, value: int) -> None:
    """Everything, blue to white from top to bottom, with clouds."""
    blue = canvas.rng.uniform((0.35, 0.55, 0.8), (0.55, 0.72, 0.98)).astype(np.float32)
    haze = np.clip(canvas.y / canvas.bottom, 0, 1)[:, :, None] * (0.95 - blue)
    clouds = np.clip(canvas.noise(0.35) - 0.55, 0, 1)[:, :, None]
    canvas.paint(canvas.y >= 0, blue + haze + clouds, value)


def mountain(canvas: Canvas, value: int, foot: float) -> None:
    """Peaks above `foot`, brown or violet with slanted ridges, white near the top."""
    ridge = np.full_like(canvas.x, foot)
    for _ in range(int(canvas.rng.integers(1, 4))):
        top, peak = foot - canvas.rng.uniform(0.2, 0.34), canvas.rng.uniform(0, canvas.right)
        ridge = np.minimum(ridge, top + np.abs(canvas.x - peak) * canvas.rng.uniform(0.4, 0.8))
    rock = canvas.textured(canvas.colour((0.38, 0.3, 0.3), (0.5, 0.4, 0.48)), 0.06, 0.2)
    rock -= (0.07 * (np.sin((canvas.y * 1.5 + canvas.x) * 60) > 0))[:, :, None]
    canvas.paint(
        (canvas.y > ridge) & (canvas.y < foot), np.where((canvas.y < ridge + 0.05)[:, :, None], 0.93, rock), value
    )


def building(canvas: Canvas, value: int, foot: float, left: float) -> None:
    """A block with rows of windows that stands at `foot`."""
    height, width = canvas.rng.uniform(0.34, 0.5), canvas.rng.uniform(0.4, 0.7)
    wall = canvas.textured(canvas.colour((0.5, 0.35, 0.25), (0.85, 0.7, 0.6)), 0.2, 0.08)
    body = canvas.box(foot - height, left, height, width)
    period = canvas.rng.uniform(0.08, 0.1)
    panes = ((canvas.y - foot) % period > period * 0.45) & ((canvas.x - left) % period > period * 0.45)
    canvas.paint(body, np.where(panes[:, :, None], np.float32(canvas.rng.uniform(0.1, 0.3)), wall), value)


def ground(canvas: Canvas, value: int, top: float, kind: str) -> None:
    """Everything below `top`: `grass` with fine tufts, `water` with waves, `earth` with clods."""
    fine = canvas.noise(0.018) - 0.5
    if kind == "grass":
        texture = canvas.textured((0.42, 0.62, 0.22), 0.15, 0.12) + (fine * 0.3)[:, :, None]
    elif kind == "water":
        waves = 0.1 * np.sin(canvas.y * 150 + 6 * canvas.noise(0.12))
        texture = canvas.textured((0.16, 0.38, 0.58), 0.2, 0.1) + waves[:, :, None]
    else:
        texture = canvas.textured((0.62, 0.46, 0.28), 0.045, 0.3) + (fine * 0.1)[:, :, None]
    canvas.paint(canvas.y >= top, texture, value)


def strip(canvas: Canvas, top: float, near: tuple[float, float], far: tuple[float, float]) -> Mask:
    """What lies between two straight lines that run from `far` at the height `top` to `near` at the bottom edge."""
    share = np.clip((canvas.y - top) / (canvas.bottom - top), 0, 1)
    left, right = (far[side] + share * (near[side] - far[side]) for side in (0, 1))
    return np.asarray((canvas.y >= top) & (canvas.x >= left) & (canvas.x < right), dtype=np.bool_)


def road(canvas: Canvas, value: int, mask: Mask) -> None:
    """Asphalt with light dashes."""
    asphalt = canvas.textured((0.36, 0.36, 0.38), 0.08, 0.08)
    middle = canvas.x[0][mask.any(axis=0)].mean() if mask.any() else 0.0
    dashes = (np.abs(canvas.x - middle) < 0.02) & (canvas.y % 0.16 < 0.09)
    canvas.paint(mask, np.where(dashes[:, :, None], np.float32(0.9), asphalt), value)


def pavement(canvas: Canvas, value: int, mask: Mask) -> None:
    """Pale slabs with dark joints."""
    slabs = canvas.textured((0.66, 0.6, 0.6), 0.1, 0.06)
    joints = (canvas.y % 0.055 < 0.012) | ((canvas.x + 0.5 * canvas.y) % 0.09 < 0.014)
    canvas.paint(mask, np.where(joints[:, :, None], np.float32(0.35), slabs), value)


def tree(canvas: Canvas, value: int, foot: float, x: float) -> None:
    """A trunk and a ragged dark crown with round lights."""
    size = canvas.rng.uniform(0.18, 0.26)
    crown_y = foot - 1.7 * size
    squares = ((canvas.y - crown_y) / size) ** 2 + ((canvas.x - x) / (0.85 * size)) ** 2
    crown = squares + 0.7 * (canvas.noise(0.06) - 0.5) < 1
    canvas.paint(canvas.box(crown_y, x - 0.2 * size, foot - crown_y, 0.4 * size), (0.33, 0.21, 0.12), value)
    base = canvas.colour((0.07, 0.25, 0.06), (0.22, 0.4, 0.14))
    canvas.paint(crown, canvas.textured(base, 0.035, 0.35), value)


def _wheels(canvas: Canvas, value: int, base: float, x: float, apart: float, radius: float) -> None:
    for side in (-apart, apart):
        canvas.paint(canvas.ellipse(base, x + side, radius, radius), WHEEL, value)


def car(canvas: Canvas, value: int, foot: float, x: float) -> None:
    """A red, orange or yellow body, a cabin with glass, two wheels."""
    length = canvas.rng.uniform(0.52, 0.7)
    height = 0.24 * length
    base = foot - 0.12 * length
    cabin = canvas.ellipse(base - height, x, 0.24 * length, 0.3 * length)
    glass = canvas.ellipse(base - height, x, 0.17 * length, 0.23 * length)
    paint = canvas.colour((0.75, 0.05, 0.02), (1.0, 0.6, 0.15))
    canvas.paint(cabin & (canvas.y < base), canvas.textured(paint, 0.3, 0.05), value)
    canvas.paint(glass & (canvas.y < base - height), GLASS, value)
    canvas.paint(canvas.box(base - height, x - length / 2, height, length), canvas.textured(paint, 0.3, 0.05), value)
    _wheels(canvas, value, base, x, 0.28 * length, 0.12 * length)


def bus(canvas: Canvas, value: int, foot: float, x: float) -> None:
    """A tall box with one row of panes, a bright stripe and wheels."""
    length = canvas.rng.uniform(0.65, 0.85)
    height, base, left = 0.5 * length, foot - 0.06 * length, x - length / 2
    paint = canvas.colour((0.05, 0.35, 0.6), (0.15, 0.5, 0.9))
    canvas.paint(canvas.box(base - height, left, height, length), canvas.textured(paint, 0.3, 0.05), value)
    panes = canvas.box(base - 0.85 * height, left + 0.03, 0.35 * height, length - 0.06)
    canvas.paint(panes & ((canvas.x - left) % 0.14 > 0.03), (0.12, 0.16, 0.22), value)
    canvas.paint(canvas.box(base - 0.35 * height, left, 0.1 * height, length), (0.7, 0.1, 0.1), value)
    _wheels(canvas, value, base, x, 0.32 * length, 0.07 * length)


def person(canvas: Canvas, value: int, foot: float, x: float) -> None:
    """Head, a striped shirt and two dark legs."""
    height = canvas.rng.uniform(0.5, 0.68)
    top, half = foot - height, 0.18 * height
    skin = canvas.colour((0.55, 0.38, 0.28), (0.95, 0.75, 0.62))
    legs = canvas.box(top + 0.58 * height, x - 0.8 * half, 0.42 * height, 1.6 * half)
    canvas.paint(legs & (np.abs(canvas.x - x) > 0.12 * half), (0.13, 0.13, 0.3), value)
    shirt = canvas.textured(canvas.colour((0.7, 0.15, 0.4), (0.95, 0.4, 0.8)), 0.2, 0.05)
    shirt = np.where((canvas.y % 0.045 < 0.02)[:, :, None], np.float32(0.92), shirt)
    canvas.paint(canvas.box(top + 0.18 * height, x - half, 0.42 * height, 2 * half), shirt, value)
    canvas.paint(canvas.ellipse(top + 0.1 * height, x, 0.11 * height, 0.09 * height), skin, value)


def sign(canvas: Canvas, value: int, pole: int, foot: float, x: float) -> None:
    """A board in red and white rings on a pole, which has a label of its own."""
    radius, height = canvas.rng.uniform(0.1, 0.13), canvas.rng.uniform(0.5, 0.6)
    canvas.paint(canvas.box(foot - height, x - 0.03, height, 0.06), canvas.textured((0.5, 0.52, 0.55), 0.05, 0.1), pole)
    for share, colour in ((1.0, (0.8, 0.08, 0.08)), (0.72, (0.95, 0.95, 0.95)), (0.35, (0.1, 0.1, 0.6))):
        canvas.paint(canvas.ellipse(foot - height, x, share * radius, share * radius), colour, value)


def unknown(canvas: Canvas, value: int, foot: float, x: float) -> None:
    """A crate that no class of the table is: its pixels do not count."""
    size = canvas.rng.uniform(0.12, 0.22)
    crate = canvas.textured((0.5, 0.2, 0.6), 0.03, 0.4)
    canvas.paint(canvas.box(foot - size, x - size / 2, size, size), crate, value)


def stranger(canvas: Canvas, value: int, foot: float, x: float) -> None:
    """An object that no scene shows otherwise: a ball, a crate on its corner or a stack, in checks or dots."""
    size = canvas.rng.uniform(0.06, 0.16)
    y = foot - size
    kind = int(canvas.rng.integers(3))
    if kind == 0:
        mask = canvas.ellipse(y, x, size, size)
    elif kind == 1:
        mask = np.asarray(np.abs(canvas.y - y) + np.abs(canvas.x - x) < size, dtype=np.bool_)
    else:
        mask = canvas.box(y - size, x - size / 2, 2 * size, size) | canvas.box(
            foot - size / 2, x - size, size / 2, 2 * size
        )
    cell = size / canvas.rng.uniform(2, 4)
    checks = ((canvas.y / cell).astype(np.int64) + (canvas.x / cell).astype(np.int64)) % 2 == 0
    light, dark = canvas.colour((0.7, 0.9, 0.1), (0.9, 1.0, 0.4)), canvas.colour((0.3, 0.0, 0.5), (0.6, 0.1, 0.8))
    canvas.paint(mask, np.where(checks[:, :, None], np.asarray(light, np.float32), np.asarray(dark, np.float32)), value)


# The classes that are drawn: name in the label table -> value of a label file.
ADE20K: Mapping[str, int] = MappingProxyType(
    dict(building=2, sky=3, tree=5, road=7, grass=10, person=13, earth=14, mountain=17, car=21, water=22)
)
CITYSCAPES: Mapping[str, int] = MappingProxyType(
    {"road": 7, "sidewalk": 8, "building": 11, "pole": 17, "traffic sign": 20, "vegetation": 21}
    | {"terrain": 22, "sky": 23, "person": 24, "car": 26, "bus": 28}
)
OTHER = 0
EGO_VEHICLE, OUT_OF_ROI, STATIC = 1, 3, 4


def landscape(height: int, width: int, rng: np.random.Generator) -> Canvas:
    """Sky, mountains or buildings, one kind of ground, at times a road, and things on it, with ADE20K's values."""
    canvas = Canvas(height, width, rng)
    horizon = canvas.bottom * rng.uniform(0.38, 0.52)
    sky(canvas, ADE20K["sky"])
    if rng.random() < 0.5:
        mountain(canvas, ADE20K["mountain"], horizon)
    kind = ("grass", "water", "earth")[int(rng.integers(3))]
    ground(canvas, ADE20K[kind], horizon, kind)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 3))):
            building(canvas, ADE20K["building"], horizon + 0.02, rng.uniform(-0.1, canvas.right - 0.3))
    if rng.random() < 0.55:
        middle = canvas.right * rng.uniform(0.3, 0.7)
        mask = strip(canvas, horizon, (middle - 0.45, middle + 0.45), (middle - 0.12, middle + 0.12))
        road(canvas, ADE20K["road"], mask)
    for foot in sorted(rng.uniform(horizon + 0.08, canvas.bottom - 0.02, int(rng.integers(2, 5)))):  # the further first
        name, paint = (("tree", tree), ("car", car), ("person", person))[int(rng.integers(3))]
        paint(canvas, ADE20K[name], float(foot), rng.uniform(0.1, canvas.right - 0.1))
    if rng.random() < 0.4:
        unknown(canvas, OTHER, canvas.bottom - 0.04, rng.uniform(0, canvas.right))
    return canvas


def street(height: int, width: int, rng: np.random.Generator) -> Canvas:
    """A road between pavements and buildings or hedges, with traffic, seen over a bonnet, with Cityscapes' labelIds."""
    canvas = Canvas(height, width, rng)
    horizon = canvas.bottom * rng.uniform(0.4, 0.5)
    middle = canvas.right * rng.uniform(0.4, 0.6)
    sky(canvas, CITYSCAPES["sky"])
    ground(canvas, CITYSCAPES["terrain"], horizon, "grass")
    for _ in range(int(rng.integers(2, 4))):
        place = rng.uniform(0, canvas.right)
        if rng.random() < 0.5:
            building(canvas, CITYSCAPES["building"], horizon + 0.03, place - 0.2)
        else:
            tree(canvas, CITYSCAPES["vegetation"], horizon + 0.06, place)
    for out, paint, name in ((0.45, pavement, "sidewalk"), (0.0, road, "road")):
        near, far = (middle - 0.7 - out, middle + 0.7 + out), (middle - 0.3 - out / 2, middle + 0.3 + out / 2)
        paint(canvas, CITYSCAPES[name], strip(canvas, horizon, near, far))
    _traffic(canvas, horizon, middle)
    # Labelled, but of no class: a parked crate, the own bonnet, the rim of the picture.
    unknown(canvas, STATIC, canvas.bottom - 0.15, rng.uniform(0, canvas.right))
    bonnet = canvas.ellipse(canvas.bottom + 0.1, canvas.right / 2, 0.2, 0.6 * canvas.right)
    canvas.paint(bonnet, (0.2, 0.2, 0.22), EGO_VEHICLE)
    canvas.values[:, :2] = canvas.values[:, -2:] = OUT_OF_ROI
    return canvas


def _traffic(canvas: Canvas, horizon: float, middle: float) -> None:
    """Vehicles on the road, people and a sign beside it, the further ones first."""
    rng = canvas.rng
    if rng.random() < 0.5:
        bus(canvas, CITYSCAPES["bus"], horizon + rng.uniform(0.12, 0.2), middle + rng.uniform(-0.4, 0.4))
    if rng.random() < 0.7:
        side = middle + rng.choice((-1, 1)) * rng.uniform(0.7, 0.9)
        sign(canvas, CITYSCAPES["traffic sign"], CITYSCAPES["pole"], horizon + 0.25, side)
    for _ in range(int(rng.integers(1, 3))):
        car(canvas, CITYSCAPES["car"], canvas.bottom - rng.uniform(0.12, 0.3), middle + rng.uniform(-0.6, 0.6))
    for _ in range(int(rng.integers(1, 3))):
        side = middle + rng.choice((-1, 1)) * rng.uniform(0.5, 0.95)
        person(canvas, CITYSCAPES["person"], canvas.bottom - rng.uniform(0.1, 0.25), side)
