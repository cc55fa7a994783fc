"""Facts that change in the documents -> which arms then answer with the new one, which still with the old.

It does not know workspaces: whoever calls it brings a store in which the facts have changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from graft.comparing.arms import Contestant, configuration
from graft.comparing.values import ArmReply, Freshness
from graft.errors import UsageError
from graft.evaluation.metrics import contained
from graft.evaluation.questions import Question
from graft.models import Message
from graft.store import Store

_KEYS = ("document", "find", "replace", "question", "before", "after")
_SHAPE = "{" + ", ".join(f'"{key}": "..."' for key in _KEYS) + "}"
_MOST = 1_000
_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A fact that changes.

    Attributes:
        document: Its name in the collection; `find` stands there once, and `replace` takes its place.
        question: Answered by `before` until then, by `after` from then on.
    """

    document: str
    find: str
    replace: str
    question: str
    before: str
    after: str


def read_changes(path: Path) -> tuple[Change, ...]:
    """A file of changes, one JSON object a line.

    Raises:
        UsageError: It cannot be read, is empty, or a line is no change; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", fix="--fresh CHANGES.jsonl, in UTF-8") from error
    found = [_change(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not 1 <= len(found) <= _MOST:
        raise UsageError(f"{path} holds {len(found):,} changes; from 1 to {_MOST:,}", fix=f"one {_SHAPE} a line")
    return tuple(found)


def _change(line: str, where: str) -> Change:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {error}", fix=f"one {_SHAPE} a line") from error
    values: dict[str, str] = {}
    for key in _KEYS:
        value = told.get(key) if isinstance(told, dict) else None
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"{where} has no text as {key!r}", fix=f"one {_SHAPE} a line")
        values[key] = value
    if contained(values["after"], [values["before"]]) or contained(values["before"], [values["after"]]):
        raise UsageError(
            f"{where}: one of {values['before']!r} and {values['after']!r} is part of the other, so no answer can "
            "tell them apart",
            fix="change the fact to one of other words",
        )
    return Change(**values)


def changed(texts: Mapping[str, str], changes: Sequence[Change]) -> dict[str, str]:
    """The texts that change, as they are afterwards.

    Raises:
        UsageError: A document is not there, or does not hold what is to be replaced exactly once.
    """
    made: dict[str, str] = {}
    for change in changes:
        if change.document not in texts:
            have = ", ".join(sorted(texts)[:_NAMED]) or "none"
            raise UsageError(f"no document {change.document!r} to change; there are {have}", fix="graft list")
        text = made.get(change.document, texts[change.document])
        if (times := text.count(change.find)) != 1:
            raise UsageError(
                f"{change.find!r} stands {times} times in {change.document}; a change needs it there once",
                fix="give more of the words around it, as `graft search` shows them",
            )
        made[change.document] = text.replace(change.find, change.replace)
    return made


def afterwards(contestants: Sequence[Contestant], changes: Sequence[Change], store: Store) -> list[Contestant]:
    """The arms as they are after the changes: those that read documents read them from `store`."""
    told = [asdict(change) for change in changes]
    return [
        replace(
            one,
            replies=one.replies if one.over is None else one.over(store),
            configuration=configuration(arm=one.configuration, changes=told),
        )
        for one in contestants
    ]


def questions_of(changes: Sequence[Change]) -> list[Question]:
    """What is asked before and after the changes."""
    return [
        Question(
            id=f"change-{number}",
            messages=(Message("user", change.question),),
            answers=(change.after,),
            kind="short",
            extra={},
        )
        for number, change in enumerate(changes, start=1)
    ]


def freshness(
    contestants: Sequence[Contestant],
    changes: Sequence[Change],
    rows: Sequence[Mapping[str, ArmReply]],
    earlier: Sequence[Mapping[str, ArmReply]],
    after_ms: float,
) -> dict[str, Freshness]:
    """Arm -> how many of the answers hold the new fact and not the old, and the other way round.

    Args:
        rows: Of each change that was asked about, the replies by arm; `earlier` those before anything changed.
    """
    return {
        one.name: Freshness(
            questions=len(rows),
            new=sum(_holds(row[one.name], c.after, c.before) for row, c in zip(rows, changes, strict=False)),
            old=sum(_holds(row[one.name], c.before, c.after) for row, c in zip(rows, changes, strict=False)),
            knew=sum(_holds(row[one.name], c.before, c.after) for row, c in zip(earlier, changes, strict=False)),
            after_ms=None if one.over is None else after_ms,
        )
        for one in contestants
    }


def _holds(reply: ArmReply, fact: str, other: str) -> bool:
    return bool(contained(reply.reply, [fact])) and not contained(reply.reply, [other])
