"""What is asked -> a finished turn, by the workspace's own verbs, in a thread.

Both ways end in one `Turn`, so that streams and whole replies cannot differ. It does not know HTTP.
"""

from __future__ import annotations

import copy
import re
import secrets
import threading
from contextlib import closing
from dataclasses import dataclass, replace

from graft.answering import Answer, AnswerLatency, Mode
from graft.models import GenerateOptions, Model, Reply, TokenScore, ToolCall, Usage, drain, generate
from graft.server.failing import NoSuchModel
from graft.server.lanes import Tell, Work
from graft.server.parameters import ClosedBook, Grounded
from graft.server.replies import Annotation, FinishReason, GraftPart, UrlCitation
from graft.workspace import Workspace

CLOSED_BOOK_TOKENS = 1024
"""Most tokens of a closed-book reply where the request does not say; small models do not always find an end."""

_HOSTED = re.compile(r"litellm(/[A-Za-z0-9_][A-Za-z0-9_.:@+-]*){2,5}")
"""Names of hosted models, never an address: a name cannot send the server somewhere."""

_OPENING = threading.Lock()
"""Two requests at once for a model that is not open yet would each load its weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A finished answer, whichever way it was made."""

    text: str
    model: str
    finish_reason: FinishReason
    usage: Usage
    annotations: tuple[Annotation, ...]
    graft: GraftPart
    scores: tuple[TokenScore, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()


def turn_of(asked: Grounded | ClosedBook, workspace: Workspace) -> Work[Turn]:
    """The call that answers; it tells the draft's pieces, and stops when telling fails."""
    if isinstance(asked, Grounded):
        return lambda tell: _grounded(asked, workspace, tell)
    return lambda tell: _closed_book(asked, workspace, tell)


def chat_model(workspace: Workspace, name: str) -> Model:
    """An open model by a name from outside: one of `Workspace.models`, or a hosted one; never a path.

    Raises:
        NoSuchModel: None of these, or its weights are not here.
    """
    if not _HOSTED.fullmatch(name):
        listed = {model.name: model for model in workspace.models() if model.kind == "chat"}
        if name not in listed:
            ready = ", ".join(model.name for model in listed.values() if model.ready)
            raise NoSuchModel(f"no model named {name!r}; have {ready}, litellm/PROVIDER/MODEL", fix="GET /v1/models")
        if not listed[name].ready:
            raise NoSuchModel(f"the weights of {name!r} are not here", fix=f"graft models pull {name}")
    with _OPENING:
        return workspace.model(name)


def _grounded(asked: Grounded, workspace: Workspace, tell: Tell) -> Turn:
    model = chat_model(workspace, asked.model)
    answering = workspace.settings.answering
    if asked.temperature is not None:
        answering = replace(answering, temperature=asked.temperature)
    if asked.most_tokens is not None:  # a limit may be larger than there is room for: half is kept for the sources
        answering = replace(answering, answer_tokens=min(asked.most_tokens, model.context_tokens // 2))
    asking = copy.copy(workspace)  # the same open store, embedder and models under this request's settings
    asking.settings = replace(workspace.settings, answering=answering)
    if asked.most_hits is not None:
        asking.settings = replace(
            asking.settings, retrieval=replace(workspace.settings.retrieval, top_k=asked.most_hits)
        )
    stream = asking.ask_stream(
        asked.question,
        model=asked.model,
        strict=asked.strict,
        collection=asked.collection,
        documents=asked.documents,
        least_score=asked.least_score,
        history=asked.history,
    )
    with closing(stream):
        answer = drain(stream, tell)
    return Turn(
        text=answer.text,
        model=answer.model,
        finish_reason=_finish_reason(answer, asked, answering.answer_tokens),
        usage=answer.usage,
        annotations=_annotations(answer),
        graft=GraftPart(
            mode=answer.mode,
            reason=answer.reason,
            question=answer.question,
            draft=answer.draft,
            citations=list(answer.citations),
            hits=list(answer.hits),
            latency_ms=answer.latency_ms,
            cost_usd=answer.cost_usd,
            notes=list(asked.notes),
        ),
    )


def _closed_book(asked: ClosedBook, workspace: Workspace, tell: Tell) -> Turn:
    model = chat_model(workspace, asked.model)
    settings = workspace.settings.answering
    temperature = settings.temperature if asked.temperature is None else asked.temperature
    most = asked.most_tokens
    if most is None:
        most = max(1, min(CLOSED_BOOK_TOKENS, model.context_tokens - model.count_tokens(asked.messages)))
    options = GenerateOptions(
        max_tokens=most,
        temperature=temperature,
        stop=asked.stop,
        seed=_seed(asked.seed, temperature),
        json_schema=asked.json_schema,
        top_logprobs=asked.top_logprobs,
        tools=asked.tools,
    )
    with closing(generate(model, asked.messages, options)) as stream:
        reply = drain(stream, tell)
    return Turn(
        text=reply.text,
        model=model.name,
        finish_reason=_reason(reply),
        usage=reply.usage,
        annotations=(),
        graft=GraftPart(
            mode=Mode.CLOSED_BOOK,
            reason="",
            question=next((m.content for m in reversed(asked.messages) if m.role == "user"), ""),
            draft=reply.text,
            citations=[],
            hits=[],
            latency_ms=AnswerLatency(0.0, round(reply.first_token_ms, 1), 0.0, round(reply.total_ms, 1)),
            cost_usd=reply.cost_usd,
            notes=[],
        ),
        scores=None if asked.top_logprobs is None else reply.scores,
        tool_calls=reply.tool_calls,
    )


def _reason(reply: Reply) -> FinishReason:
    if reply.tool_calls:
        return "tool_calls"
    return "length" if reply.finish_reason == "length" else "stop"


def _seed(seed: int | None, temperature: float) -> int:
    """The one given; else, where chance has a part, another each time."""
    if seed is not None:
        return seed
    return secrets.randbelow(2**31) if temperature > 0 else 0


def _finish_reason(answer: Answer, asked: Grounded, most_tokens: int) -> FinishReason:
    """Whether the model's own words, if they are the answer, were ended by the limit.

    With a history the usage counts the follow-up's rewriting too, so that the limit cannot be told from it;
    the text then ends with a whole sentence in any case.
    """
    cut_off = answer.mode is Mode.GENERATED and not asked.history and answer.usage.output_tokens >= most_tokens
    return "length" if cut_off else "stop"


def _annotations(answer: Answer) -> tuple[Annotation, ...]:
    found = []
    for citation in answer.citations:
        if citation.verdict == "unsupported" or citation.document is None:
            continue
        where = f"graft:{citation.document_id}/{citation.version}#{citation.start}-{citation.end}"
        is_url = citation.document.startswith(("https://", "http://"))
        found.append(
            Annotation(
                type="url_citation",
                url_citation=UrlCitation(
                    start_index=citation.claim_start,
                    end_index=citation.claim_end,
                    title=citation.document,
                    url=citation.document if is_url else where,
                ),
            )
        )
    return tuple(found)
