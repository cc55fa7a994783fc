"""A citation's page is shown as it is in the file, with the cited words marked."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from graft.errors import NotFound, UsageError
from graft.readers.rendering import LONGEST_SIDE
from graft.retrieval import Hit
from graft.workspace import Workspace

CITED = "A hotel may cost at most 140 EUR a night."


def write_pdf(path: Path, *, turned: int = 0, second: str = CITED) -> None:
    canvas = Canvas(str(path), pagesize=A4)
    canvas.drawString(72, 760, "The first page says nothing of hotels at all, and goes on about something else.")
    canvas.showPage()
    canvas.setPageRotation(turned)
    canvas.drawString(72, 700, "Breakfast is paid in addition to whatever has been agreed.")
    canvas.drawString(72, 300, second)
    canvas.showPage()
    canvas.save()


def hit_of(workspace: Workspace) -> tuple[Hit, int, int]:
    hit = workspace.search("What may a hotel cost?").hits[0]
    start = hit.start + hit.text.index(CITED)
    return hit, start, start + len(CITED)


def yellow(png: bytes) -> np.ndarray:
    """Where the picture is marked, as fractions of its width and height from the upper left: x0, y0, x1, y1."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    assert max(picture.size) == LONGEST_SIDE
    pixels = np.asarray(picture).astype(int)
    rows, columns = np.nonzero((pixels[..., 0] > 200) & (pixels[..., 2] < 180))
    assert len(rows) > 500, "nothing is marked"
    width, height = picture.size
    return np.array([columns.min() / width, rows.min() / height, columns.max() / width, rows.max() / height])


def test_the_words_are_marked_where_they_stand(tmp_path: Path, models: Path) -> None:
    write_pdf(tmp_path / "travel.pdf")
    with Workspace(tmp_path / "home") as workspace:
        workspace.add([str(tmp_path / "travel.pdf")])
        hit, start, end = hit_of(workspace)
        (place,) = workspace.places(hit.document_id, hit.version, start, end)
        assert place.page == 2 and len(place.boxes) == 1
        left, bottom, right, top = place.boxes[0]
        assert left == pytest.approx(72, abs=2) and bottom < 300 < top and right < A4[0]
        marked = yellow(workspace.picture(hit.document_id, hit.version, start, end))
        expected = [left / A4[0], 1 - top / A4[1], right / A4[0], 1 - bottom / A4[1]]
        assert marked == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_on_a_turned_page_too(tmp_path: Path, models: Path, turned: int) -> None:
    write_pdf(tmp_path / "travel.pdf", turned=turned)
    with Workspace(tmp_path / "home") as workspace:
        workspace.add([str(tmp_path / "travel.pdf")])
        hit, start, end = hit_of(workspace)
        picture = workspace.picture(hit.document_id, hit.version, start, end)
        x0, y0, x1, y1 = yellow(picture)
        pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
        height, width = pixels.shape
        inside = pixels[int(y0 * height) : int(y1 * height), int(x0 * width) : int(x1 * width)]
        assert (inside < 90).mean() > 0.05, "no ink stands under the mark"
        assert ((x1 - x0) * width > (y1 - y0) * height) == (turned == 180)


def test_no_picture_is_drawn_from_another_file_than_was_read(tmp_path: Path, models: Path) -> None:
    write_pdf(tmp_path / "travel.pdf")
    (tmp_path / "note.md").write_text("# Trains\n\nA train is booked in second class.\n")
    with Workspace(tmp_path / "home") as workspace:
        workspace.add([str(tmp_path / "travel.pdf"), str(tmp_path / "note.md")])
        hit, start, end = hit_of(workspace)
        trains = workspace.search("train second class").hits[0]
        with pytest.raises(NotFound, match="no pages"):
            workspace.picture(trains.document_id, trains.version, trains.start, trains.end)
        with pytest.raises(UsageError, match="not within"):
            workspace.picture(hit.document_id, hit.version, 0, 10**6)
        with pytest.raises(NotFound):
            workspace.acting_as(["user:ben"]).picture(hit.document_id, hit.version, start, end)
        write_pdf(tmp_path / "travel.pdf", second="Something else is written here now, of no use to anybody.")
        with pytest.raises(NotFound, match="no longer the file"):
            workspace.picture(hit.document_id, hit.version, start, end)
        (tmp_path / "travel.pdf").unlink()
        with pytest.raises(NotFound, match="no longer the file"):
            workspace.picture(hit.document_id, hit.version, start, end)
        assert workspace.resolve(hit.document_id, hit.version, start, end).text == CITED
