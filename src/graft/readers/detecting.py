"""Bytes and a file name -> the name of a format, told by content first; the name is only a hint.

It runs in the worker: the program itself never looks into a file.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import PurePosixPath

from graft.errors import ReadError
from graft.extras import install

SUFFIXES: dict[str, str] = {
    ".txt": "text", ".text": "text", ".rst": "text", ".adoc": "text", ".org": "text", ".tex": "text",
    ".log": "text", ".json": "text", ".jsonl": "text", ".yaml": "text", ".yml": "text", ".toml": "text",
    ".xml": "text", ".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html",
    ".xhtml": "html", ".pdf": "pdf", ".docx": "docx", ".docm": "docx", ".pptx": "pptx", ".pptm": "pptx",
    ".xlsx": "xlsx", ".xlsm": "xlsx", ".xlsb": "xlsx", ".xls": "xlsx", ".ods": "xlsx", ".csv": "csv", ".tsv": "csv",
}  # fmt: skip
"""Suffixes that Graft reads -> the format that is tried when the content does not tell."""

_DOCX = "save it as DOCX or PDF and add that"
_SHEET = "save it as XLSX and add that"
_TEXT = "save its text as PDF or HTML and add that"
_UNPACK = "unpack it and add the folder"
_PICTURE = f"put it into a PDF and add that; its text is then recognised: {install('ocr')}"
_FOREIGN = (
    (b"\x89PNG", "a PNG picture", _PICTURE),
    (b"\xff\xd8\xff", "a JPEG picture", _PICTURE),
    (b"GIF8", "a GIF picture", _PICTURE),
    (b"BM", "a BMP picture", _PICTURE),
    (b"II*\0", "a TIFF picture", _PICTURE),
    (b"MM\0*", "a TIFF picture", _PICTURE),
    (b"{\\rtf", "an RTF text", _DOCX),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ\0", "an xz archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x7fELF", "a program", "add documents instead"),
    (b"MZ", "a program", "add documents instead"),
    (b"SQLite format 3\0", "a database", "export its tables as CSV"),
    (b"%!PS", "a PostScript file", "convert it to PDF: ps2pdf FILE"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_MAIL = re.compile(rb"(?:Return-Path|Received|Delivered-To|MIME-Version|Message-ID|From|X-[\w-]+): ", re.IGNORECASE)


def detect(data: bytes, name: str) -> str:
    """Name the format of a file's content.

    Raises:
        ReadError: The content is of a known format that Graft does not read.
    """
    hint = SUFFIXES.get(PurePosixPath(name.lower()).suffix, "")
    if data.startswith(b"%PDF-"):
        return "pdf"
    if data.startswith(_ZIP):
        return _packed(data, name)
    if data.startswith(_OLE):
        return _compound(data, name)
    for magic, what, fix in _FOREIGN:
        if data.startswith(magic) and (len(magic) > 2 or b"\0" in data[:512]):
            raise ReadError(f"{name} is {what}, which Graft does not read", fix=fix)
    if data[4:12] in (b"ftypheic", b"ftypmif1", b"ftypavif") or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        raise ReadError(f"{name} is a picture, which Graft does not read", fix=_PICTURE)
    if b"%PDF-" in data[:1024]:  # some programs write other things before it
        return "pdf"
    return _textual(data, name, hint)


def _textual(data: bytes, name: str, hint: str) -> str:
    """What kind of text it is; binary garbage is refused later, by the decoder."""
    if hint == "html" or (_HTML.match(data[:2048].lstrip(b"\xef\xbb\xbf")) and hint != "markdown"):
        return "html"
    if name.lower().endswith(".eml") or (hint == "" and _MAIL.match(data) and b"\nSubject: " in data[:20_000]):
        raise ReadError(f"{name} is an e-mail, which Graft does not read", fix="save it as PDF or HTML and add that")
    if hint == "pdf":
        raise ReadError(f"{name} is called a PDF but is none", fix="download it again; it may be an error page")
    if hint in ("docx", "pptx"):
        raise ReadError(f"{name} is called {hint.upper()} but is none", fix="open it and save it again")
    # "Excel" files that programs export are often CSV in truth.
    return {"xlsx": "csv"}.get(hint, hint or "text")


def _packed(data: bytes, name: str) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = set(archive.namelist())
            kind = archive.read("mimetype")[:100].decode("ascii", "replace") if _stored_kind(archive) else ""
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise ReadError(
            f"{name} is a damaged zip-based file: {error}", fix="download or copy it again; it may be cut off"
        ) from error
    for folder, format in (("word/", "docx"), ("xl/", "xlsx"), ("ppt/", "pptx")):
        if any(member.startswith(folder) for member in members):
            return format
    if kind.startswith("application/vnd.oasis.opendocument.spreadsheet"):
        return "xlsx"
    if kind.startswith("application/vnd.oasis.opendocument"):
        raise ReadError(f"{name} is an OpenDocument text or presentation, which Graft does not read", fix=_DOCX)
    if kind.startswith("application/epub"):
        raise ReadError(f"{name} is an EPUB book, which Graft does not read", fix=_TEXT)
    raise ReadError(f"{name} is a zip archive, which Graft does not open", fix=_UNPACK)


def _stored_kind(archive: zipfile.ZipFile) -> bool:
    """Whether the archive names its own kind, in a member too small to be a bomb."""
    return any(member.filename == "mimetype" and member.file_size < 200 for member in archive.infolist())


def _compound(data: bytes, name: str) -> str:
    """Office files from before 2007 and encrypted ones, told by the names of their streams."""

    def holds(stream: str) -> bool:
        return stream.encode("utf-16-le") in data

    if holds("EncryptedPackage"):
        raise ReadError(f"{name} is encrypted with a password", fix="open it, remove the password, and save it again")
    if holds("WordDocument"):
        raise ReadError(f"{name} is a Word file of before 2007, which Graft does not read", fix=_DOCX)
    if holds("PowerPoint Document"):
        raise ReadError(
            f"{name} is a PowerPoint file of before 2007, which Graft does not read", fix="save it as PPTX"
        )
    if holds("__substg1.0_"):
        raise ReadError(f"{name} is an Outlook message, which Graft does not read", fix=_TEXT)
    if holds("Workbook") or holds("Book"):
        return "xlsx"
    raise ReadError(f"{name} is an Office file of a kind that Graft does not read", fix=_DOCX)
