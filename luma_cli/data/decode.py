"""Bytes of an image or label file -> pixels, or a refusal that names the file. No torch.

What is read and what is refused, and why: the table in docs/use/data.md. H W pixels, as stored.
"""

from __future__ import annotations

import ctypes
import io
import struct
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from luma_cli.catalogue.datasets import Labels, LabelTable
from luma_cli.errors import BadSample

MAX_PIXELS = 64_000_000
MIN_SIDE = 2
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_LABEL_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
# How files begin that people take for an image or a label file.
_OTHERS = {
    b"\xff\xd8\xff": "a JPEG file",
    b"\x89PNG": "a PNG file",
    b"RIFF": "a WebP file",
    b"BM": "a BMP file",
    b"GIF8": "a GIF file",
    b"\x93NUMPY": "a NumPy array",
    b"PK": "a ZIP archive",
    b"%PDF": "a PDF file",
    b"\0\0\0": "a HEIC, AVIF or video file",
}
_PLAIN = frozenset({"RGB", "L", "P", "1"})
_ALPHA = frozenset({"RGBA", "LA", "PA"})
_ORIENTATION, _SUBFILE = 0x0112, 0x00FE
_REDUCED_OR_MASK = 0b101  # bits of TIFF's NewSubfileType
_MAX_PAGES = 64
# EXIF 2.3, tag Orientation -> how stored pixels are turned to be seen upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK = {6: 8, 8: 6}  # the others undo themselves
# What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, OverflowError, struct.error, zlib.error)


@dataclass(frozen=True, slots=True)
class Photo:
    """An image as its file stores it: RGB pixels [H, W, 3], on which labels are drawn, and its tag Orientation.

    orientation: 1 for none, 2 to 8 for one that asks to see the pixels turned, 0 for one that means nothing.
    """

    pixels: NDArray[np.uint8]
    orientation: int

    @property
    def upright(self) -> NDArray[np.uint8]:
        """RGB [H, W, 3] as it is meant to be seen."""
        turn = _TURNS.get(self.orientation)
        return self.pixels if turn is None else np.array(Image.fromarray(self.pixels).transpose(turn))


def decode_image(data: bytes, where: str) -> Photo:
    """The stored pixels and how they are turned, whatever the format.

    Raises BadSample, naming `where`, for a file that is damaged, too large or of a kind that is refused.
    """
    with _opened(io.BytesIO(data), where, _IMAGE_FORMATS) as image:
        _refuse_deep(image, where, "scale it to 0 to 255, as only you know which of its values are black and white")
        stored, orientation = _stored(image, where)
        if stored.mode in _ALPHA or "transparency" in stored.info:
            if stored.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                raise BadSample(
                    f"{where}: has transparent pixels (mode {stored.mode}), expected opaque ones; put it on a colour"
                )
        elif stored.mode not in _PLAIN:
            raise BadSample(
                f"{where}: colour mode {stored.mode}, expected 8-bit RGB or greyscale; convert the file with its "
                "colour profile"
            )
        return Photo(np.array(stored if stored.mode == "RGB" else stored.convert("RGB")), orientation)


def decode_labels(data: bytes, where: str, table: LabelTable) -> Labels:
    """Values of a label file [H, W], of colours those that the table gives them.

    A file of one bit holds 0 and 1, or 0 and 255 where only 255 is a class. Raises BadSample, naming `where`.
    """
    with _opened(io.BytesIO(data), where, _LABEL_FORMATS) as image:
        if image.info.get("compression") in ("jpeg", "tiff_jpeg", "webp"):
            raise BadSample(f"{where}: compressed as {image.info['compression']}, which changes values; {_ANEW}")
        raw = [str(tile[3]) for tile in image.tile]
        if unclear := [kind for kind in ("L;2", "L;4", "L;I") if any(kind in args for args in raw)]:
            raise BadSample(f"{where}: greyscale of the kind {unclear[0]}, which has two readings; {_ANEW}")
        if not image.mode.startswith("I"):
            _refuse_deep(image, where, _ANEW)
        stored, _ = _stored(image, where)
        if stored.mode in ("RGBA", "LA") and stored.getchannel("A").getextrema()[0] == 255:
            stored = stored.convert(stored.mode[:-1])
        pixels = np.array(stored)
    if stored.mode == "RGB":
        return _of_colours(pixels, where, table)
    if stored.mode == "1":
        values = {value for each in table.classes for value in each.values}
        return np.where(pixels, np.uint8(255 if 255 in values and 1 not in values else 1), np.uint8(0))
    if stored.mode in ("L", "P"):
        return np.asarray(pixels, dtype=np.uint8)
    if stored.mode.startswith("I"):
        if pixels.min() < 0 or pixels.max() > 255:
            raise BadSample(f"{where}: values from {pixels.min()} to {pixels.max()}, expected 0 to 255; {_ANEW}")
        return pixels.astype(np.uint8)
    raise BadSample(f"{where}: a label file of colour mode {stored.mode}, expected one channel or RGB; {_ANEW}")


_ANEW = "write the value of the class into each pixel of an 8-bit PNG"


def _of_colours(pixels: NDArray[np.uint8], where: str, table: LabelTable) -> Labels:
    """Values [H, W] of an RGB label file: by the colours of the classes, or grey ones as they are."""
    colours = table.colours
    if not colours:
        if (pixels[..., :1] != pixels).any():
            raise BadSample(
                f"{where}: a label file of colour mode RGB, but the card gives not every class its colour; add "
                f"colour = [red, green, blue] to each, or {_ANEW}"
            )
        return np.ascontiguousarray(pixels[..., 0])
    if same := [each for each, count in Counter(each.colour for each in table.classes).items() if count > 1]:
        names = " and ".join(repr(each.name) for each in table.classes if each.colour == same[0])
        raise BadSample(f"{where}: colour {list(same[0])} means {names} in the card, expected one class; {_ANEW}")
    codes = pixels @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    known = np.array([(red << 16) + (green << 8) + blue for red, green, blue in sorted(colours)], dtype=np.uint32)
    places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    foreign, counts = np.unique(codes[known[places] != codes], return_counts=True)
    if len(foreign):
        most = np.argsort(-counts, kind="stable")[:4]
        named = ", ".join(
            f"[{code >> 16}, {code >> 8 & 255}, {code & 255}] ({number:,} pixel{'s' * (number > 1)})"
            for code, number in zip(foreign[most].tolist(), counts[most].tolist(), strict=True)
        )
        more = f" and {len(foreign) - len(most):,} more" if len(foreign) > len(most) else ""
        raise BadSample(f"{where}: {named}{more}: colours of no class and not ignored")
    return np.array([colours[colour] for colour in sorted(colours)], dtype=np.uint8)[places]


def image_size(file: IO[bytes], where: str) -> tuple[int, int]:
    """(H, W) as stored, from the beginning of an image file. Raises BadSample, naming `where`."""
    with _opened(file, where, _IMAGE_FORMATS) as image:
        width, height = _stored_size(image)
        return height, width


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
        file.seek(0)
        start = file.read(8)
        kind = next((name for begin, name in _OTHERS.items() if start.startswith(begin)), "")
        wanted = f"{', '.join(formats[:-1])} or {formats[-1]}"
        if not kind or any(each in kind.upper() for each in formats):
            raise BadSample(f"{where}: no {wanted} file, or a damaged one") from error
        what = f"; values must be stored without loss: {_ANEW}" if formats is _LABEL_FORMATS else "; convert it"
        raise BadSample(f"{where}: {kind}, expected {wanted}{what}") from error
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
    # A camera's MPO file is a JPEG with previews behind it.
    if getattr(image, "is_animated", False) and image.format != "MPO" and not _is_pyramid(image):
        raise BadSample(f"{where}: has several pages or frames, expected one; save each as a file of its own")


def _is_pyramid(image: ImageFile.ImageFile) -> bool:
    """Whether the other pages of a TIFF are smaller copies of the first, or masks of it, as in aerial images."""
    if image.format != "TIFF":
        return False
    try:
        for page in range(1, _MAX_PAGES):
            image.seek(page)
            if not int(image.tag_v2.get(_SUBFILE, 0)) & _REDUCED_OR_MASK:  # type: ignore[attr-defined]
                return False
    except EOFError:
        image.seek(0)
        return True
    return False


def _refuse_deep(image: ImageFile.ImageFile, where: str, remedy: str) -> None:
    # Pillow silently reads some files of 16 bits as 8; its name of the stored form, e.g. `RGB;16B`, shows them.
    if image.mode.startswith(("I", "F")) or any(";16" in str(tile[3]) for tile in image.tile):
        raise BadSample(f"{where}: 16 bits or more per channel (mode {image.mode}), expected 8; {remedy}")


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height without the turn, which newer versions of Pillow apply to those of a TIFF."""
    tags = getattr(image, "tag_v2", None)
    return image.size if tags is None else (tags[256], tags[257])


def _stored(image: ImageFile.ImageFile, where: str) -> tuple[Image.Image, int]:
    """The decoded image as stored, and its tag Orientation.

    Pillow turns a TIFF when it decodes it, and no other format; where it does, it takes away the tag.
    """
    if image.format != "TIFF":
        image.load()
        return image, _orientation(image)
    tag, size = _orientation(image), _stored_size(image)
    image.load()
    turned = tag in _TURNS and _orientation(image) != tag
    stored = image.transpose(_TURNS[_BACK.get(tag, tag)]) if turned else image
    if stored.size != size:
        raise BadSample(f"{where}: damaged: pixels of {stored.size}, expected {size}")
    return stored, tag


def _orientation(image: ImageFile.ImageFile) -> int:
    """See Photo; 1 where nothing can be read of the EXIF."""
    try:
        tag = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return tag if isinstance(tag, int) and 1 <= tag <= 8 else 0


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
