"""What `--weights` may name, checked before anything is built."""

from __future__ import annotations

from pathlib import Path

from luma_cli.errors import WeightsError

WORDS = ("random", "pretrained")
SOURCES = ("local-dir:", "hf-hub:")


def names_a_file(weights: str) -> bool:
    """Whether `weights` is a path, neither a word nor a source."""
    return weights not in WORDS and not weights.startswith(SOURCES)


def local_file(weights: str) -> Path:
    """The file that `weights` names. Raises WeightsError when it is not there."""
    path = Path(weights).expanduser()
    if path.is_dir():
        raise WeightsError(f"weights {weights!r} is a folder; give a file in it, or local-dir:{weights}")
    if not path.is_file():
        raise WeightsError(
            f"weights {weights!r}: no such file; expected random, pretrained, a file or local-dir:FOLDER"
        )
    return path
