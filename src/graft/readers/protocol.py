"""What every reader is: the bytes of one file -> Document.

A reader runs inside the sandboxed worker, never in the program itself, so it may use any library and
may fail in any way; the worker turns what goes wrong into a ReadError. A module with a `read` function
of this shape is a reader too, and Graft's own are such modules.

Other packages register a reader by an entry point of the group `graft.readers`, named by the suffix
without its dot, one entry for each suffix, so that suffixes are known without importing anything:

    [project.entry-points."graft.readers"]
    epub = "my_package:EpubReader"        # a class without arguments, an instance, or a module
"""

from __future__ import annotations

from typing import Protocol

from graft.documents import Document
from graft.settings import ReadingSettings

ENTRY_POINTS = "graft.readers"


class Reader(Protocol):
    """Turns the bytes of one format into a Document. `graft.testing.reader` checks that it keeps its word."""

    def read(self, data: bytes, *, name: str, limits: ReadingSettings) -> Document:
        """Read one whole file.

        Args:
            data: The file's bytes, of any content: the name may lie.
            name: File name for messages, without folders.
            limits: Of pages, characters and archives; time and memory are capped from outside.
        Returns: A Document with some text in it, the same for the same bytes.
        Raises:
            ReadError: Not this format, damaged, encrypted, or without text.
            LimitExceeded: A limit was passed.
        """
        ...
