"""what the server has to tell -> a line on stderr each, for people or as a JSON object.

Words of libraries are left out, for they may hold what documents say: of their warnings and errors the log has the
kind and the place. No value can begin a line of its own. It does not know requests.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from graft.errors import UsageError

LOG = logging.getLogger("graft.server")
FORMS = ("auto", "text", "json")

_MAY_SPEAK = ("graft", "opentelemetry")
"""Whose words are written: OpenTelemetry's say why spans could not be sent, and not what is in them."""


class Told:
    """What happened, as names and values; what is None is left out of a line for people.

    >>> str(Told("request", id="req_1", caller=None, route="a b"))
    'id=req_1 route="a b"'
    """

    def __init__(self, event: str, **values: str | float | None) -> None:
        self.event, self.values = event, values

    def __str__(self) -> str:
        told = [f"{name}={_plain(value)}" for name, value in self.values.items() if value is not None]
        return " ".join(told) or self.event


def _plain(value: str | float) -> str:
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    bare = text.isascii() and text.isprintable() and text and not set(text) & set(' "=')
    return text if bare else json.dumps(text)


def log_unexpected(error: Exception, request_id: str = "-") -> None:
    """What went wrong and where, without the error's words."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    at = " ".join(f"{frame.filename}:{frame.lineno}" for frame in frames)
    LOG.error(Told("unexpected", id=request_id, unexpected=type(error).__name__, at=at))


def write_log(form: str, *, to: TextIO | None = None) -> bool:
    """Write from now on what this process has to tell.

    Args:
        form: text, json, or auto: text where a person reads along.
        to: By default stderr.
    Returns: Whether it is JSON.
    Raises:
        UsageError: No such form.
    """
    if form not in FORMS:
        raise UsageError(f"[serving] log = {form!r} is none of {', '.join(FORMS)}", fix="the default is 'auto'")
    stream = to or sys.stderr
    as_json = form == "json" or (form == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Json() if as_json else _Text())
    logging.getLogger().handlers = [handler]
    logging.getLogger().setLevel(logging.WARNING)
    LOG.setLevel(logging.INFO)
    return as_json


def _words(record: logging.LogRecord) -> str:
    if record.name.split(".")[0] in _MAY_SPEAK:
        return record.getMessage()
    kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else "-"
    return f"logger={_plain(record.name)} error={kind} at={_plain(f'{record.pathname}:{record.lineno}')}"


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """A line for people."""
        words = "".join(one if one.isprintable() else " " for one in _words(record))
        return f"{self.formatTime(record)} {record.levelname} {words}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """A JSON object, in ASCII and without a line break."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        if isinstance(record.msg, Told):
            line |= {"event": record.msg.event, **record.msg.values}
        else:
            line |= {"event": "message", "message": _words(record)}
        return json.dumps(line)
