"""A file, plain or gzipped -> its lines as bytes with their offsets, in bounded memory.

It does not know what the lines hold.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from graft.errors import LimitExceeded, ReadError
from graft.settings import DatasetSettings

_BLOCK = 1 << 20


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def opened(path: Path) -> IO[bytes]:
    """The file to be read from its start, unpacked.

    Raises:
        ReadError: It is not there, may not be read, or is a pipe.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe can be read once, or waits for ever
            raise ReadError(f"{path} is no file that can be read twice", fix="write it to a file, and give that")
        if path.name.lower().endswith(".gz"):
            return io.BufferedReader(gzip.open(path), _BLOCK)
        return path.open("rb")
    except IsADirectoryError as error:
        raise ReadError(f"{path} is a folder", fix="give a file of examples") from error
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror}", fix="give the path of a file of examples") from error


def count_lines(path: Path, limits: DatasetSettings) -> int:
    """Lines of the file, counted without keeping any, so that too large a file is refused at once.

    Raises:
        LimitExceeded: More lines or bytes than the limits allow; the rest is not read.
        ReadError: It cannot be read, is a damaged gzip file, or UTF-16.
    """
    lines = size = 0
    last = b"\n"
    with opened(path) as file:
        try:
            while block := file.read(_BLOCK):
                if size == 0 and block[:2] in (b"\xff\xfe", b"\xfe\xff"):
                    fix = f"iconv -f UTF-16 -t UTF-8 {path.name} > new-{path.name}"
                    raise ReadError(f"{path.name} is UTF-16, not UTF-8", fix=fix)
                lines, size, last = lines + block.count(b"\n"), size + len(block), block[-1:]
                if lines > limits.max_examples + 1:  # a CSV has a header
                    raise LimitExceeded(
                        f"{path.name} has more than {limits.max_examples:,} lines",
                        fix=f"head -n {limits.max_examples} FILE > SMALLER, or [dataset] max_examples in graft.toml",
                    )
                if size > limits.max_file_mb << 20:
                    raise LimitExceeded(
                        f"{path.name} is larger than {limits.max_file_mb} MB",
                        fix="split the file, or set [dataset] max_file_mb in graft.toml",
                    )
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ReadError(f"{path.name} is a damaged gzip file: {error}", fix="fetch it again") from error
    return lines + (last != b"\n")


def lines_of(file: IO[bytes], most: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Number, offset in bytes, and bytes of each line; None for a line over `most`, which is never held."""
    offset = number = 0
    while raw := file.readline(most + 1):
        number, began, size = number + 1, offset, len(raw)
        whole = raw.endswith(b"\n") or size <= most
        while not whole and (rest := file.readline(_BLOCK)):
            size += len(rest)
            whole = rest.endswith(b"\n")
        offset += size
        if began == 0:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        yield number, began, raw if size <= most + 1 else None
