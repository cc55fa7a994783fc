"""a JSON or TOML file -> plain values, refused by name where it is neither; one value -> a number that can be meant.

It does not know what the values mean.
"""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

from graft.errors import LimitExceeded, UsageError

MOST_BYTES = 256_000_000
"""Of a file: a report with 100,000 questions has about 100 MB."""


def read_table(path: str | Path, *, what: str, fix: str) -> dict[str, Any]:
    """The one table that a file holds: JSON, or TOML where its name ends in ".toml".

    Args:
        what: What the file should be, for messages: "answers file".
    Raises:
        UsageError: It cannot be read, is empty, is no text, no JSON or TOML, or holds something else than a table.
        LimitExceeded: It is over 256 MB.
    """
    text = _text(Path(path), what, fix)
    try:
        found: Any = tomllib.loads(text) if Path(path).suffix.lower() == ".toml" else _json(text)
    except (ValueError, RecursionError) as error:  # both decoders' errors are ValueErrors
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{path} cannot be read as {what}: {reason}", fix=fix) from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds {_kind(found)}, and {what} is one JSON object or TOML table", fix=fix)
    return found


def number(value: object, *, name: str, fix: str, low: float = 0.0, high: float = 1e15) -> float:
    """A finite number within limits; true and false are none.

    Raises:
        UsageError: It is none, or outside the limits; names both.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{name} = {_shown(value)} is not a number", fix=fix)
    if not low <= value <= high or not math.isfinite(value):  # NaN fails every comparison
        raise UsageError(f"{name} = {_shown(value)} is not between {low:,g} and {high:,g}", fix=fix)
    return float(value)


def text(value: object, *, name: str, fix: str, most: int = 500) -> str:
    """A string of at most `most` characters.

    Raises:
        UsageError: It is none.
    """
    if not isinstance(value, str) or len(value) > most:
        raise UsageError(f"{name} = {_shown(value)} is not a text of at most {most} characters", fix=fix)
    return value


def _text(path: Path, what: str, fix: str) -> str:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise LimitExceeded(f"{path} has {size:,} bytes, over the {MOST_BYTES:,} of {what}", fix=fix)
        found = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", fix=fix) from error
    except ValueError as error:
        raise UsageError(f"{path} is not {what}: it is no UTF-8 text", fix=fix) from error
    if not found.strip():
        raise UsageError(f"{path} is empty", fix=fix)
    return found


def _json(source: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
        return made

    return json.loads(source, object_pairs_hook=once)


def _kind(value: object) -> str:
    kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return "a whole number of more than 60 digits"
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
