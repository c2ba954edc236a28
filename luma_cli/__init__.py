"""luma: which backbone, which pretraining, which resolution? Evidence for segmentation.

The Python face of the command line, each with the same result as a frozen dataclass:

    from luma_cli import build, cost, profile, recommend

    segmenter = build("vit_b", resolution=512)         # torch.nn.Module, random weights
    cost("vit_b", 512).gmacs                           # exact, no GPU, no weights
    profile("vit_b", [512, 1024])                      # list of profiles, kept in the store
    recommend(["200gflops"]).rows[0].candidate
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from luma_cli.version import __version__

if TYPE_CHECKING:
    from luma_cli.advise.recommend import recommend as recommend
    from luma_cli.head.segmenter import build as build
    from luma_cli.measure.cost import cost as cost
    from luma_cli.measure.sweep import profile as profile


__all__ = ["__version__", "build", "cost", "profile", "recommend"]

# Where each public name lives. Imported at first use, so that `import luma_cli` loads neither torch nor timm.
_HOMES = {
    "build": "luma_cli.head.segmenter",
    "cost": "luma_cli.measure.cost",
    "profile": "luma_cli.measure.sweep",
    "recommend": "luma_cli.advise.recommend",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'luma_cli' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
