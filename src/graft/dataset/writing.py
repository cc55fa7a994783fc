"""Examples -> a JSONL file, all of it or nothing.

It does not know other formats: what Graft writes is OpenAI chat JSONL.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graft.dataset.examples import Example
from graft.errors import ReadError


def write_examples(path: Path | str, examples: Iterable[Example]) -> int:
    """Write OpenAI chat JSONL, all of it or nothing; returns how many.

    What an example's line held beside its turns is written too, and where it was first read, as "origin".

    Raises:
        ReadError: The folder is not there or cannot be written to.
    """
    return write_lines(path, map(line_of, examples))


def write_lines(path: Path | str, values: Iterable[Mapping[str, Any]]) -> int:
    """Write JSONL, all of it or nothing; returns how many lines.

    Raises:
        ReadError: The folder is not there or cannot be written to, or the disk is full.
    """
    target = Path(path)
    count = 0
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False, newline="\n"
        ) as file:
            try:
                for count, value in enumerate(values, start=1):  # noqa: B007 - the last one is the count
                    file.write(_written(value) + "\n")
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ReadError(
            f"cannot write {target}: {error.strerror}", fix="--output FILE in a folder of yours"
        ) from error
    return count


def _written(value: Mapping[str, Any]) -> str:
    """JSON as people read it; escaped where it holds half a character, as names of files and keys may."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def line_of(example: Example) -> dict[str, Any]:
    """The object that an example is written as."""
    line: dict[str, Any] = {"id": example.id}
    if example.source is not None:
        line["source"] = example.source
    line["messages"] = [{"role": turn.role, "content": turn.content} for turn in example.messages]
    return {**line, "origin": example.origin, **example.extra}
