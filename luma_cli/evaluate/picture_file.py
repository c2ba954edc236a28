"""Pictures and tables written so that they appear whole or not at all. No torch."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from luma_cli import files
from luma_cli.errors import DataError

_JPEG = {"quality": 92, "subsampling": 0}  # colours at full resolution: class borders stay sharp
_FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG", "compress_level": 6},
    ".jpg": {"format": "JPEG", **_JPEG},
}


def write_picture(path: Path, picture: Image.Image) -> None:
    """Replace the .png or .jpg file at `path`, folder made as needed. Raises DataError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                picture.save(file, **_FORMATS[path.suffix])
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)  # mkstemp makes it private
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(path, error) from error


def write_table(path: Path, text: str) -> None:
    """Replace the text file at `path`. Raises DataError when it cannot be written."""
    try:
        files.write_text(path, text)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be written: {error.strerror or error}; free space or name another --out")
