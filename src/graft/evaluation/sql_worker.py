"""The guarded side of `sql.py`: one JSON query a line on stdin -> one JSON result a line on stdout.

Run as a script of its own with `python -I`, and so without anything of Graft. A query can do nothing but read
the one database: it is opened read-only, SQLite's authoriser lets only SELECT through (no ATTACH, no PRAGMA),
and the process may write no file, with caps on time, rows and memory. Ends when its stdin closes.
"""

from __future__ import annotations

import json
import resource
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

MEMORY_BYTES = 1_000_000_000
MAX_VALUE_BYTES = 1_000_000
MAX_ROWS = 20_000
MAX_RESULT_CHARACTERS = 20_000_000
_STEPS = 10_000  # instructions of SQLite's machine between two looks at the clock
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})


def main(path: str, seconds: float) -> None:
    """Serve queries of one database until stdin closes."""
    for which, value in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(which, (value, value))
        except (ValueError, OSError):  # macOS has no limit of address space
            continue
    connection = open_reading(Path(path))
    for line in sys.stdin:
        reply = run(connection, json.loads(line)["sql"], seconds)
        try:
            sys.stdout.write(json.dumps(reply) + "\n")
        except MemoryError:
            sys.stdout.write('{"error": "the result takes too much memory"}\n')
        sys.stdout.flush()


def open_reading(path: Path) -> sqlite3.Connection:
    """A connection that can only SELECT."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA temp_store = MEMORY")  # large sorts go to no file
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    connection.set_authorizer(_only_reads)
    return connection


def _only_reads(action: int, first: str | None, second: str | None, *_: object) -> int:
    allowed = action in _READS and second != "load_extension"
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def run(connection: sqlite3.Connection, sql: str, seconds: float) -> dict[str, Any]:
    """One query's rows, or its error; several statements in one are an error."""
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > end), _STEPS)
    try:
        cursor = connection.execute(sql)
        if cursor.description is None:
            return {"error": "no query"}
        rows, characters = [], 0
        for row in cursor:
            rows.append([_plain(value) for value in row])
            characters += sum(len(str(value)) for value in rows[-1])
            if len(rows) > MAX_ROWS or characters > MAX_RESULT_CHARACTERS:
                return {"error": f"more than {MAX_ROWS:,} rows or {MAX_RESULT_CHARACTERS:,} characters"}
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return {"error": f"took longer than {seconds:g} s"}
        return {"error": str(error)}
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "the result takes too much memory"}
    return {"rows": rows}


def _plain(value: Any) -> Any:
    return {"blob": value.hex()} if isinstance(value, bytes) else value


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
