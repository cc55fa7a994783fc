"""Who changed what, when, and whether it was allowed: a line of JSON each, appended and never changed.

Names, ids and routes alone; nothing of documents, questions or keys. It does not know who writes.
"""

from __future__ import annotations

import datetime
import json
import os
from collections import deque
from pathlib import Path
from typing import Any

FILE = "audit.jsonl"
OWN = "the command line"


class Audit:
    """The log of one workspace; for any number of threads and processes, each line whole."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE

    def record(self, what: str, *, caller: str = OWN, **more: str | int) -> None:
        """Append an event; where the disk takes none, the change itself still stands.

        Args:
            what: A verb of the command line, or method and route.
            more: Names and ids of what it was done to.
        """
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, "caller": caller, "what": what, **more}, ensure_ascii=True) + "\n"
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError:
            return
        try:
            os.write(handle, line.encode("ascii"))
        except OSError:
            return
        finally:
            os.close(handle)

    def last(self, limit: int) -> list[dict[str, Any]]:
        """The last events, oldest first; a line that a full disk cut short is passed over."""
        if not self._path.is_file():
            return []
        with self._path.open(encoding="ascii", errors="replace") as file:
            lines = deque(file, maxlen=limit)
        found = []
        for line in lines:
            try:
                found.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                continue
        return found
