"""Small datasets as files: folders and archives in the layouts of ADE20K, Cityscapes and of one's own."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from luma_cli.catalogue.datasets import LabelTable

OWN_CARD = """
image_suffixes = [".jpg", ".png"]
label_suffix = "_mask.png"
classes = ["background", { name = "cat", values = [1, 2], colour = [255, 0, 0] }]

[splits.train]
images = "images"
labels = "masks"
recursive = true
"""


def encoded(pixels: Any, form: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    """An image file of an array or a Pillow image."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    file = BytesIO()
    (image.convert(mode) if mode else image).save(file, form, **options)
    return file.getvalue()


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth noise [H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def values_of(table: LabelTable, height: int, width: int, seed: int) -> np.ndarray:
    """Blocks of values that the table knows [H, W]."""
    known = [*table.ignored, *(value for each in table.classes for value in each.values)]
    coarse = np.random.default_rng(seed).choice(np.array(known, dtype=np.uint8), (height // 4 + 1, width // 4 + 1))
    return np.kron(coarse, np.ones((4, 4), dtype=np.uint8))[:height, :width]


def ade_files(table: LabelTable, num_train: int = 5, num_val: int = 2) -> dict[str, bytes]:
    """Path -> content, in the layout of ADEChallengeData2016.zip; sizes differ from image to image."""
    files = {}
    for folder, short, number in (("training", "train", num_train), ("validation", "val", num_val)):
        for index in range(1, number + 1):
            height, width = 20 + index % 7, 30 + index % 5
            name = f"{folder}/ADE_{short}_{index:08d}"
            files[f"ADEChallengeData2016/images/{name}.jpg"] = encoded(picture(height, width, index), "JPEG")
            files[f"ADEChallengeData2016/annotations/{name}.png"] = encoded(values_of(table, height, width, index))
    files["ADEChallengeData2016/objectInfo150.txt"] = b"Idx\tRatio\n"
    return files


def cityscapes_files(table: LabelTable) -> dict[str, bytes]:
    """Path -> content, in the layout of both Cityscapes archives; numbers of cities interleave."""
    files = {}
    for split, names in (("train", ("aachen_000001", "aachen_000000", "bochum_000000")), ("val", ("lindau_000000",))):
        for index, name in enumerate(names):
            path = f"{split}/{name.split('_')[0]}/{name}_000019"
            files[f"leftImg8bit/{path}_leftImg8bit.png"] = encoded(picture(16, 32, index))
            files[f"gtFine/{path}_gtFine_labelIds.png"] = encoded(values_of(table, 16, 32, index))
            files[f"gtFine/{path}_gtFine_color.png"] = encoded(picture(16, 32, index))
    return files


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """Write the files under `folder`; returns it."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def write_zip(file: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write the files into an archive in another order than the folder's; returns it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", compression) as archive:
        for path in sorted(files, reverse=True):
            archive.writestr(path, files[path])
    return file
