"""The sandboxed side: frames on stdin -> frames on stdout, one process for many files.

Started by `graft.readers.sandbox` as `python -m graft.readers.worker`. Limits of memory, processor time
and files written hold on Linux, where it has no network either if the system lets it give that up; macOS
does not limit memory, Windows has none of this and is not supported.
It ignores Ctrl-C and ends when its stdin closes, so it never outlives the program for longer than one file.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from graft.errors import GraftError, LimitExceeded, ReadError
from graft.readers.registry import own_reader, reader_for
from graft.readers.wire import Frame, document_frame, receive, send
from graft.settings import ReadingSettings

_MB = 1_000_000
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # CLONE_NEWNET, CLONE_NEWUSER of <sched.h>
_RESAVE = "open it in its own program and save it again"


def main() -> None:
    """Serve until stdin closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    limits = ReadingSettings(**receive(inbox, max_bytes=0).header)
    _leave_network()
    _limit_process(limits)
    send(outbox, {"reply": "ready"})
    # From here on a library that prints, or reads stdin, cannot disturb the frames.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.setrecursionlimit(2000)
    while _serve_one(inbox, outbox, limits):
        pass


def _serve_one(inbox: BinaryIO, outbox: BinaryIO, limits: ReadingSettings) -> bool:
    """Read one file; False when the process should end: stdin closed, or much memory taken."""
    try:
        request = receive(inbox, max_bytes=limits.max_file_mb * _MB)
    except EOFError:
        return False
    _allow_seconds(limits.max_ocr_seconds if request.header["recognise"] else limits.max_seconds)
    reply = _reply(request, limits)
    # Recognition leaves so much memory taken that a later scan would find too little.
    full = request.header["recognise"] or _resident_mb() > limits.max_memory_mb / 2
    last = full or reply.header["reply"] == "out of memory"
    send(outbox, {**reply.header, "last": last}, reply.blobs)
    return not last


def _reply(request: Frame, limits: ReadingSettings) -> Frame:
    name = str(request.header["name"])
    (data,) = request.blobs
    try:
        if (picture := request.header.get("picture")) is not None:
            return _picture(data, name, picture, limits)
        reader = own_reader("scan") if request.header["recognise"] else reader_for(data, name)
        return document_frame(reader.read(data, name=name, limits=limits))
    except GraftError as error:
        kind = "limit" if isinstance(error, LimitExceeded) else "scanned" if _is_scanned(error) else "failure"
        return _failure(kind, error.message, error.fix)
    except MemoryError:
        return _failure("out of memory", "", "")
    except RecursionError:
        return _failure("failure", f"{name} is nested too deeply to be read", _RESAVE)
    except BaseException as error:  # the edge: a library may raise anything, Rust's panics and SystemExit too
        if "bad_alloc" in str(error):  # how C++ libraries such as ONNX Runtime run out of memory
            return _failure("out of memory", "", "")
        what = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        return _failure("failure", f"{name} cannot be read: {what}", _RESAVE)


def _picture(data: bytes, name: str, wanted: Mapping[str, Any], limits: ReadingSettings) -> Frame:
    from graft.readers.rendering import render

    marks = [(float(a), float(b), float(c), float(d)) for a, b, c, d in wanted["marks"]]
    return Frame({"reply": "picture"}, (render(data, int(wanted["page"]), marks, name=name, limits=limits),))


def _is_scanned(error: GraftError) -> bool:
    return isinstance(error, ReadError) and type(error).__name__ == "Scanned"


def _failure(kind: str, message: str, fix: str) -> Frame:
    return Frame({"reply": kind, "message": message, "fix": fix})


def _leave_network() -> None:
    """Move to an empty network, so that a hijacked parser reaches nobody; root may, others in a user namespace."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)  # os.unshare came with Python 3.12
    if libc.unshare(_NEW_NETWORK) != 0:
        libc.unshare(_NEW_NETWORK | _NEW_USER)


def _limit_process(limits: ReadingSettings) -> None:
    for which, value in (
        (resource.RLIMIT_AS, limits.max_memory_mb * _MB),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.setrlimit(which, (value, value))
        except (ValueError, OSError):  # macOS has no limit of address space
            continue


def _allow_seconds(seconds: int) -> None:
    """Move the processor time limit to `seconds` from now; passing it ends the process with SIGXCPU."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + seconds + 1, hard))


def _resident_mb() -> float:
    """Memory held now. Not ru_maxrss: a new process inherits the peak of the program that started it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # macOS
        return 0.0
    return pages * resource.getpagesize() / _MB


if __name__ == "__main__":
    main()
