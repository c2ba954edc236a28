"""Image and label files: what is converted, and what is refused with its path and mode."""

from __future__ import annotations

import contextlib
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from dataset_files import encoded, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from luma_cli.data.decode import decode_image, decode_labels, image_size, is_rotated
from luma_cli.errors import BadSample

PIXELS = picture(12, 17, 0)
GREY = PIXELS[..., 0]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, palette: bytes = b"") -> bytes:
    """A PNG file written by hand: `rows` with the filter byte before each."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    middle = png_chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + header + middle + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def with_alpha(alpha: int) -> Image.Image:
    image = Image.fromarray(PIXELS)
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_rgb_is_read_as_it_is(form: str) -> None:
    decoded = decode_image(encoded(PIXELS, form), "a")
    np.testing.assert_array_equal(decoded, PIXELS)
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable  # so that torch takes it without a copy


def test_jpeg_is_what_pillow_decodes() -> None:
    data = encoded(PIXELS, "JPEG", quality=95)
    np.testing.assert_array_equal(decode_image(data, "a"), np.asarray(Image.open(BytesIO(data))))
    assert decode_image(encoded(PIXELS, "WEBP", lossless=True), "a").shape == PIXELS.shape


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_greyscale_becomes_three_equal_channels(form: str) -> None:
    data = encoded(GREY, form)
    decoded = decode_image(data, "a")
    assert decoded.shape == (12, 17, 3)
    for channel in range(3):
        np.testing.assert_array_equal(decoded[..., channel], np.asarray(Image.open(BytesIO(data))))


def test_palette_and_bilevel_are_looked_up() -> None:
    palette = Image.fromarray(PIXELS).quantize(16)
    np.testing.assert_array_equal(decode_image(encoded(palette), "a"), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(GREY).convert("1")
    assert set(np.unique(decode_image(encoded(bits), "a"))) <= {0, 255}


def test_an_opaque_alpha_channel_is_dropped() -> None:
    np.testing.assert_array_equal(decode_image(encoded(with_alpha(255)), "a"), PIXELS)
    grey = with_alpha(255).convert("LA")
    np.testing.assert_array_equal(decode_image(encoded(grey), "a")[..., 0], np.asarray(grey)[..., 0])


def test_transparency_is_refused() -> None:
    keyed = encoded(PIXELS, transparency=tuple(int(part) for part in PIXELS[0, 0]))
    palette = encoded(Image.fromarray(PIXELS).quantize(16), transparency=0)
    for data in (encoded(with_alpha(254)), encoded(with_alpha(0).convert("LA")), keyed, palette):
        with pytest.raises(BadSample, match=r"^pic\.png: has transparent pixels \(mode \w+\)"):
            decode_image(data, "pic.png")


def test_cmyk_is_refused() -> None:
    with pytest.raises(BadSample, match=r"^pic\.jpg: colour mode CMYK, expected 8-bit RGB"):
        decode_image(encoded(PIXELS, "JPEG", mode="CMYK"), "pic.jpg")


def png_of_16_bits(colour: int, num_channels: int) -> bytes:
    return png(3, 2, 16, colour, (b"\0" + b"\x12\x34" * 3 * num_channels) * 2)


@pytest.mark.parametrize(
    "data",
    [
        png_of_16_bits(0, 1),
        png_of_16_bits(4, 2),
        png_of_16_bits(2, 3),  # Pillow would cut it to 8 bits
        encoded(Image.fromarray(np.full((2, 3), 70_000, dtype=np.int32)), "TIFF"),
        encoded(Image.fromarray(np.full((2, 3), 0.5, dtype=np.float32)), "TIFF"),
    ],
    ids=["grey", "grey with alpha", "RGB", "32 bits", "real numbers"],
)
def test_sixteen_bits_are_refused(data: bytes) -> None:
    with pytest.raises(BadSample, match=r"^a\.png: 16 bits or more per channel"):
        decode_image(data, "a.png")


def test_the_cap_is_checked_before_decoding() -> None:
    """Headers of 60000 x 60000, 12000 x 8000 and just above the cap, with one row of pixels behind them."""
    for width, height in ((60_000, 60_000), (12_000, 8_000), (8_001, 8_000)):
        data = png(width, height, 8, 0, b"\0" * 10)
        for decode in (decode_image, decode_labels):
            with pytest.raises(BadSample, match=r"^bomb\.png: .*expected at most 64,000,000"):
                decode(data, "bomb.png")
        with pytest.raises(BadSample, match="bomb"):
            image_size(BytesIO(data), "bomb.png")
    assert image_size(BytesIO(png(8_000, 8_000, 8, 0, b"\0")), "a") == (8_000, 8_000)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_one_pixel_wide_is_refused(size: tuple[int, int]) -> None:
    data = encoded(np.zeros(size))
    for decode in (decode_image, decode_labels):
        with pytest.raises(BadSample, match="expected sides of at least 2"):
            decode(data, "a")


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_truncated_files_are_refused(form: str) -> None:
    data = encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3)), form)
    for kept in (0, 3, 20, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(BadSample, match=r"^pic: "):
            decode_image(data[:kept], "pic")


@settings(max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP"]), st.data())
def test_damage_is_a_bad_sample_or_another_picture(form: str, draw: st.DataObject) -> None:
    """Whatever bytes change, nothing but BadSample is raised."""
    data = bytearray(encoded(PIXELS, form))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    for decode in (decode_image, decode_labels):
        with contextlib.suppress(BadSample):
            assert decode(bytes(data), "a").dtype == np.uint8
    is_rotated(bytes(data))


def test_labels_of_eight_bits_and_palettes() -> None:
    values = np.arange(12 * 17, dtype=np.uint8).reshape(12, 17)
    np.testing.assert_array_equal(decode_labels(encoded(values), "a"), values)
    indexed = Image.fromarray(values % 4)
    indexed.putpalette([9, 9, 9, 8, 8, 8, 7, 7, 7, 6, 6, 6])
    for bits in (2, 8):
        np.testing.assert_array_equal(decode_labels(encoded(indexed, bits=bits), "a"), values % 4)
    assert decode_labels(encoded(values), "a").flags.writeable


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encoded(PIXELS), "a label file of colour mode RGB"),
        (encoded(with_alpha(255)), "a label file of colour mode RGBA"),
        (encoded(Image.fromarray(GREY).convert("1")), "a label file of colour mode 1"),
        (encoded(GREY, "JPEG"), "no PNG file"),
        (png(3, 2, 16, 0, (b"\0" + b"\x12\x34" * 3) * 2), "16 bits or more"),
        # 4 bits of grey: Pillow would give 17, 34, 51 for the values 1, 2, 3.
        (png(4, 2, 4, 0, b"\0\x12\x30" * 2), "greyscale label file of 4 bits"),
    ],
)
def test_other_labels_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(BadSample, match=said):
        decode_labels(data, "a.png")


def test_exif_rotation_is_noticed_and_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(PIXELS, "JPEG", exif=exif)
    assert is_rotated(data)
    assert not is_rotated(encoded(PIXELS, "JPEG"))
    assert decode_image(data, "a").shape == PIXELS.shape
