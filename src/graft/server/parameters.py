"""A chat request -> what is asked of the workspace, or the parameter that cannot be honoured.

A parameter that would change the answer is honoured or refused by name, never dropped. It does not know how
answers are made or sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graft.models import Message, ToolCall, Tools
from graft.server.failing import ParameterRefused
from graft.server.requests import ChatMessage, ChatRequest, ChosenFunction, GraftOptions

_CLOSED_BOOK = 'set extra_body={"graft": {"retrieval": false}}, or leave it out'

_NO_MATTER = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"})
"""Parameters that change no answer, whatever their value."""

_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "web_search_options": (),
}
"""Parameters that are not supported, and their values that ask for nothing; null is always one."""

_NOT_READ = frozenset({"name", "annotations", "graft", "refusal"})
_NEUTRAL_IN_MESSAGE: Mapping[str, Sequence[Any]] = {"function_call": (), "audio": ()}

_SCHEMA_CHARACTERS = 50_000
_SCHEMA_DEPTH = 32
"""A schema becomes a grammar by recursion in native code; what people write stays far below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounded:
    """A question to the documents.

    Attributes:
        most_tokens, temperature, most_hits: None leaves them to the settings.
        documents: Ids of the only ones to look in.
        least_score: Of a hit, from 0 to 1.
        notes: What of the request has no part in the answer.
    """

    model: str
    question: str
    history: tuple[Message, ...]
    collection: str | tuple[str, ...] | None
    strict: bool
    most_tokens: int | None
    temperature: float | None
    notes: tuple[str, ...]
    most_hits: int | None = None
    documents: tuple[str, ...] | None = None
    least_score: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedBook:
    """A conversation with a model alone, as it was sent."""

    model: str
    messages: tuple[Message, ...]
    most_tokens: int | None
    temperature: float | None
    stop: tuple[str, ...]
    seed: int | None
    json_schema: dict[str, Any] | None
    top_logprobs: int | None = None
    tools: Tools | None = None


def asked_of(request: ChatRequest) -> Grounded | ClosedBook:
    """What a chat request asks.

    Raises:
        ParameterRefused: A parameter, or a combination of them, cannot be honoured.
    """
    refuse_unsupported(request.model_extra or {}, _NEUTRAL, _NO_MATTER, at="")
    messages = [_message(number, message) for number, message in enumerate(request.messages)]
    options = request.graft or GraftOptions()
    if options.draft and not (request.stream and options.retrieval):
        raise ParameterRefused(
            "a draft is sent only while a grounded answer is streamed", param="graft.draft", fix="set stream=True"
        )
    if request.top_logprobs and not request.logprobs:
        raise ParameterRefused(
            "top_logprobs are of logprobs", param="top_logprobs", fix="set logprobs=True, or leave them out"
        )
    if request.stream_options is not None and not request.stream:
        raise ParameterRefused(
            "stream_options are for streams only", param="stream_options", fix="set stream=True, or leave them out"
        )
    return (_grounded if options.retrieval else _closed_book)(request, messages, options)


def _grounded(request: ChatRequest, messages: Sequence[Message], options: GraftOptions) -> Grounded:
    _refuse_ungrounded(request, messages)
    last = messages[-1]
    if last.role != "user":
        raise ParameterRefused(
            f"the last message is the {last.role}'s; the question to be answered must be the user's",
            param=f"messages[{len(messages) - 1}].role",
            fix='end with {"role": "user", "content": "..."}',
        )
    temperature = request.temperature
    if request.stop:
        raise ParameterRefused("a checked answer is not cut at stop texts", param="stop", fix=_CLOSED_BOOK)
    if request.seed and temperature:
        raise ParameterRefused("grounded answers are made with seed 0", param="seed", fix=_CLOSED_BOOK)
    if request.response_format is not None and request.response_format.type != "text":
        raise ParameterRefused(
            "a grounded answer is text with citations", param="response_format.type", fix=_CLOSED_BOOK
        )
    instructions = [f"messages[{n}]" for n, message in enumerate(messages) if message.role == "system"]
    notes = (
        (f"{', '.join(instructions)}: a grounded answer follows Graft's own instructions",) if instructions else ()
    )
    return Grounded(
        model=request.model,
        question=last.content,
        history=tuple(message for message in messages[:-1] if message.role != "system"),
        collection=options.collection,
        strict=options.strict,
        most_tokens=_most_tokens(request),
        temperature=temperature,
        notes=notes,
    )


def _refuse_ungrounded(request: ChatRequest, messages: Sequence[Message]) -> None:
    if request.logprobs:
        raise ParameterRefused("a checked answer has no log-probabilities", param="logprobs", fix=_CLOSED_BOOK)
    if request.tools and request.tool_choice != "none":
        raise ParameterRefused("a grounded answer calls no tools", param="tools", fix=_CLOSED_BOOK)
    for number, message in enumerate(messages):
        if message.role == "tool" or message.tool_calls:
            part = "role" if message.role == "tool" else "tool_calls"
            raise ParameterRefused(
                "a grounded answer calls no tools", param=f"messages[{number}].{part}", fix=_CLOSED_BOOK
            )


def _closed_book(request: ChatRequest, messages: Sequence[Message], options: GraftOptions) -> ClosedBook:
    for name, value in (("collection", options.collection), ("strict", options.strict)):
        if value:
            raise ParameterRefused(
                "without retrieval nothing is searched or checked", param=f"graft.{name}", fix="leave it out"
            )
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return ClosedBook(
        model=request.model,
        messages=tuple(messages),
        most_tokens=_most_tokens(request),
        temperature=request.temperature,
        stop=tuple(stop),
        seed=request.seed,
        json_schema=_schema(request),
        top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        tools=_tools(request),
    )


def _tools(request: ChatRequest) -> Tools | None:
    chosen = request.tool_choice
    names = [one.function.name for one in request.tools or ()]
    wanted = chosen.function.name if isinstance(chosen, ChosenFunction) else None
    if (chosen == "required" and not names) or (wanted is not None and wanted not in names):
        raise ParameterRefused(
            f"tool_choice asks for {wanted or 'a tool'}; tools has {', '.join(names) or 'none'}",
            param="tool_choice",
            fix='name one of tools, or tool_choice="auto"',
            code="invalid_value",
        )
    if not request.tools:
        return None
    for number, tool in enumerate(request.tools):
        checked_schema(tool.function.parameters or {}, param=f"tools[{number}].function.parameters")
    return Tools(
        tuple(tool.model_dump(exclude_none=True) for tool in request.tools),
        choice=chosen.model_dump() if isinstance(chosen, ChosenFunction) else chosen,
        parallel=request.parallel_tool_calls,
    )


def _message(number: int, message: ChatMessage) -> Message:
    at = f"messages[{number}]"
    refuse_unsupported(message.model_extra or {}, _NEUTRAL_IN_MESSAGE, _NOT_READ, at=f"{at}.")
    if message.content is None and message.role != "assistant":
        raise ParameterRefused(
            f"{at} has no content", param=f"{at}.content", fix="give it text", code="invalid_value"
        )
    calls = message.tool_calls or ()
    for name, value, role in (("tool_calls", calls, "assistant"), ("tool_call_id", message.tool_call_id, "tool")):
        if value and message.role != role:
            raise ParameterRefused(
                f"{at} is the {message.role}'s, and {name} the {role}'s", param=f"{at}.{name}", fix="leave it out"
            )
    if message.role == "tool" and not message.tool_call_id:
        raise ParameterRefused(
            f"{at} answers no call",
            param=f"{at}.tool_call_id",
            fix="give it the id of the call that it answers",
            code="missing_required_parameter",
        )
    return Message(
        "system" if message.role == "developer" else message.role,
        message.text,
        tool_calls=tuple(ToolCall(one.id, one.function.name, one.function.arguments) for one in calls),
        tool_call_id=message.tool_call_id,
    )


def refuse_unsupported(
    given: Mapping[str, Any], neutral: Mapping[str, Sequence[Any]], no_matter: frozenset[str], *, at: str = ""
) -> None:
    """Refuse what would change the answer.

    Args:
        neutral: Parameters that are not supported, and their values that ask for nothing.
        no_matter: Parameters that change no answer.
        at: Where they stand.
    Raises:
        ParameterRefused: The first that cannot be honoured.
    """
    for name, value in given.items():
        if name in no_matter or (name in neutral and (value is None or value in neutral[name])):
            continue
        param = f"{at}{name}"[:200]
        if name not in neutral:
            raise ParameterRefused(
                f"unknown parameter: {param}", param=param, fix="leave it out", code="unknown_parameter"
            )
        raise ParameterRefused(
            f"{param} is not supported" + (", other than by its neutral value" if neutral[name] else ""),
            param=param,
            fix="leave it out",
            code="unsupported_parameter",
        )


def _most_tokens(request: ChatRequest) -> int | None:
    if request.max_tokens is not None and request.max_completion_tokens not in (None, request.max_tokens):
        raise ParameterRefused(
            "max_tokens is the older name of max_completion_tokens, and they differ",
            param="max_tokens",
            fix="give one of them",
        )
    return request.max_completion_tokens or request.max_tokens


def _schema(request: ChatRequest) -> dict[str, Any] | None:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.json_schema is None:
        raise ParameterRefused(
            "a schema is missing",
            param="response_format.json_schema",
            fix='{"name": "...", "schema": {...}}',
            code="missing_required_parameter",
        )
    return checked_schema(wanted.json_schema.schema_, param="response_format.json_schema.schema")


def checked_schema(schema: dict[str, Any], *, param: str) -> dict[str, Any]:
    """A schema that can become a grammar.

    Raises:
        ParameterRefused: It is too large, or too deep.
    """
    if len(json.dumps(schema)) > _SCHEMA_CHARACTERS or _depth(schema) > _SCHEMA_DEPTH:
        raise ParameterRefused(
            f"the schema is over {_SCHEMA_CHARACTERS:,} characters or {_SCHEMA_DEPTH} levels",
            param=param,
            fix="make it smaller",
        )
    return schema


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)
