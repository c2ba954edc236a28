"""The file `luma.toml`: where the user's datasets are. No torch.

    [data]
    root = "/datasets"            # a folder that holds datasets
    ade20k = "/scratch/ade"       # the place of one of them

Relative paths start at the folder of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from luma_cli import files as content
from luma_cli.catalogue.datasets import card_names
from luma_cli.catalogue.reading import require
from luma_cli.errors import BadCard

FILE_NAME = "luma.toml"


@dataclass(frozen=True, slots=True)
class Setting:
    """A folder that a settings file names: for one dataset, or for all (`dataset` empty)."""

    folder: Path
    dataset: str
    file: Path


def settings_files() -> tuple[Path, Path]:
    """Where settings are looked for, the first wins: the current folder, then the user's configuration folder."""
    return Path.cwd() / FILE_NAME, platformdirs.user_config_path("luma", appauthor=False) / FILE_NAME


def read_settings(files: Sequence[Path] | None = None) -> tuple[Setting, ...]:
    """What the files that exist say, in their order. Raises BadCard for an unknown key, naming the nearest."""
    return tuple(setting for file in files or settings_files() if file.is_file() for setting in _read(file))


def _read(file: Path) -> list[Setting]:
    try:
        values = require(str(file), content.read_toml(file), {"data": dict}, ())
    except (OSError, UnicodeDecodeError) as error:
        raise BadCard(f"{file}: cannot be read: {error}") from error
    folders = require(f"{file}: [data]", values.get("data", {}), dict.fromkeys(("root", *card_names()), str), ())
    return [
        Setting(file.parent / Path(folder).expanduser(), "" if key == "root" else key, file)
        for key, folder in folders.items()
    ]
