"""A page of a PDF -> a picture of it with some of its text marked. Runs in the sandboxed process."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw

from graft.errors import UsageError
from graft.readers.pdf import opened
from graft.settings import ReadingSettings

Mark = tuple[float, float, float, float]
"""Left, bottom, right, top in points of the page as it is shown."""

LONGEST_SIDE = 1600
"""Pixels: as sharp as a screen shows, whatever the page's size in points."""
_YELLOW = (255, 236, 130)


def render(data: bytes, number: int, marks: Sequence[Mark], *, name: str, limits: ReadingSettings) -> bytes:
    """A PNG of a page; marked text stays readable, as under a highlighter.

    Args:
        number: Of the page, from 1.
    Raises:
        ReadError, LimitExceeded: As for reading.
        UsageError: It has no such page.
    """
    document = opened(data, name, limits)
    try:
        if not 1 <= number <= len(document):
            raise UsageError(f"{name} has {len(document)} pages, not {number}", fix="a page that the citation names")
        page = document[number - 1]
        width, height = page.get_size()
        scale = LONGEST_SIDE / max(width, height, 1.0)
        picture = page.render(scale=scale, draw_annots=False).to_pil().convert("RGB")
        page.close()
    finally:
        document.close()
    return _png(_marked(picture, marks, scale, height))


def _marked(picture: Image.Image, marks: Sequence[Mark], scale: float, height: float) -> Image.Image:
    over = Image.new("RGB", picture.size, "white")
    brush = ImageDraw.Draw(over)
    for left, bottom, right, top in marks:
        brush.rectangle(
            (left * scale, (height - top) * scale, right * scale, (height - bottom) * scale), fill=_YELLOW
        )
    return ImageChops.multiply(picture, over)


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
