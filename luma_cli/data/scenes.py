"""Drawn scenes with the label values of ADE20K and of Cityscapes: a landscape and a street. No torch.

Values: ADE20K's objectInfo150.txt (0 is "other"), Cityscapes' labelIds (github.com/mcordts/cityscapesScripts).
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from luma_cli.data import painters
from luma_cli.data.canvas import Canvas

# The classes that are drawn: name in the label table -> value of a label file.
ADE20K = MappingProxyType(
    {
        "building": 2,
        "sky": 3,
        "tree": 5,
        "road": 7,
        "grass": 10,
        "person": 13,
        "earth": 14,
        "mountain": 17,
        "car": 21,
        "water": 22,
    }
)
CITYSCAPES = MappingProxyType(
    {
        "road": 7,
        "sidewalk": 8,
        "building": 11,
        "pole": 17,
        "traffic sign": 20,
        "vegetation": 21,
        "terrain": 22,
        "sky": 23,
        "person": 24,
        "car": 26,
        "bus": 28,
    }
)
OTHER = 0
EGO_VEHICLE, OUT_OF_ROI, STATIC, PARKING = 1, 3, 4, 9


def landscape(height: int, width: int, rng: np.random.Generator) -> Canvas:
    """Sky, mountains or buildings, one kind of ground, at times a road, and things on it, with ADE20K's values."""
    canvas = Canvas(height, width, rng)
    horizon = canvas.bottom * rng.uniform(0.38, 0.52)
    painters.sky(canvas, ADE20K["sky"])
    if rng.random() < 0.5:
        painters.mountain(canvas, ADE20K["mountain"], horizon)
    kind = ("grass", "water", "earth")[int(rng.integers(3))]
    painters.ground(canvas, ADE20K[kind], horizon, kind)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 3))):
            painters.building(canvas, ADE20K["building"], horizon + 0.02, rng.uniform(-0.1, canvas.right - 0.3))
    if rng.random() < 0.55:
        middle = canvas.right * rng.uniform(0.3, 0.7)
        mask = painters.strip(canvas, horizon, (middle - 0.45, middle + 0.45), (middle - 0.12, middle + 0.12))
        painters.road(canvas, ADE20K["road"], mask)
    _things(canvas, horizon)
    return canvas


def _things(canvas: Canvas, horizon: float) -> None:
    """Two to four things on the ground, the further ones first."""
    feet = sorted(canvas.rng.uniform(horizon + 0.08, canvas.bottom - 0.02, int(canvas.rng.integers(2, 5))))
    for foot in feet:
        name = ("tree", "car", "person")[int(canvas.rng.integers(3))]
        paint = {"tree": painters.tree, "car": painters.car, "person": painters.person}[name]
        paint(canvas, ADE20K[name], float(foot), canvas.rng.uniform(0.1, canvas.right - 0.1))
    if canvas.rng.random() < 0.4:
        painters.unknown(canvas, OTHER, canvas.bottom - 0.04, canvas.rng.uniform(0, canvas.right))


def street(height: int, width: int, rng: np.random.Generator) -> Canvas:
    """A road between pavements and buildings or hedges, with traffic, seen over a bonnet, with Cityscapes' labelIds."""
    canvas = Canvas(height, width, rng)
    horizon = canvas.bottom * rng.uniform(0.4, 0.5)
    middle = canvas.right * rng.uniform(0.4, 0.6)
    painters.sky(canvas, CITYSCAPES["sky"])
    painters.ground(canvas, CITYSCAPES["terrain"], horizon, "grass")
    _sides(canvas, horizon)
    for out, paint, name in ((0.45, painters.pavement, "sidewalk"), (0.0, painters.road, "road")):
        near, far = (middle - 0.7 - out, middle + 0.7 + out), (middle - 0.3 - out / 2, middle + 0.3 + out / 2)
        paint(canvas, CITYSCAPES[name], painters.strip(canvas, horizon, near, far))
    _traffic(canvas, horizon, middle)
    _not_counted(canvas)
    return canvas


def _sides(canvas: Canvas, horizon: float) -> None:
    for _ in range(int(canvas.rng.integers(2, 4))):
        place = canvas.rng.uniform(0, canvas.right)
        if canvas.rng.random() < 0.5:
            painters.building(canvas, CITYSCAPES["building"], horizon + 0.03, place - 0.2)
        else:
            painters.tree(canvas, CITYSCAPES["vegetation"], horizon + 0.06, place)


def _traffic(canvas: Canvas, horizon: float, middle: float) -> None:
    """Vehicles on the road, people and a sign beside it, the further ones first."""
    rng = canvas.rng
    if rng.random() < 0.5:
        painters.bus(canvas, CITYSCAPES["bus"], horizon + rng.uniform(0.12, 0.2), middle + rng.uniform(-0.4, 0.4))
    if rng.random() < 0.7:
        side = middle + rng.choice((-1, 1)) * rng.uniform(0.7, 0.9)
        painters.sign(canvas, CITYSCAPES["traffic sign"], CITYSCAPES["pole"], horizon + 0.25, side)
    for _ in range(int(rng.integers(1, 3))):
        painters.car(canvas, CITYSCAPES["car"], canvas.bottom - rng.uniform(0.12, 0.3), middle + rng.uniform(-0.6, 0.6))
    for _ in range(int(rng.integers(1, 3))):
        side = middle + rng.choice((-1, 1)) * rng.uniform(0.5, 0.95)
        painters.person(canvas, CITYSCAPES["person"], canvas.bottom - rng.uniform(0.1, 0.25), side)


def _not_counted(canvas: Canvas) -> None:
    """The own bonnet, the rim of the picture and a parked crate: labelled, but of no class."""
    painters.unknown(canvas, STATIC, canvas.bottom - 0.15, canvas.rng.uniform(0, canvas.right))
    bonnet = canvas.ellipse(canvas.bottom + 0.1, canvas.right / 2, 0.2, 0.6 * canvas.right)
    canvas.paint(bonnet, (0.2, 0.2, 0.22), EGO_VEHICLE)
    canvas.values[:, :2] = canvas.values[:, -2:] = OUT_OF_ROI
