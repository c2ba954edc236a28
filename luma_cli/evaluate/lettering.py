"""Text in pictures: one typeface, its measures, and what to do with a name that is too long. No torch."""

from __future__ import annotations

from PIL import ImageFont

INK, MUTED, RULE, PAPER = (28, 30, 34), (110, 114, 122), (226, 228, 232), (255, 255, 255)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_MORE = "..."


def font(size: int) -> Font:
    """Pillow's own typeface, letters of about `size` pixels."""
    return ImageFont.load_default(size)


def text_width(text: str, letters: Font) -> int:
    """Width of a line in pixels, rounded up."""
    return int(letters.getlength(text) + 0.999)


def fitted(text: str, letters: Font, width: int) -> str:
    """The text, or as much of its beginning as fits into `width` pixels with dots behind it."""
    text = " ".join(text.split())
    if text_width(text, letters) <= width:
        return text
    kept = len(text)
    while kept and text_width(text[:kept].rstrip() + _MORE, letters) > width:
        kept -= 1
    return text[:kept].rstrip() + _MORE
