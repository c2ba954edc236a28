"""What drawn scenes are made of: painters put one thing each on a canvas, with its own texture and shape. No torch.

Colours of a thing vary from picture to picture, and those of different things overlap, so that texture and shape count.
"""

from __future__ import annotations

import numpy as np

from luma_cli.data.canvas import Canvas, Colour, Mask

WHEEL: Colour = (0.07, 0.07, 0.08)
GLASS: Colour = (0.55, 0.68, 0.78)


def sky(canvas: Canvas, value: int) -> None:
    """Everything, blue to white from top to bottom, with clouds."""
    blue = canvas.rng.uniform((0.35, 0.55, 0.8), (0.55, 0.72, 0.98)).astype(np.float32)
    haze = np.clip(canvas.y / canvas.bottom, 0, 1)[:, :, None] * (0.95 - blue)
    clouds = np.clip(canvas.noise(0.35) - 0.55, 0, 1)[:, :, None]
    canvas.paint(canvas.everywhere(), np.asarray(blue + haze + clouds, dtype=np.float32), value)


def mountain(canvas: Canvas, value: int, foot: float) -> None:
    """Peaks above `foot`, brown or violet with slanted ridges, white near the top."""
    ridge = np.full_like(canvas.x, foot)
    for _ in range(int(canvas.rng.integers(1, 4))):
        top, peak = foot - canvas.rng.uniform(0.2, 0.34), canvas.rng.uniform(0, canvas.right)
        ridge = np.minimum(ridge, top + np.abs(canvas.x - peak) * canvas.rng.uniform(0.4, 0.8))
    rock = canvas.textured(tuple(canvas.rng.uniform((0.38, 0.3, 0.3), (0.5, 0.4, 0.48))), 0.06, 0.2)
    rock -= (0.07 * (np.sin((canvas.y * 1.5 + canvas.x) * 60) > 0))[:, :, None]
    canvas.paint(
        (canvas.y > ridge) & (canvas.y < foot), np.where((canvas.y < ridge + 0.05)[:, :, None], 0.93, rock), value
    )


def building(canvas: Canvas, value: int, foot: float, left: float) -> None:
    """A block with rows of windows that stands at `foot`."""
    height, width = canvas.rng.uniform(0.34, 0.5), canvas.rng.uniform(0.4, 0.7)
    wall = canvas.textured(tuple(canvas.rng.uniform((0.5, 0.35, 0.25), (0.85, 0.7, 0.6))), 0.2, 0.08)
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
    canvas.paint(canvas.everywhere() & (canvas.y >= top), np.asarray(texture, dtype=np.float32), value)


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
    base = canvas.rng.uniform((0.07, 0.25, 0.06), (0.22, 0.4, 0.14))
    canvas.paint(crown, canvas.textured(tuple(base), 0.035, 0.35), value)


def car(canvas: Canvas, value: int, foot: float, x: float) -> None:
    """A red, orange or yellow body, a cabin with glass, two wheels."""
    length = canvas.rng.uniform(0.52, 0.7)
    height = 0.24 * length
    base = foot - 0.12 * length
    cabin = canvas.ellipse(base - height, x, 0.24 * length, 0.3 * length)
    glass = canvas.ellipse(base - height, x, 0.17 * length, 0.23 * length)
    paint = tuple(canvas.rng.uniform((0.75, 0.05, 0.02), (1.0, 0.6, 0.15)))
    canvas.paint(cabin & (canvas.y < base), canvas.textured(paint, 0.3, 0.05), value)
    canvas.paint(glass & (canvas.y < base - height), GLASS, value)
    canvas.paint(canvas.box(base - height, x - length / 2, height, length), canvas.textured(paint, 0.3, 0.05), value)
    for side in (-0.28, 0.28):
        canvas.paint(canvas.ellipse(base, x + side * length, 0.12 * length, 0.12 * length), WHEEL, value)


def bus(canvas: Canvas, value: int, foot: float, x: float) -> None:
    """A tall box with one row of panes, a bright stripe and wheels."""
    length = canvas.rng.uniform(0.65, 0.85)
    height, base, left = 0.5 * length, foot - 0.06 * length, x - length / 2
    paint = tuple(canvas.rng.uniform((0.05, 0.35, 0.6), (0.15, 0.5, 0.9)))
    canvas.paint(canvas.box(base - height, left, height, length), canvas.textured(paint, 0.3, 0.05), value)
    panes = canvas.box(base - 0.85 * height, left + 0.03, 0.35 * height, length - 0.06)
    canvas.paint(panes & ((canvas.x - left) % 0.14 > 0.03), (0.12, 0.16, 0.22), value)
    canvas.paint(canvas.box(base - 0.35 * height, left, 0.1 * height, length), (0.7, 0.1, 0.1), value)
    for side in (-0.32, 0.32):
        canvas.paint(canvas.ellipse(base, x + side * length, 0.07 * length, 0.07 * length), WHEEL, value)


def person(canvas: Canvas, value: int, foot: float, x: float) -> None:
    """Head, a striped shirt and two dark legs."""
    height = canvas.rng.uniform(0.5, 0.68)
    top, half = foot - height, 0.18 * height
    skin = tuple(canvas.rng.uniform((0.55, 0.38, 0.28), (0.95, 0.75, 0.62)))
    legs = canvas.box(top + 0.58 * height, x - 0.8 * half, 0.42 * height, 1.6 * half)
    canvas.paint(legs & (np.abs(canvas.x - x) > 0.12 * half), (0.13, 0.13, 0.3), value)
    shirt = canvas.textured(tuple(canvas.rng.uniform((0.7, 0.15, 0.4), (0.95, 0.4, 0.8))), 0.2, 0.05)
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
