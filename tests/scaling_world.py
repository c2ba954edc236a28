"""Made-up worlds for the scaling law: runs of known sizes and resolutions whose error follows a known law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from advise_world import finished_run

from luma_cli.scaling.law import PLAIN, Point, split, tokens_of
from luma_cli.scaling.series import ASSUMED
from luma_cli.store.runs import OwnRun

SIZES = {3: (22e6, 86e6, 303e6), 4: (22e6, 86e6, 303e6, 840e6), 5: (22e6, 86e6, 303e6, 840e6, 6.7e9)}
SIDES = {3: (256, 512, 1024), 4: (224, 384, 640, 1024), 5: (224, 320, 448, 640, 1024)}
TRUE_SPLIT = split(ASSUMED.a, ASSUMED.b, PLAIN)


def error(params: float, tokens: float) -> float:
    """The assumed law."""
    return ASSUMED.error(params, tokens)


def runs(
    seed: int = 0,
    noise: float = 0.2,
    sizes: Sequence[float] = SIZES[4],
    sides: Sequence[int] = SIDES[4],
    level: str = "",
    factor: float = 1.0,
) -> list[Point]:
    """A grid of runs on one level, with normal noise in mIoU points."""
    random = np.random.default_rng(seed)
    return [
        Point(
            f"{level}{params:g}-{side}",
            "vit",
            params,
            tokens_of(side, side),
            100 - factor * error(params, tokens_of(side, side)) - noise * float(random.normal()),
            level,
        )
        for params in sizes
        for side in sides
    ]


def own_run(backbone: str, timm_name: str, resolution: int, miou: float, **fields: Any) -> OwnRun:
    """A finished run of the user's own on ADE20K with the shipped recipe."""
    mine: dict[str, Any] = {"run_id": f"run-{backbone}-{resolution}", "backbone": backbone, "resolution": resolution}
    return finished_run(timm_name, miou, **{**mine, **fields})
