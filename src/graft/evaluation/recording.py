"""A model -> the same model, whose replies are kept in a file: asked again, it answers from there.

This is what makes an evaluation resumable and a repeated one free. A reply belongs to (input, configuration):
messages, options, the model's name, the adapter's bytes and what the caller adds. Failures are not kept; they
are tried again. It does not know questions or scores.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from graft.errors import UsageError
from graft.models import GenerateOptions, Message, Model, Reply, Usage


class KeptLines:
    """JSON objects by key in `path` (JSONL, appended to, whole lines only); for any number of threads.

    Args:
        field: What an object is called in its line.
        beside: Other such files, that are read where `path` has nothing; one that is no such file is passed over.
    """

    def __init__(self, path: Path, *, field: str, beside: Sequence[Path] = ()) -> None:
        self._path, self._field, self._beside = path, field, beside
        self._lock = threading.Lock()
        self._kept = _load(path, field)

    def get(self, key: str) -> dict[str, Any] | None:
        """What was kept under the key."""
        return self._kept.get(key) or self._elsewhere.get(key)

    def is_own(self, key: str) -> bool:
        """Whether it was kept in `path` itself."""
        return key in self._kept

    @cached_property
    def _elsewhere(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for path in self._beside:
            with suppress(UsageError):
                found |= _load(path, self._field, mend=False)
        return found

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep it, on disk before this returns.

        Raises:
            UsageError: The file cannot be written.
        """
        line = json.dumps({"key": key, self._field: value}, ensure_ascii=True) + "\n"
        with self._lock:
            self._kept[key] = value
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="ascii") as file:
                    file.write(line)
            except OSError as error:
                raise UsageError(
                    f"{self._path} cannot be written: {error.strerror}",
                    fix="free some space, or choose another folder",
                ) from error


class RecordedModel:
    """A Model that remembers, in `path` (JSONL, appended to, whole lines only); for any number of threads.

    Args:
        configuration: What else decides the replies: the checksum of the weights, a retrieval setting.
    """

    def __init__(self, model: Model, path: Path, *, configuration: str = "") -> None:
        self._model, self._configuration = model, configuration
        self._lock = threading.Lock()
        self._kept = KeptLines(path, field="reply")
        self.reused = 0

    @property
    def name(self) -> str:
        """The model's."""
        return self._model.name

    @property
    def context_tokens(self) -> int:
        """The model's."""
        return self._model.context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """See `Model.count_tokens`."""
        return self._model.count_tokens(messages)

    def stream(self, messages: Sequence[Message], options: GenerateOptions) -> Generator[str, None, Reply]:
        """See `Model.stream`; a kept reply comes in one piece, with the latency it had."""
        key = self._key(messages, options)
        kept = self._kept.get(key)
        if kept is not None:
            with self._lock:
                self.reused += 1
            reply = Reply(**{**kept, "usage": Usage(**kept["usage"])})
            yield reply.text
            return reply
        reply = yield from self._model.stream(messages, options)
        self._kept.put(key, asdict(reply))
        return reply

    def _key(self, messages: Sequence[Message], options: GenerateOptions) -> str:
        given = asdict(options)
        if options.adapter is not None:
            given["adapter"] = file_checksum(Path(options.adapter))
        parts = [self._model.name, self._configuration, given, [[m.role, m.content] for m in messages]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _load(path: Path, field: str, *, mend: bool = True) -> dict[str, dict[str, Any]]:
    """What was kept; a last line that a kill cut short, or that is being written, is left out.

    Args:
        mend: Take such a line out of the file, too.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", fix="choose another folder") from error
    whole = data.rfind(b"\n") + 1
    if whole < len(data) and mend:
        os.truncate(path, whole)
    kept = {}
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            row: dict[str, Any] = json.loads(line)
            kept[str(row["key"])] = dict(row[field])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}:{number} is not a kept {field}", fix=f"remove {path}") from error
    return kept


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, read again only where the file has changed."""
    status = path.stat()
    return _checksum(path, status.st_mtime_ns, status.st_size)


@lru_cache(64)
def _checksum(path: Path, modified_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
