"""An SQL answer + a reference query + a SQLite database -> do they return the same rows?

The queries run in a process of their own that can only read (`sql_worker.py`), because a model's answer is
anybody's text. It does not know other databases than SQLite files.
"""

from __future__ import annotations

import json
import re
import selectors
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from graft.errors import UsageError

_WORKER = Path(__file__).with_name("sql_worker.py")
_GRACE_S = 2.0  # beyond the query's own limit, before the process is killed
_MOST_CHARACTERS = 100_000
_FENCE = re.compile(r"\A\s*```(?:\w+)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a query returned, or why it did not."""

    rows: tuple[tuple[Any, ...], ...] = ()
    error: str | None = None


class SqlRunner:
    """One database, read by a guarded process that is started at the first query and again after a kill.

    Args:
        seconds: Of wall time for one query.
    Raises:
        UsageError: The file is not a SQLite database.
    """

    def __init__(self, database: Path, *, seconds: float = 10.0) -> None:
        try:
            with database.open("rb") as file:
                head = file.read(16)
        except OSError as error:
            raise UsageError(f"{database} cannot be read: {error.strerror}", fix="--database FILE.sqlite") from error
        if not head.startswith(b"SQLite format 3\0"):
            raise UsageError(f"{database} is not a SQLite database", fix="--database FILE.sqlite")
        self._database, self._seconds = database, seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; the next query starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def run(self, sql: str) -> Rows:
        """A query's rows, or its error; never raises for what the query does."""
        if len(sql) > _MOST_CHARACTERS:
            return Rows(error=f"a query of {len(sql):,} characters; the limit is {_MOST_CHARACTERS:,}")
        reply = self._exchange(json.dumps({"sql": sql}).encode() + b"\n")
        if reply is None:
            self.close()
            return Rows(error=f"took longer than {self._seconds:g} s, or more memory than it may")
        answer = json.loads(reply)
        if "error" in answer:
            return Rows(error=str(answer["error"])[:500])
        return Rows(rows=tuple(tuple(_comparable(value) for value in row) for row in answer["rows"]))

    def _exchange(self, request: bytes) -> bytes | None:
        """The worker's line, or None where it ended or took too long."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
        except BrokenPipeError:
            return None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(self._seconds + _GRACE_S):
                return None
        line = process.stdout.readline()
        return line if line.endswith(b"\n") else None  # half a line: it was killed while it wrote

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_WORKER), str(self._database), str(self._seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        return self._process


@dataclass(frozen=True, slots=True)
class SqlVerdict:
    """Attributes:
    score: 1 or 0; None where the reference itself does not run, so nothing can be said.
    error: Why the answer or the reference did not run.
    """

    score: float | None
    error: str | None = None


def execution_match(answer: str, references: Sequence[str], runner: SqlRunner) -> SqlVerdict:
    """Whether the answer returns the rows of a reference query.

    Rows compare as a multiset, or in order where the reference's outermost query has ORDER BY. Columns count
    by place, their names do not; fractions to 6 significant digits. A code fence around the answer is taken off.
    """
    wanted = [(reference, runner.run(reference)) for reference in references]
    running = [(reference, rows) for reference, rows in wanted if rows.error is None]
    if not running:
        why = wanted[0][1].error if wanted else "there is none"
        return SqlVerdict(None, f"the reference query does not run: {why}")
    given = runner.run(unfenced(answer))
    if given.error is not None:
        return SqlVerdict(0.0, given.error)
    return SqlVerdict(float(any(_same(given.rows, rows.rows, _is_ordered(sql)) for sql, rows in running)))


def unfenced(text: str) -> str:
    """SQL without the Markdown fence that chat models put around it.

    >>> unfenced("```sql\\nSELECT 1;\\n```")
    'SELECT 1;'
    """
    found = _FENCE.match(text)
    return found.group(1) if found else text.strip()


def _same(given: Sequence[tuple[Any, ...]], wanted: Sequence[tuple[Any, ...]], ordered: bool) -> bool:
    return given == wanted if ordered else Counter(given) == Counter(wanted)


def _is_ordered(sql: str) -> bool:
    """Whether ORDER BY stands outside all parentheses, quotes and comments.

    >>> _is_ordered("SELECT a FROM t ORDER BY a"), _is_ordered("SELECT (SELECT a FROM t ORDER BY a LIMIT 1)")
    (True, False)
    """
    bare, depth, outer = _QUOTED.sub(" ", sql), 0, []
    for character in bare:
        depth += (character == "(") - (character == ")")
        outer.append(character if depth == 0 else " ")
    return re.search(r"\border\s+by\b", "".join(outer), re.IGNORECASE) is not None


def _comparable(value: Any) -> Any:
    if isinstance(value, float) and not value.is_integer():
        return float(f"{value:.6g}")
    return json.dumps(value) if isinstance(value, dict) else value
