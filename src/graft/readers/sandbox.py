"""Bytes of a file -> Document, read by a separate process that may be killed; the program never parses.

What goes wrong in that process, whatever it is, becomes a ReadError or LimitExceeded for that one file,
and the next file is read by a fresh process.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, NoReturn

from graft.documents import Document
from graft.errors import LimitExceeded, ReadError
from graft.readers.wire import Frame, Garbled, document_of, receive, send
from graft.settings import ReadingSettings

_MB = 1_000_000
_START_SECONDS = 30
# Nothing else of the environment reaches the worker: a hijacked parser finds no keys in it.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT")
_RESAVE = "open it in its own program and save it again"


def check_size(path: Path, settings: ReadingSettings) -> None:
    """Refuse a file by its size on disk, before a byte of it is read.

    Raises:
        LimitExceeded: Larger than `max_file_mb`.
        ReadError: It cannot be looked at, or is no regular file.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise ReadError(
            f"{path} cannot be opened: {error.strerror}", fix="check its name and its permissions"
        ) from error
    if not path.is_file():
        raise ReadError(f"{path} is not a regular file", fix="give a file or a folder")
    _check_bytes(stat.st_size, path.name, settings)


def _check_bytes(size: int, name: str, settings: ReadingSettings) -> None:
    if size > settings.max_file_mb * _MB:
        raise LimitExceeded(
            f"{name} has {size / _MB:,.0f} MB, the limit is {settings.max_file_mb} MB",
            fix="split it, or raise [reading] max_file_mb in graft.toml",
        )


class SandboxedReader:
    """Reads files in one worker process, started with the first file and again after it had to be killed.

    May be used from several threads; they take turns. For reading in parallel make several.

    >>> with SandboxedReader() as reader:
    ...     reader.read(b"# Leave\\n\\n30 days a year.", name="leave.md").metadata["title"]
    'Leave'
    """

    def __init__(self, settings: ReadingSettings | None = None) -> None:
        self._settings = settings or ReadingSettings()
        self._worker: _Worker | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> SandboxedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker process; a later `read` starts another."""
        with self._lock:
            self._drop_worker()

    def stop(self) -> None:
        """Kill the process that is reading, from another thread: its file fails; a later `read` starts another."""
        if (worker := self._worker) is not None:
            worker.kill_group()

    def read(self, data: bytes, *, name: str) -> Document:
        """Read one file.

        Args:
            data: The whole file.
            name: Its name, for messages and as a hint of its format; folders are cut off.
        Raises:
            ReadError: It cannot be read: wrong format, damaged, encrypted, empty, scanned without OCR.
            LimitExceeded: It is too large, takes too long or too much memory.
        """
        name = PurePath(name.replace("\\", "/").replace("\0", "")).name or "the file"
        if not data:
            raise ReadError(f"{name} is empty", fix="add a file with content")
        _check_bytes(len(data), name, self._settings)
        with self._lock:
            reply = self._asked(data, name, recognise=False)
            if reply.header.get("reply") == "scanned" and self._can_recognise():
                reply = self._asked(data, name, recognise=True)
        return self._document(reply, name)

    def picture(self, data: bytes, *, name: str, page: int, marks: Sequence[Sequence[float]]) -> bytes:
        """A page of a PDF as a PNG, with some of its text marked.

        Args:
            page: Its number from 1.
            marks: Left, bottom, right, top in points of the page as it is shown.
        Raises:
            ReadError, LimitExceeded: As for `read`.
        """
        _check_bytes(len(data), name, self._settings)
        wanted = {"page": page, "marks": [[float(value) for value in mark] for mark in marks]}
        with self._lock:
            reply = self._asked(data, name, recognise=False, picture=wanted)
        if reply.header.get("reply") != "picture":
            self._refused(reply, name)
        (png,) = reply.blobs
        return png

    def _can_recognise(self) -> bool:
        return self._settings.max_ocr_seconds > 0 and importlib.util.find_spec("rapidocr") is not None

    def _asked(self, data: bytes, name: str, *, recognise: bool, picture: dict[str, Any] | None = None) -> Frame:
        try:
            if self._worker is None:
                self._worker = _Worker(self._settings)
            reply = self._worker.ask(data, name, recognise=recognise, picture=picture)
        except BaseException:  # also Ctrl-C: half a reply may still be in the pipe
            self._drop_worker()
            raise
        if reply.header.get("last"):
            self._drop_worker()
        return reply

    def _drop_worker(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _document(self, reply: Frame, name: str) -> Document:
        if reply.header.get("reply") != "document":
            self._refused(reply, name)
        try:
            return document_of(reply, max_characters=self._settings.max_characters)
        except Garbled as error:
            raise ReadError(f"the reader of {name} returned nonsense: {error}", fix=_RESAVE) from error

    def _refused(self, reply: Frame, name: str) -> NoReturn:
        kind = reply.header.get("reply")
        message, fix = str(reply.header.get("message")), str(reply.header.get("fix"))
        if kind == "out of memory":
            raise _too_much_memory(name, self._settings)
        if kind == "limit":
            raise LimitExceeded(message, fix=fix)
        raise ReadError(message, fix=fix)


def _too_much_memory(name: str, settings: ReadingSettings) -> LimitExceeded:
    return LimitExceeded(
        f"reading {name} takes more than {settings.max_memory_mb} MB of memory",
        fix="split it, or raise [reading] max_memory_mb in graft.toml",
    )


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, settings: ReadingSettings) -> None:
        self._settings = settings
        environment = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            # -P: a numpy.py in the current folder must not be imported.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "graft.readers.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**environment, **threads},
                start_new_session=True,  # what a reader starts is killed with it; no Ctrl-C, no terminal
            )
        except OSError as error:
            raise ReadError(
                f"the reading process cannot be started: {error}", fix="end other programs and try again"
            ) from error
        try:
            with _Deadline(self, _START_SECONDS):
                self._send(dataclasses.asdict(settings))
                receive(self._stdout, max_bytes=0)
        except (EOFError, OSError, Garbled) as error:
            said = self._process.stderr.read().decode(errors="replace") if self._process.stderr else ""
            self.kill()
            lines = said.strip().splitlines()
            telling = [line for line in lines if "Error" in line] or lines or [f"no answer in {_START_SECONDS} s"]
            raise ReadError(
                f"the reading process cannot be started: {telling[-1][:300]}",
                fix="reinstall graft-llm, or raise [reading] max_memory_mb in graft.toml",
            ) from error
        except BaseException:
            self.kill()
            raise

    @property
    def _stdout(self) -> Any:
        return self._process.stdout

    def _send(self, header: dict[str, Any], *blobs: bytes) -> None:
        assert self._process.stdin is not None
        send(self._process.stdin, header, blobs)

    def ask(self, data: bytes, name: str, *, recognise: bool, picture: dict[str, Any] | None = None) -> Frame:
        """One file, one reply.

        Raises:
            ReadError, LimitExceeded: The process ended instead of replying.
        """
        setting = "max_ocr_seconds" if recognise else "max_seconds"
        seconds = getattr(self._settings, setting)
        # Text up to 4 bytes a character, its box 16, a block 32 for every second one, and some for pages.
        allowed = self._settings.max_characters * 36 + self._settings.max_pages * 40
        with _Deadline(self, seconds) as deadline:
            try:
                self._send({"name": name, "recognise": recognise, "picture": picture}, data)
                return receive(self._stdout, max_bytes=allowed)
            except (EOFError, OSError) as error:
                raise self._death(name, seconds, setting, deadline.passed) from error
            except Garbled as error:
                raise ReadError(f"the reader of {name} returned nonsense: {error}", fix=_RESAVE) from error

    def _death(self, name: str, seconds: int, setting: str, killed: bool) -> ReadError | LimitExceeded:
        """Why the process ended."""
        status = self._process.wait()
        if killed or status == -signal.SIGXCPU:
            return LimitExceeded(
                f"reading {name} takes more than {seconds} s",
                fix=f"split it, or raise [reading] {setting} in graft.toml",
            )
        if status == -signal.SIGKILL:
            return _too_much_memory(name, self._settings)
        reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return ReadError(
            f"reading {name} crashed the reading process ({reason}): it is damaged, hostile, or needs more than "
            f"{self._settings.max_memory_mb} MB of memory",
            fix=_RESAVE,
        )

    def kill_group(self) -> None:
        """End the process and all that it started, at once."""
        with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says so of zombies
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the process and all that it started, and let go of it."""
        self.kill_group()
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # unsent bytes of a killed process
                    continue


class _Deadline:
    """Kills a worker, with all that it started, that is not done in time."""

    def __init__(self, worker: _Worker, seconds: float) -> None:
        self._worker = worker
        self._timer = threading.Timer(seconds, self._kill)
        self._timer.daemon = True
        self.passed = False

    def _kill(self) -> None:
        self.passed = True
        self._worker.kill_group()

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
