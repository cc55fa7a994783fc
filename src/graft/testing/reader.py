"""Contract of every reader: files of its format -> nothing, or an AssertionError that says what broke.

Shipped for third-party readers: call `check_reader(my_reader, {"a.epub": data, ...})` in a test, with real
files. It runs the reader in this process, so give it no hostile files; the sandbox is tested elsewhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from graft.documents import Document
from graft.errors import LimitExceeded, ReadError
from graft.readers.protocol import Reader
from graft.readers.wire import document_frame, document_of
from graft.settings import ReadingSettings

_CUTS = (0.1, 0.5, 0.9, 0.99)


def check_reader(reader: Reader, samples: Mapping[str, bytes], *, limits: ReadingSettings | None = None) -> None:
    """Check that a reader keeps the contract of `graft.readers.Reader`.

    Args:
        reader: The reader, or a module with a `read` function.
        samples: File name -> bytes of whole files that it must be able to read; at least one.
    Raises:
        AssertionError: It does not; the message names the sample and the broken promise.
    """
    limits = limits or ReadingSettings()
    assert samples, "give at least one sample"
    for name, data in samples.items():
        with _watching_writes() as written:
            document = reader.read(data, name=name, limits=limits)
        assert not written, f"{name}: the reader wrote files: {written}"
        check_document(document, where=name)
        again = reader.read(data, name=name, limits=limits)
        assert document_frame(again) == document_frame(document), f"{name}: the same bytes gave another document"
        _check_damaged(reader, name, data, limits)
        _check_limit(reader, name, data, len(document.text))
    for empty in (b"", b" \n"):
        try:
            reader.read(empty, name="empty", limits=limits)
        except ReadError as error:
            assert error.message and error.fix, "a ReadError says what is wrong and what to do"
        else:
            raise AssertionError(f"{empty!r} was read as a document; empty output is a failure")


def check_document(document: Document, *, where: str) -> None:
    """Check one document: blocks cover the text, pages and boxes fit it, and it survives the sandbox's wire."""
    text = document.text
    assert text.strip(), f"{where}: a document without text"
    assert "\r" not in text and "\0" not in text, f"{where}: the text holds carriage returns or NULs"
    text.encode("utf-8")
    assert document.format, f"{where}: no format named"
    uncovered = list(text)
    for block in document.blocks:
        assert text[block.start : block.end].strip(), f"{where}: block {block} is blank"
        uncovered[block.start : block.end] = " " * (block.end - block.start)
    assert not "".join(uncovered).strip(), f"{where}: in no block: {''.join(uncovered).strip()[:80]!r}"
    if document.pages:
        outside = list(text)
        for page in document.pages:
            outside[page.start : page.end] = " " * (page.end - page.start)
        assert not "".join(outside).strip(), f"{where}: on no page: {''.join(outside).strip()[:80]!r}"
    if document.boxes is not None:
        _check_boxes(document, where)
    frame = document_frame(document)
    returned = document_of(frame, max_characters=len(text))
    assert document_frame(returned) == frame, f"{where}: the document does not survive the way out of the sandbox"


def _check_boxes(document: Document, where: str) -> None:
    assert document.boxes is not None
    assert document.boxes.dtype == np.float32, f"{where}: boxes are {document.boxes.dtype}, not float32"
    visible = np.array([not character.isspace() for character in document.text])
    placed = np.isfinite(document.boxes.sum(axis=1))
    assert placed[visible].all(), f"{where}: {(~placed[visible]).sum()} visible characters have no box"
    left, bottom, right, top = document.boxes[placed].T
    assert (left <= right + 0.01).all() and (bottom <= top + 0.01).all(), f"{where}: boxes are turned inside out"


def _check_damaged(reader: Reader, name: str, data: bytes, limits: ReadingSettings) -> None:
    """A file that was cut off is read in part or refused, nothing else."""
    for share in _CUTS:
        try:
            document = reader.read(data[: int(len(data) * share)], name=name, limits=limits)
        except ReadError:
            continue
        except Exception as error:
            raise AssertionError(f"{name} cut to {share:.0%}: {type(error).__name__} instead of ReadError") from error
        check_document(document, where=f"{name} cut to {share:.0%}")


def _check_limit(reader: Reader, name: str, data: bytes, characters: int) -> None:
    try:
        reader.read(data, name=name, limits=ReadingSettings(max_characters=characters - 1))
    except LimitExceeded:
        return
    raise AssertionError(f"{name}: more than max_characters characters were returned")


_written: list[str] | None = None
_hooked = False


@contextmanager
def _watching_writes() -> Iterator[list[str]]:
    """Collect the files that Python code opens for writing meanwhile, byte code aside."""
    global _written, _hooked
    if not _hooked:
        sys.addaudithook(_note_write)  # cannot be taken back, so once and idle afterwards
        _hooked = True
    written: list[str] = []
    _written = written
    try:
        yield written
    finally:
        _written = None


def _note_write(event: str, arguments: tuple[object, ...]) -> None:
    if _written is None or event != "open":
        return
    path, _, flags = arguments
    writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes and "__pycache__" not in str(path) and str(path) != os.devnull:
        _written.append(str(path))
