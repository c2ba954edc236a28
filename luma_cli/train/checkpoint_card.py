"""The README.md of a checkpoint: what it is, for people. No torch."""

from __future__ import annotations

from luma_cli.train.run_config import RunConfig
from luma_cli.version import __version__


def card(run_id: str, config: RunConfig, step: int, miou_percent: float | None, best: bool) -> str:
    """Markdown."""
    score = "not validated yet" if miou_percent is None else f"{miou_percent:.2f} mIoU"
    title = f"{config.backbone} with head {config.head.name} on {config.data}"
    return f"""# {title}

Step {step:,} of run `{run_id}`, written by luma {__version__}. {"The best so far" if best else "Best so far"}: {score}.

- backbone `{config.backbone}`, weights at the start: `{config.weights}`
- head `{config.head.name}`, {config.head.num_queries} queries, {config.head.num_classes} classes
- crop and evaluation window {config.resolution} x {config.resolution} pixels
- recipe `{config.recipe.name}`{" with changes: " + ", ".join(config.recipe_changed) if config.recipe_changed else ""}

`model.safetensors` holds the weights, `config.json` everything that decided them, `manifest.json` the SHA-256 of every
file. From Python: `luma_cli.train.restore.restore("path/to/this/folder")`.
"""
