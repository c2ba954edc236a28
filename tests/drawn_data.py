"""A small drawn dataset, made once per test process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from luma_cli.data.drawn import write_sample


@cache
def drawn(card: str = "ade20k", num_images: int = 15) -> Path:
    """Folder of the dataset; four fifths to train on. Tests must not change it."""
    folder = Path(tempfile.mkdtemp(prefix="luma-drawn-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_sample(card, folder, num_images)
    return folder
