"""Bytes of an image or label file -> pixels, or a refusal that names the file. No torch.

Images: JPEG, PNG, WebP, BMP and TIFF of 8 bits per channel in RGB, greyscale or palette, with or without an alpha
channel that is opaque everywhere. Refused, because there is no one right way to 8-bit RGB: 16 bits, CMYK, transparency.
Labels: PNG of 8 bits in one channel, or with a palette whose indices are the values. H W pixels.
"""

from __future__ import annotations

import ctypes
import io
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from luma_cli.catalogue.datasets import Labels
from luma_cli.errors import BadSample

MAX_PIXELS = 64_000_000
MIN_SIDE = 2
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_PLAIN = frozenset({"RGB", "L", "P", "1"})
_ALPHA = frozenset({"RGBA", "LA", "PA"})
_EXIF_ORIENTATION = 0x0112
# What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, OverflowError, struct.error, zlib.error)


def decode_image(data: bytes, where: str) -> NDArray[np.uint8]:
    """RGB [H, W, 3]. The rotation of an EXIF tag is not applied, as labels are drawn on the stored pixels.

    Raises BadSample, naming `where`, for a file that is damaged, too large or of a kind that is refused.
    """
    with _opened(io.BytesIO(data), where, _IMAGE_FORMATS) as image:
        if image.mode == "RGB" and "transparency" not in image.info:
            return np.array(image)
        if image.mode in _ALPHA or "transparency" in image.info:
            if image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                raise BadSample(
                    f"{where}: has transparent pixels (mode {image.mode}), expected opaque ones; put it on a colour"
                )
        elif image.mode not in _PLAIN:
            raise BadSample(f"{where}: colour mode {image.mode}, expected 8-bit RGB or greyscale; convert the file")
        return np.array(image.convert("RGB"))


def decode_labels(data: bytes, where: str) -> Labels:
    """Values as stored [H, W]. Raises BadSample, naming `where`, like `decode_image`."""
    with _opened(io.BytesIO(data), where, ("PNG",)) as image:
        if image.mode not in ("L", "P"):
            raise BadSample(
                f"{where}: a label file of colour mode {image.mode}, expected a PNG of 8 bits in one channel, "
                "or with a palette; write the value of the class into each pixel"
            )
        depth = data[24]  # after width and height in the first chunk, IHDR
        if image.mode == "L" and depth != 8:
            raise BadSample(f"{where}: a greyscale label file of {depth} bits, expected 8 bits; write it anew")
        return np.array(image)


def image_size(file: IO[bytes], where: str) -> tuple[int, int]:
    """(H, W) from the beginning of an image file. Raises BadSample, naming `where`."""
    with _opened(file, where, _IMAGE_FORMATS) as image:
        return image.height, image.width


def orientation(data: bytes) -> int:
    """The EXIF tag Orientation: 1 is upright, 2 to 8 are rotated or mirrored; 1 where it is missing or unreadable."""
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=_IMAGE_FORMATS) as image:
            return int(image.getexif().get(_EXIF_ORIENTATION, 1)) or 1
    except (*_DAMAGE, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return 1


def is_rotated(data: bytes) -> bool:
    """Whether an EXIF tag asks to show the image rotated or mirrored; False for an unreadable file."""
    return orientation(data) != 1


@contextmanager
def _opened(file: IO[bytes], where: str, formats: tuple[str, ...]) -> Iterator[ImageFile.ImageFile]:
    """The image, its header read and its size checked, before any pixel is decoded."""
    try:
        with _quiet(), Image.open(file, formats=formats) as image:
            _check_header(image, where)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadSample(f"{where}: {error}; expected at most {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise BadSample(f"{where}: no {' or '.join(formats)} file, or a damaged one") from error
    except _DAMAGE as error:
        raise BadSample(f"{where}: damaged: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings, which name no file; that of a decompression bomb becomes an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _check_header(image: ImageFile.ImageFile, where: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadSample(f"{where}: {image.width} x {image.height} pixels, expected at most {MAX_PIXELS:,} in all")
    if min(image.size) < MIN_SIDE:
        raise BadSample(f"{where}: {image.width} x {image.height} pixels, expected sides of at least {MIN_SIDE}")
    # Pillow silently reads some files of 16 bits as 8; its name of the stored form, e.g. `RGB;16B`, shows them.
    if image.mode.startswith(("I", "F")) or any(";16" in str(tile.args) for tile in image.tile):
        raise BadSample(f"{where}: 16 bits or more per channel (mode {image.mode}), expected 8; convert the file")


_PILLOW_BLOCKS = 8  # of 16 MiB
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 256 << 20
_LARGEST_BYTES = 32 << 20  # the most that glibc takes


def keep_freed_memory() -> None:
    """Have this process keep the memory that images free, up to 384 MiB; without glibc only Pillow's.

    Returning it to the system for each image costs more than decoding: 3.7 instead of 1.4 ms for a 683 x 512 JPEG.
    """
    Image.core.set_blocks_max(_PILLOW_BLOCKS)  # type: ignore[attr-defined]
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl has none
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
