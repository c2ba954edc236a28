"""Counted facts kept between runs in the platform's cache folder, one small JSON file per backbone and resolution.

A file that cannot be read counts as absent, and a folder that cannot be written only costs the next run its time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import platformdirs

from luma_cli import files
from luma_cli.catalogue.costs import BackboneFacts
from luma_cli.measure.count_request import CountRequest

COUNT_VERSION = 3  # raise when formulas, the allow-list or the facts change: older files are then left alone
_MOVING_SOURCES = frozenset({"hf-hub", "local-dir"})  # what stands behind these names may change under them


def cache_folder() -> Path:
    """Where counted facts are kept."""
    return Path(platformdirs.user_cache_dir("luma", appauthor=False)) / "costs"


def read(folder: Path, request: CountRequest, imports_hash: str) -> BackboneFacts | None:
    """The facts kept for `request`, if any."""
    if request.spec.source in _MOVING_SOURCES:
        return None
    try:
        return BackboneFacts(**json.loads(_path(folder, request, imports_hash).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write(folder: Path, request: CountRequest, imports_hash: str, facts: BackboneFacts) -> None:
    """Keep `facts`; readers see the whole file or none."""
    if request.spec.source in _MOVING_SOURCES:
        return
    with contextlib.suppress(OSError):
        files.write_text(_path(folder, request, imports_hash), json.dumps(asdict(facts)))


def _path(folder: Path, request: CountRequest, imports_hash: str) -> Path:
    key = {
        "architecture": request.spec.architecture,
        "rule": request.spec.rule,
        "resolution": request.resolution,
        "rules": hashlib.sha256((files.root() / "models" / "timm_rules.toml").read_bytes()).hexdigest(),
        "imports": imports_hash,
        "count_version": COUNT_VERSION,
        "timm": version("timm"),
        "torch": version("torch"),
    }
    return folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()}.json"
