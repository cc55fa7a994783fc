"""Document + token offsets -> chunks, each an exact range of the document's text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    """A range of a document that is searched as one.

    Attributes:
        start, end: Range in the document's text; `text == document.text[start:end]`, always.
        context: What helps to find it and is embedded and indexed with it, but is not part of the
            range: title, heading path, a table's header row.
        page: Number of the page on which it starts, or None.
    """

    start: int
    end: int
    text: str
    context: str
    page: int | None
