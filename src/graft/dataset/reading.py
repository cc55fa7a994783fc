"""A file -> examples and findings, streamed: JSONL, JSON array, CSV or TSV, plain or gzipped.

Every line becomes an example or a finding, never nothing. Memory is bounded by one line, and by what the
caller keeps. It does not know what a good example is.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from graft.dataset.examples import Example
from graft.dataset.findings import Finding, FindingLog, Severity
from graft.dataset.formats import BadLine, checked_mapping, example_of, guess_mapping, shape_of
from graft.dataset.lines import count_lines, file_sha256, lines_of, opened
from graft.errors import LimitExceeded, UsageError
from graft.settings import DatasetSettings

_MOST_JSON_BYTES = 256 << 20
"""A JSON array is read whole, unlike lines; Python needs about ten times its size."""
_DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A file that was read.

    Attributes:
        findings: Of lines that are no examples, and of guesses made; the first of each code.
        counts: Findings by code, all of them.
        shapes: Examples by the shape they had.
        unread: Lines that are no examples, or a file that breaks off: errors among the findings.
        sha256: Hex digest of the file's bytes.
    """

    examples: tuple[Example, ...]
    findings: tuple[Finding, ...]
    counts: Mapping[str, int]
    shapes: Mapping[str, int]
    unread: int
    sha256: str


@dataclass(slots=True)
class Reader:
    """Reads one file once, example by example; what it met on the way is in its attributes.

    Attributes:
        lines: Of the file, counted before the first example is given.
    """

    path: Path
    mapping: Mapping[str, str] | None = None
    limits: DatasetSettings = field(default_factory=DatasetSettings)
    log: FindingLog = field(default_factory=FindingLog)
    shapes: Counter[str] = field(default_factory=Counter)
    lines: int = 0
    _ids: dict[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[int, Example]]:
        """Line number and example, in the file's order.

        Raises:
            LimitExceeded: More lines or bytes than the limits allow; found before anything is parsed.
            ReadError: It is not there, or is no text.
            UsageError: The mapping does not fit, or the columns cannot be guessed.
        """
        if self.mapping is not None:
            self.mapping = checked_mapping(self.mapping)
        self.lines = count_lines(self.path, self.limits)
        for line, value, mapping in self._objects():
            try:
                example = example_of(value, origin=f"{self.path.name}:{line}", mapping=mapping)
            except BadLine as bad:
                self._bad(line, bad)
                continue
            self.shapes["mapped" if mapping else shape_of(value) or ""] += 1
            yield line, self._unique(line, example, given=(mapping or {}).get("id", "id") in value)
        if not self.shapes and not self.log.counts:
            self.log.add(_of_file("empty", Severity.ERROR, f"{self.path.name} has no lines", "give another file"))

    def _objects(self) -> Iterator[tuple[int, dict[str, Any], Mapping[str, str] | None]]:
        with opened(self.path) as file:
            name = self.path.name.lower().removesuffix(".gz")
            if name.endswith((".csv", ".tsv")):
                yield from self._rows(file)
                return
            objects = self._array(file) if _first_character(file) == b"[" else self._json_lines(file)
            for line, value in objects:
                if isinstance(value, dict):
                    yield line, value, self.mapping
                else:
                    self._bad(line, BadLine("format", "not an object", '{"messages": [...]}'))

    def _json_lines(self, file: IO[bytes]) -> Iterator[tuple[int, Any]]:
        for line, offset, raw in lines_of(file, self.limits.max_line_mb << 20):
            if raw is None:
                self._bad(line, _too_long(self.limits))
            elif raw.strip():
                try:
                    yield line, _json(_decoded(raw, offset))
                except BadLine as bad:
                    self._bad(line, bad)

    def _array(self, file: IO[bytes]) -> Iterator[tuple[int, Any]]:
        raw = file.read(_MOST_JSON_BYTES + 1)
        if len(raw) > _MOST_JSON_BYTES:
            raise LimitExceeded(
                f"{self.path.name} is one JSON array of over {_MOST_JSON_BYTES >> 20} MB; it would be read whole",
                fix=f"jq -c '.[]' {self.path.name} > {self.path.stem}.jsonl",
            )
        try:
            text = _decoded(raw, 0)
        except BadLine as bad:
            self._bad(None, bad)
            return
        yield from self._elements(text)

    def _elements(self, text: str) -> Iterator[tuple[int, Any]]:
        decoder = json.JSONDecoder(parse_constant=_no_constant)
        at, line, counted = _skip(text, text.index("[") + 1), 1, 0
        while at < len(text) and text[at] != "]":
            line, counted = line + text.count("\n", counted, at), at
            try:
                value, end = decoder.raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                self._bad(line, BadLine("json", f"the array breaks off: {error}", "correct it; the rest is not read"))
                return
            yield line, value
            at = _skip(text, end)
            if at < len(text) and text[at] == ",":
                at = _skip(text, at + 1)
        if at >= len(text):
            self._bad(line, BadLine("json", "the array is not closed", "the file was cut; fetch it again"))

    def _rows(self, file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any], Mapping[str, str] | None]]:
        text = _Text(file, self)
        header = next(text, "")
        text.take_bad()
        try:
            named = {delimiter: next(csv.reader([header], delimiter=delimiter), []) for delimiter in _DELIMITERS}
        except csv.Error as error:
            raise UsageError(
                f"the first line of {self.path.name} names no columns: {error}",
                fix="name the columns in it, or use JSONL for such long cells",
            ) from error
        delimiter = max(_DELIMITERS, key=lambda d: len(named[d]))
        columns = [column.strip() for column in named[delimiter]]
        mapping = self._mapping(columns)
        rows = csv.reader(text, delimiter=delimiter, strict=True)  # a quote left open is an error
        while True:
            first = text.line + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                text.take_bad()
                self._bad(first, BadLine("csv", f"{error}", "close its quotes, or use JSONL for such long cells"))
                continue
            if not row or text.take_bad():
                continue  # blank, or its bytes are a finding already
            if len(row) != len(columns):
                message = f"{len(row)} cells where the header names {len(columns)}"
                self._bad(first, BadLine("csv", message, f"quote cells that hold {delimiter!r} or a line break"))
                continue
            yield first, dict(zip(columns, row, strict=True)), mapping

    def _mapping(self, columns: list[str]) -> Mapping[str, str] | None:
        """How to read rows; None where the columns are those of a usual shape."""
        if self.mapping is not None:
            missing = [column for column in self.mapping.values() if column not in columns]
            if missing:
                raise UsageError(
                    f"{self.path.name} has no column {', '.join(missing)}; it has {', '.join(columns)}",
                    fix="--map prompt=COLUMN,answer=COLUMN",
                )
            return self.mapping
        if shape_of(dict.fromkeys(columns)) in ("alpaca", "prompt/completion"):
            return None
        guessed = guess_mapping(columns)
        if guessed is None:
            raise UsageError(
                f"cannot tell which column of {self.path.name} is the prompt and which the answer; "
                f"it has {', '.join(columns) or 'none'}",
                fix="--map prompt=COLUMN,answer=COLUMN",
            )
        told = ",".join(f"{key}={column}" for key, column in guessed.items())
        self.log.add(_of_file("columns-guessed", Severity.NOTE, f"columns were guessed: {told}", f"--map {told}"))
        return guessed

    def _unique(self, line: int, example: Example, *, given: bool) -> Example:
        """The example with an id that no other of the file has."""
        wanted, number = example.id, self._ids.get(example.id, 1)  # a million copies do not count from 2 each
        while wanted in self._ids:
            number += 1
            wanted = f"{example.id}-{number}"
        self._ids[example.id] = number
        self._ids[wanted] = 1
        if wanted == example.id:
            return example
        if given:
            self.log.add(
                Finding(
                    code="id-twice",
                    severity=Severity.WARNING,
                    message=f"the id {example.id!r} was used before; this one is called {wanted!r}",
                    fix="give every line its own id, or none",
                    line=line,
                    id=wanted,
                )
            )
        return Example(
            id=wanted, messages=example.messages, source=example.source, origin=example.origin, extra=example.extra
        )

    def _bad(self, line: int | None, bad: BadLine) -> None:
        found = Finding(code=bad.code, severity=Severity.ERROR, message=bad.message, fix=bad.fix, line=line)
        self.log.add(found)


class _Text:
    """Lines of a CSV as text; notes which of them were not UTF-8, so that their rows are left out."""

    def __init__(self, file: IO[bytes], reader: Reader) -> None:
        self.line = 0
        self._bad = False
        self._reader = reader
        self._lines = lines_of(file, reader.limits.max_line_mb << 20)

    def __iter__(self) -> _Text:
        return self

    def __next__(self) -> str:
        self.line, offset, raw = next(self._lines)
        try:
            if raw is None:
                raise _too_long(self._reader.limits)
            return _decoded(raw, offset)
        except BadLine as bad:
            self._bad = True
            self._reader._bad(self.line, bad)
            return (raw or b"\n").decode(errors="replace")

    def take_bad(self) -> bool:
        """Whether a line since the last call was bad."""
        bad, self._bad = self._bad, False
        return bad


def read_examples(
    path: Path | str, *, mapping: Mapping[str, str] | None = None, limits: DatasetSettings | None = None
) -> Reading:
    """Read a whole file.

    Args:
        mapping: Column or key for each of prompt, answer, system, source, id; see `formats.parse_mapping`.
    Returns: The examples in the file's order, each with an id that no other has, and what was found.
    Raises:
        LimitExceeded: More lines or bytes than the limits allow.
        ReadError: It is not there, or is no text.
        UsageError: The mapping does not fit, or the columns cannot be guessed.
    """
    reader = Reader(Path(path), mapping, limits or DatasetSettings())
    examples = tuple(example for _, example in reader)
    return Reading(
        examples=examples,
        findings=reader.log.kept,
        counts=reader.log.counts,
        shapes=dict(reader.shapes),
        unread=reader.log.errors,
        sha256=file_sha256(reader.path),
    )


def _first_character(file: IO[bytes]) -> bytes:
    head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    file.seek(0)
    return head[:1]


def _decoded(raw: bytes, offset: int) -> str:
    try:
        return raw.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        raise BadLine(
            "utf8",
            f"byte {raw[error.start]:#04x} at offset {offset + error.start} of the file is not UTF-8",
            "save the file as UTF-8: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW",
        ) from error


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise BadLine("json", "nested too deeply", "flatten it") from error
    except ValueError as error:
        raise BadLine("json", f"not JSON: {error}", "one JSON object a line, in double quotes") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n\ufeff":
        at += 1
    return at


def _too_long(limits: DatasetSettings) -> BadLine:
    return BadLine(
        "line-too-long",
        f"longer than {limits.max_line_mb} MB",
        "cut it into examples; [dataset] max_line_mb in graft.toml is the limit",
    )


def _of_file(code: str, severity: Severity, message: str, fix: str) -> Finding:
    return Finding(code=code, severity=severity, message=message, fix=fix)
