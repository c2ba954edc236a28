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
from PIL import Image, ImageOps

from luma_cli.catalogue.datasets import Labels, LabelTable, read_table
from luma_cli.data import decode
from luma_cli.data.decode import decode_image, image_size
from luma_cli.errors import BadSample

PIXELS = picture(12, 17, 0)
GREY = PIXELS[..., 0]
TABLE = read_table("card", ["a", "b"], None)


def decode_labels(data: bytes, where: str, table: LabelTable = TABLE) -> Labels:
    return decode.decode_labels(data, where, table)


def pixels_of(data: bytes, where: str = "a") -> np.ndarray:
    return decode_image(data, where).pixels


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
    decoded = pixels_of(encoded(PIXELS, form), "a")
    np.testing.assert_array_equal(decoded, PIXELS)
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable  # so that torch takes it without a copy


def test_jpeg_is_what_pillow_decodes() -> None:
    data = encoded(PIXELS, "JPEG", quality=95)
    np.testing.assert_array_equal(pixels_of(data), np.asarray(Image.open(BytesIO(data))))
    assert pixels_of(encoded(PIXELS, "WEBP", lossless=True)).shape == PIXELS.shape


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_greyscale_becomes_three_equal_channels(form: str) -> None:
    data = encoded(GREY, form)
    decoded = pixels_of(data, "a")
    assert decoded.shape == (12, 17, 3)
    for channel in range(3):
        np.testing.assert_array_equal(decoded[..., channel], np.asarray(Image.open(BytesIO(data))))


def test_palette_and_bilevel_are_looked_up() -> None:
    palette = Image.fromarray(PIXELS).quantize(16)
    np.testing.assert_array_equal(pixels_of(encoded(palette)), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(GREY).convert("1")
    assert set(np.unique(pixels_of(encoded(bits)))) <= {0, 255}


def test_an_opaque_alpha_channel_is_dropped() -> None:
    np.testing.assert_array_equal(pixels_of(encoded(with_alpha(255))), PIXELS)
    grey = with_alpha(255).convert("LA")
    np.testing.assert_array_equal(pixels_of(encoded(grey))[..., 0], np.asarray(grey)[..., 0])


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
        for reader in (pixels_of, decode_labels):
            with pytest.raises(BadSample, match=r"^bomb\.png: .*expected at most 64,000,000"):
                reader(data, "bomb.png")
        with pytest.raises(BadSample, match="bomb"):
            image_size(BytesIO(data), "bomb.png")
    assert image_size(BytesIO(png(8_000, 8_000, 8, 0, b"\0")), "a") == (8_000, 8_000)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_one_pixel_wide_is_refused(size: tuple[int, int]) -> None:
    data = encoded(np.zeros(size))
    for reader in (pixels_of, decode_labels):
        with pytest.raises(BadSample, match="expected sides of at least 2"):
            reader(data, "a")


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
    for reader in (pixels_of, decode_labels):
        with contextlib.suppress(BadSample):
            assert reader(bytes(data), "a").dtype == np.uint8


def test_labels_of_eight_bits_and_palettes() -> None:
    values = np.arange(12 * 17, dtype=np.uint8).reshape(12, 17)
    np.testing.assert_array_equal(decode_labels(encoded(values), "a"), values)
    indexed = Image.fromarray(values % 4)
    indexed.putpalette([9, 9, 9, 8, 8, 8, 7, 7, 7, 6, 6, 6])
    for bits in (2, 8):
        np.testing.assert_array_equal(decode_labels(encoded(indexed, bits=bits), "a"), values % 4)
    assert decode_labels(encoded(values), "a").flags.writeable


def card(*classes: object, ignored: object = None) -> LabelTable:
    return read_table("card", list(classes), ignored)


SMALL = np.array([[0, 1, 1], [1, 0, 1]], dtype=np.uint8)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "GIF"])
def test_labels_of_every_lossless_format_are_their_values(form: str) -> None:
    values = np.arange(12 * 17, dtype=np.uint8).reshape(12, 17)
    np.testing.assert_array_equal(decode_labels(encoded(values, form), "a"), values)
    indexed = Image.fromarray(values % 4)
    indexed.putpalette([9, 8, 7, 200, 8, 8, 7, 7, 70, 6, 60, 6])
    np.testing.assert_array_equal(decode_labels(encoded(indexed, form), "a"), values % 4)


def test_wide_labels_whose_values_fit() -> None:
    for dtype, form in ((np.uint16, "PNG"), (np.uint16, "TIFF"), (np.int32, "TIFF")):
        data = encoded(Image.fromarray(SMALL.astype(dtype) * 200), form)
        np.testing.assert_array_equal(decode_labels(data, "a"), SMALL * 200)
        assert decode_labels(data, "a").dtype == np.uint8
        with pytest.raises(BadSample, match="a: values from 0 to 256, expected 0 to 255"):
            decode_labels(encoded(Image.fromarray(SMALL.astype(dtype) * 256), form), "a")


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "GIF"])
def test_one_bit_means_what_the_card_says(form: str) -> None:
    data = encoded(Image.fromarray(SMALL * 255).convert("1"), form)
    if form == "GIF":  # which has no bits, but a palette
        data = encoded(SMALL, form)
    np.testing.assert_array_equal(decode_labels(data, "a"), SMALL)
    if form != "GIF":
        np.testing.assert_array_equal(decode_labels(data, "a", card("a", {"name": "b", "value": 255})), SMALL * 255)


def test_colours_are_those_of_the_card() -> None:
    table = card(
        {"name": "sea", "colour": [0, 0, 255]},
        {"name": "land", "values": [7, 8], "colour": [0, 255, 0]},
        ignored={"frame": [255, 255, 255], "void": 200},
    )
    colours = np.array([[0, 0, 255], [0, 255, 0], [255, 255, 255]], dtype=np.uint8)
    places = np.random.default_rng(0).integers(0, 3, (9, 5))
    opaque = Image.fromarray(colours[places]).convert("RGBA")
    for data in (encoded(colours[places]), encoded(colours[places], "TIFF"), encoded(opaque)):
        np.testing.assert_array_equal(decode_labels(data, "a", table), np.array([0, 7, 200])[places])
    colours[2] = 1, 2, 3
    with pytest.raises(BadSample, match=rf"^a: \[1, 2, 3\] \({(places == 2).sum()} pixels\): colours of no class"):
        decode_labels(encoded(colours[places]), "a", table)


def test_a_colour_of_two_classes_is_refused_when_it_is_needed() -> None:
    table = card({"name": "a", "colour": [1, 1, 1]}, {"name": "b", "colour": [1, 1, 1]})
    np.testing.assert_array_equal(decode_labels(encoded(SMALL), "a", table), SMALL)
    with pytest.raises(BadSample, match=r"^a: colour \[1, 1, 1\] means 'a' and 'b' in the card, expected one class"):
        decode_labels(encoded(PIXELS), "a", table)


def test_grey_values_in_three_channels() -> None:
    np.testing.assert_array_equal(decode_labels(encoded(np.stack([SMALL] * 3, axis=-1)), "a"), SMALL)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encoded(PIXELS), r"colour mode RGB, but the card gives not every class its colour; add colour ="),
        (encoded(with_alpha(25)), "a label file of colour mode RGBA"),
        (encoded(GREY, "JPEG"), "^a: a JPEG file, expected PNG, TIFF, BMP or GIF; values must be stored without loss"),
        (encoded(GREY, "WEBP"), "^a: a WebP file"),
        (b"\x93NUMPY\x01\0", "^a: a NumPy array, expected PNG"),
        (b"something", "^a: no PNG, TIFF, BMP or GIF file, or a damaged one"),
        (encoded(GREY, "TIFF", compression="jpeg"), "^a: compressed as jpeg, which changes values"),
        (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "16 bits or more per channel .mode F"),
        (png(3, 2, 16, 2, (b"\0" + b"\x12\x34" * 9) * 2), "16 bits or more"),
        # 4 bits of grey: Pillow would give 17, 34, 51 for the values 1, 2, 3.
        (png(4, 2, 4, 0, b"\0\x12\x30" * 2), "L;4, which has two readings"),
    ],
)
def test_other_labels_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(BadSample, match=said):
        decode_labels(data, "a")


ORIENTED = (
    ("JPEG", {"quality": 95}),
    ("PNG", {}),
    ("WEBP", {"lossless": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
)


@pytest.mark.parametrize(("form", "options"), ORIENTED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_pixels_and_the_turn(form: str, options: dict[str, object], orientation: int) -> None:
    """Whatever Pillow does on loading: the pixels are those of the file without the tag, turned once."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PIXELS, form, exif=exif, **options)
    photo, plain = decode_image(data, "a"), decode_image(encoded(PIXELS, form, **options), "a")
    np.testing.assert_array_equal(photo.pixels, plain.pixels)
    assert (photo.orientation, plain.orientation) == (orientation, 1)
    assert image_size(BytesIO(data), "a") == (12, 17)
    with Image.open(BytesIO(data)) as image:
        np.testing.assert_array_equal(photo.upright, np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_of_no_meaning_turns_nothing(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decode_image(encoded(PIXELS, form, exif=exif), "a")
    assert photo.orientation == 0
    np.testing.assert_array_equal(photo.upright, photo.pixels)


def test_tagged_labels_lie_on_the_stored_pixels() -> None:
    exif = Image.Exif()
    for exif[0x0112] in range(1, 9):
        np.testing.assert_array_equal(decode_labels(encoded(SMALL, "TIFF", exif=exif), "a"), SMALL)


def test_several_pages_are_refused_unless_they_are_smaller_copies() -> None:
    small = Image.fromarray(PIXELS[::2, ::2].copy())
    for form in ("TIFF", "PNG", "WEBP"):
        data = encoded(PIXELS, form, save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
        with pytest.raises(BadSample, match="^a: has several pages or frames, expected one"):
            decode_image(data, "a")
    small.encoderinfo = {"tiffinfo": {254: 1}}
    pyramid = encoded(PIXELS, "TIFF", save_all=True, append_images=[small])
    np.testing.assert_array_equal(pixels_of(pyramid), PIXELS)
