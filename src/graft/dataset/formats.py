"""One line's object -> an Example, in whichever of the usual shapes it comes, or the reason why not.

OpenAI chat, prompt/completion, Alpaca, ShareGPT, or named columns. It does not know files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graft.dataset.examples import Example
from graft.errors import UsageError
from graft.models import Message
from graft.models.protocol import Role

MAPPED = ("prompt", "answer", "system", "source", "id")
"""What a column can be mapped to."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",  # OpenAI's newer name of it
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
}
_TOOL_ROLES = frozenset({"tool", "function", "function_call", "tool_call", "observation", "tool_response", "ipython"})
_TOOL_KEYS = ("tools", "functions", "tool_calls", "function_call")
_TOOL_FIX = (
    "write the call as the assistant's text, as JSON say, and its result as a user turn; "
    "or take the line out, it is not trained on"
)
_GUESSES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "text", "input", "query", "message", "utterance", "user", "instruction"),
    "answer": (
        "answer",
        "completion",
        "output",
        "response",
        "reply",
        "label",
        "category",
        "intent",
        "class",
        "target",
    ),
    "system": ("system",),
    "source": ("source", "document"),
    "id": ("id",),
}


class BadLine(Exception):
    """A line that is no example: what is wrong, in a code, a message and a fix."""

    def __init__(self, code: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fix = fix


def parse_mapping(text: str) -> dict[str, str]:
    """`prompt=COLUMN,answer=COLUMN[,system=..,source=..,id=..]` as a mapping.

    Raises:
        UsageError: It names something else, or lacks prompt or answer.

    >>> parse_mapping("prompt=text, answer=label")
    {'prompt': 'text', 'answer': 'label'}
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    return checked_mapping({key.strip(): value.strip() for key, _, value in pairs})


def checked_mapping(mapping: Mapping[str, str]) -> dict[str, str]:
    """The mapping itself.

    Raises:
        UsageError: It names something else, or lacks prompt or answer.
    """
    wrong = [key for key, column in mapping.items() if key not in MAPPED or not column]
    if wrong or not {"prompt", "answer"} <= mapping.keys():
        raise UsageError(
            f"a mapping of {', '.join(mapping) or 'nothing'}; it must name prompt and answer, and may name "
            "system, source and id",
            fix="--map prompt=COLUMN,answer=COLUMN",
        )
    return dict(mapping)


def guess_mapping(columns: Sequence[str]) -> dict[str, str] | None:
    """Which columns are meant, by their names; None where no pair of prompt and answer is among them.

    >>> guess_mapping(["text", "category"])
    {'prompt': 'text', 'answer': 'category'}
    """
    by_name = {column.strip().lower(): column for column in columns}
    guessed: dict[str, str] = {}
    for key, names in _GUESSES.items():
        column = next((by_name[name] for name in names if name in by_name), None)
        if column is not None and column not in guessed.values():
            guessed[key] = column
    return guessed if {"prompt", "answer"} <= guessed.keys() else None


def shape_of(line: Mapping[str, Any]) -> str | None:
    """Which of the usual shapes an object has, by its keys; None for no shape that is known."""
    if "messages" in line:
        return "chat"
    if "conversations" in line:
        return "sharegpt"
    if "instruction" in line and "output" in line:
        return "alpaca"
    if "prompt" in line and "completion" in line:
        return "prompt/completion"
    return None


def example_of(line: Mapping[str, Any], *, origin: str, mapping: Mapping[str, str] | None = None) -> Example:
    """Read one object.

    Raises:
        BadLine: It is no example: unknown shape, tool calls, wrong roles, empty turns.

    >>> example_of({"prompt": "2 + 2?", "completion": "4"}, origin="sums.jsonl:1").answer
    '4'
    """
    shape = "mapped" if mapping is not None else shape_of(line)
    if shape is None:
        keys = ", ".join(sorted(map(str, line))[:12]) or "no keys at all"
        fix = "--map prompt=KEY,answer=KEY with two of its keys"
        if {"chosen", "rejected"} <= line.keys():
            fix = 'these are preferences: make {"prompt", "completion"} lines of the chosen answers'
        raise BadLine("format", f"unknown shape, with the keys {keys}; known are {_KNOWN}", fix)
    for key in _TOOL_KEYS:
        if line.get(key):
            raise BadLine("tool-calls", f"it has {key!r}: tools are not supported in training", _TOOL_FIX)
    turns, used = _turns(line, shape, mapping or {})
    _check_turns(turns)
    id_key, source_key = (mapping or {}).get("id", "id"), (mapping or {}).get("source", "source")
    given, source = line.get(id_key), line.get(source_key)
    return Example(
        id=content_id(turns) if given in (None, "") else str(given),
        messages=turns,
        source=None if source in (None, "") else str(source),
        origin=origin,
        extra={key: value for key, value in line.items() if key not in used | {id_key, source_key}},
    )


_KNOWN = '{"messages"}, {"prompt", "completion"}, {"instruction", "output"} and {"conversations"}'


def content_id(messages: Iterable[Message]) -> str:
    """An id made of the content: the same conversation has the same id in every file.

    >>> len(content_id([Message("user", "hello")]))
    16
    """
    told = json.dumps([[message.role, message.content] for message in messages])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _turns(line: Mapping[str, Any], shape: str, mapping: Mapping[str, str]) -> tuple[tuple[Message, ...], set[str]]:
    """The turns, and the keys that went into them."""
    opening = _opening(line, mapping.get("system", "system"))
    used = {mapping.get("system", "system")} if opening else set()
    if shape == "mapped":
        missing = [column for key, column in mapping.items() if key in ("prompt", "answer") and column not in line]
        if missing:
            raise BadLine("columns", f"no {', '.join(map(repr, missing))} among {', '.join(line)}", "correct --map")
        prompt, answer = line[mapping["prompt"]], line[mapping["answer"]]
        if isinstance(answer, list) and answer:  # question files name several good answers, the best first
            answer = answer[0]
        turns = (*opening, Message("user", _text(prompt)), Message("assistant", _text(answer)))
        return turns, used | {mapping["prompt"], mapping["answer"]}
    if shape == "chat":
        turns = (*opening, *_listed(line["messages"], "role", "content"))
        return turns, used | {"messages"}
    if shape == "sharegpt":
        return (*opening, *_listed(line["conversations"], "from", "value")), used | {"conversations"}
    if shape == "alpaca":
        asked = "\n\n".join(filter(None, (_text(line["instruction"]), _text(line.get("input") or ""))))
        turns = (*opening, *_history(line), Message("user", asked), Message("assistant", _text(line["output"])))
        return turns, used | {"instruction", "input", "output", "history"}
    prompt, completion = line["prompt"], line["completion"]
    before = _listed(prompt, "role", "content") if isinstance(prompt, list) else (Message("user", _text(prompt)),)
    after = (
        _listed(completion, "role", "content")
        if isinstance(completion, list)
        else (Message("assistant", _text(completion)),)
    )
    return (*opening, *before, *after), used | {"prompt", "completion"}


def _opening(line: Mapping[str, Any], key: str) -> tuple[Message, ...]:
    system = line.get(key)
    return (Message("system", system),) if isinstance(system, str) and system.strip() else ()


def _history(line: Mapping[str, Any]) -> tuple[Message, ...]:
    """Alpaca's earlier turns: pairs of an instruction and its output."""
    turns: list[Message] = []
    history = line.get("history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise BadLine("format", "history is not a list of [instruction, output] pairs", "correct it")
        turns += [Message("user", _text(pair[0])), Message("assistant", _text(pair[1]))]
    return tuple(turns)


def _listed(turns: Any, role_key: str, text_key: str) -> tuple[Message, ...]:
    if not isinstance(turns, list) or not turns:
        raise BadLine("format", "its turns are not a list, or an empty one", f'[{{"{role_key}", "{text_key}"}}, ...]')
    return tuple(_turn(turn, number, role_key, text_key) for number, turn in enumerate(turns, start=1))


def _turn(turn: Any, number: int, role_key: str, text_key: str) -> Message:
    if not isinstance(turn, dict):
        raise BadLine("format", f"turn {number} is not an object", f'{{"{role_key}": "user", "{text_key}": "..."}}')
    role = turn.get(role_key)
    if (isinstance(role, str) and role in _TOOL_ROLES) or any(turn.get(key) for key in _TOOL_KEYS):
        raise BadLine("tool-calls", f"turn {number} is a tool's: tools are not supported in training", _TOOL_FIX)
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise BadLine(
            "role", f"turn {number} has the role {str(role)[:40]!r}", f'"{role_key}": system, user or assistant'
        )
    return Message(_ROLES[role.lower()], _text(turn.get(text_key), f"turn {number}"))


def _text(value: Any, where: str = "a turn") -> str:
    """Text, a list of text parts, or a plain value as JSON writes it."""
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        kinds = sorted({str(part.get("type")) for part in value})
        if kinds != ["text"]:
            raise BadLine("not-text", f"{where} has parts of {kinds}"[:200], "only text can be learnt")
        value = "\n".join(str(part.get("text", "")) for part in value)
    if isinstance(value, bool) or (value is not None and not isinstance(value, (str, int, float, dict, list))):
        value = json.dumps(value)
    if isinstance(value, (dict, list, int, float)):
        value = json.dumps(value, ensure_ascii=False)
    if value is None:
        raise BadLine("empty-turn", f"{where} has no text", "fill it in, or remove the line")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadLine(
            "not-text", f"{where} has half a character (a lone surrogate) at {error.start}", "write the text again"
        ) from error
    return text


def _check_turns(turns: Sequence[Message]) -> None:
    """Roles in order, none empty, the last one the assistant's."""
    for number, turn in enumerate(turns, start=1):
        if not turn.content.strip():
            raise BadLine("empty-turn", f"turn {number} ({turn.role}) is empty", "fill it in, or remove the line")
    if turns[-1].role != "assistant":
        raise BadLine(
            "last-turn",
            f"the last turn is the {turns[-1].role}'s; the assistant's answer is what is learnt",
            "add the answer, or remove the turns after it",
        )
    spoken = turns[1:] if turns[0].role == "system" else turns
    for number, turn in enumerate(spoken, start=len(turns) - len(spoken)):
        wanted: Role = "user" if (number - (len(turns) - len(spoken))) % 2 == 0 else "assistant"
        if turn.role != wanted:
            raise BadLine(
                "roles-order",
                f"turn {number + 1} is the {turn.role}'s where the {wanted}'s is due",
                "one system turn first at most, then user and assistant by turns; join two of one speaker",
            )
