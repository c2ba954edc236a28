"""What `restore` reads of a run, without training one: a weights file with its configuration beside it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.segmenter import build
from luma_cli.train.config import RunConfig


def weights_file(folder: Path, data: str, num_classes: int, resolution: int = 32) -> Path:
    """Random weights of `test_vit` with a small head."""
    head = HeadConfig(num_queries=5, num_classes=num_classes)
    folder.mkdir(parents=True, exist_ok=True)
    config = RunConfig("test_vit", resolution, head, data, Recipe(), weights="random")
    (folder / "config.json").write_text(json.dumps(config.to_json()), encoding="utf-8")
    file = folder / "model.safetensors"
    save_file(build("test_vit", resolution, head=head).state_dict(), file)
    return file
