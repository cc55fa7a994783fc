"""Bytes of a zip-based file -> an archive that is safe to open, and XML from it without declared entities.

Everything is judged from the central directory before a member is unpacked. Archives inside the archive
are never opened. It does not know what the members mean.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import PurePosixPath
from typing import IO
from xml.etree import ElementTree
from xml.parsers import expat

from graft.errors import LimitExceeded, ReadError
from graft.settings import ReadingSettings

_MB = 1_000_000
_RATIO_MATTERS_FROM = 10 * _MB  # a small sheet of blanks may pack 500 : 1 and harm nobody
_XML_SUFFIXES = frozenset({".xml", ".rels", ".vml", ".xhtml"})
_ENCRYPTED = 0x1


def open_archive(data: bytes, *, name: str, limits: ReadingSettings) -> zipfile.ZipFile:
    """Open a zip-based file after checking it against the limits.

    Raises:
        ReadError: Not a whole zip file, encrypted, or a member declares a document type (XML entities).
        LimitExceeded: Too many members, too large once unpacked, or packed too tightly to be honest.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise ReadError(
            f"{name} is a damaged zip-based file: {error}", fix="download or copy it again; it may be cut off"
        ) from error
    members = archive.infolist()
    _check_sizes(members, name, limits)
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise ReadError(f"{name} is encrypted", fix="open it, remove the password, and save it again")
        if PurePosixPath(member.filename).suffix.lower() in _XML_SUFFIXES:
            with archive.open(member) as stream:
                _refuse_document_type(stream, f"{name} ({member.filename})")
    return archive


def _check_sizes(members: list[zipfile.ZipInfo], name: str, limits: ReadingSettings) -> None:
    if len(members) > limits.max_archive_entries:
        raise LimitExceeded(
            f"{name} holds {len(members):,} packed members, the limit is {limits.max_archive_entries:,}",
            fix="if it is honest, raise [reading] max_archive_entries in graft.toml",
        )
    packed = sum(member.compress_size for member in members)
    unpacked = sum(member.file_size for member in members)
    if unpacked > limits.max_archive_mb * _MB:
        raise LimitExceeded(
            f"{name} unpacks to {unpacked // _MB:,} MB, the limit is {limits.max_archive_mb:,} MB",
            fix="if it is honest, raise [reading] max_archive_mb in graft.toml",
        )
    if unpacked > _RATIO_MATTERS_FROM and unpacked > packed * limits.max_archive_ratio:
        raise LimitExceeded(
            f"{name} is packed {unpacked // max(packed, 1):,} : 1, the limit is {limits.max_archive_ratio} : 1",
            fix="if it is honest, raise [reading] max_archive_ratio in graft.toml",
        )


class _RootReached(Exception):
    """The document type, if any, would have come before."""


def _refuse_document_type(stream: IO[bytes], what: str) -> None:
    """Feed XML to the parser until its root element; expat sees the declaration in every encoding."""

    def refuse(*_: object) -> None:
        raise ReadError(
            f"{what} declares an XML document type, which office files do not need and attacks use",
            fix="open the file in its own program and save it again",
        )

    def reached(*_: object) -> None:
        raise _RootReached

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = reached
    try:
        while chunk := stream.read(4096):
            parser.Parse(chunk)
    except (_RootReached, expat.ExpatError):  # broken XML is reported where it is used, if it is
        return
    except (zipfile.BadZipFile, zipfile.zlib.error, EOFError, NotImplementedError) as error:  # type: ignore[attr-defined]
        raise ReadError(f"{what} is damaged: {error}", fix="download or copy the file again") from error


def xml_member(archive: zipfile.ZipFile, path: str, *, name: str) -> ElementTree.Element | None:
    """The root element of a member, or None if there is no such member.

    Raises:
        ReadError: It is not XML.
    """
    try:
        content = archive.read(path)
    except KeyError:
        return None
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ReadError(
            f"{name} ({path}) is not XML: {error}", fix="open it in its own program and save it again"
        ) from error


def relationships(archive: zipfile.ZipFile, part: str, *, name: str) -> dict[str, tuple[str, str]]:
    """What a part of an office file refers to: id -> (last word of the type, path inside the archive)."""
    path = PurePosixPath(part)
    root = xml_member(archive, str(path.parent / "_rels" / f"{path.name}.rels"), name=name)
    found = {}
    for item in root if root is not None else ():
        if item.get("TargetMode") != "External":
            kind = item.get("Type", "").rsplit("/", 1)[-1]
            found[item.get("Id", "")] = (kind, _resolved(path.parent, item.get("Target", "")))
    return found


def _resolved(folder: PurePosixPath, target: str) -> str:
    """A relationship's target, which may be absolute or climb with `..`, as a member's name."""
    parts: list[str] = []
    for part in (PurePosixPath("/") / folder / target).parts[1:]:
        if part == "..":
            del parts[-1:]
        else:
            parts.append(part)
    return "/".join(parts)
