"""Bytes of one file -> Document, one format per module, each read in a sandboxed process.

The way of a file: `SandboxedReader.read` (sandbox) -> frames (wire) -> a worker process (worker), which
tells the format by content (detecting), and calls that format's module (registry). Nothing here opens
files: the caller checks the size with `check_size`, reads the bytes, and decides about access.
"""

from __future__ import annotations

from graft.readers.detecting import SUFFIXES
from graft.readers.protocol import Reader
from graft.readers.registry import suffixes
from graft.readers.sandbox import SandboxedReader, check_size

__all__ = ["SUFFIXES", "Reader", "SandboxedReader", "check_size", "supported_formats", "supported_suffixes"]


def supported_suffixes() -> frozenset[str]:
    """Suffixes worth reading in a folder, lower case, with their dot, third-party readers included."""
    return suffixes()


def supported_formats() -> tuple[str, ...]:
    """Graft's own formats, for showing."""
    return tuple(sorted(set(SUFFIXES.values())))
