"""What each route answers, in OpenAI's names; what Graft adds stands under `graft`.

It does not know how an answer is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, Field

from graft.answering import AnswerLatency, Mode
from graft.citing import Citation
from graft.models import TokenScore
from graft.retrieval import Hit, SearchLatency


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether a question would be answered now."""

    ready: bool
    problems: list[str]


class ModelPart(BaseModel):
    """What Graft knows of a model; None where it does not know."""

    kind: str = Field(description='"chat" or "embedder".')
    licence: str
    context_tokens: int | None
    size_bytes: int | None
    about: str


class ModelObject(BaseModel):
    """A model that can be named in a request."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(default=0, description="Not known: always 0.")
    owned_by: str
    graft: ModelPart


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class UrlCitation(BaseModel):
    """What a statement of the answer rests on, as OpenAI's clients know it."""

    start_index: int = Field(description="Of the statement in the answer's content.")
    end_index: int
    title: str = Field(description="The document's name.")
    url: str = Field(description="The document's own URL, else graft:DOCUMENT/VERSION#START-END.")


class Annotation(BaseModel):
    """A citation that holds, at least in part; `graft.citations` has all, with verdicts."""

    type: Literal["url_citation"]
    url_citation: UrlCitation


class GraftPart(BaseModel):
    """The proof of an answer: how it came about, each statement's citation and verdict, the hits."""

    mode: Mode
    reason: str
    question: str = Field(description="As it was searched, a follow-up made standalone.")
    draft: str = Field(description="What the model wrote before the check.")
    citations: list[Citation]
    hits: list[Hit]
    latency_ms: AnswerLatency
    cost_usd: float | None = Field(description="None where the price is unknown.")
    notes: list[str] = Field(description="What of the request had no part in the answer, and why.")


class DraftPart(BaseModel):
    """A piece of the unchecked draft."""

    draft: str


class Tokens(BaseModel):
    """Tokens, as the model counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


FinishReason = Literal["stop", "length", "tool_calls"]


class TopScore(BaseModel):
    """A token and its natural log-probability."""

    token: str
    logprob: float
    bytes: list[int] | None


class Score(TopScore):
    """A token of the answer, with the likeliest in its place."""

    top_logprobs: list[TopScore]


class Scores(BaseModel):
    """The answer's tokens."""

    content: list[Score]
    refusal: None = None


class FunctionCall(BaseModel):
    """A function's name, and its arguments as JSON: all of it, or a stream's piece."""

    name: str | None = None
    arguments: str


class ToolCallPart(BaseModel):
    """What is to be done, to be answered by a message of role `tool`."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ToolCallDelta(BaseModel):
    """A piece of a call."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCall


def scores_of(scores: Iterable[TokenScore]) -> Scores:
    """As OpenAI writes them."""
    return Scores(
        content=[
            Score(
                token=one.token,
                logprob=one.logprob,
                bytes=None if one.bytes is None else list(one.bytes),
                top_logprobs=[
                    TopScore(token=t.token, logprob=t.logprob, bytes=None if t.bytes is None else list(t.bytes))
                    for t in one.top
                ],
            )
            for one in scores
        ]
    )


class AssistantMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    annotations: list[Annotation]
    tool_calls: list[ToolCallPart] | None = None


class Choice(BaseModel):
    """The only one."""

    index: Literal[0] = 0
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: Scores | None = None


class ChatCompletion(BaseModel):
    """A conversation's next turn."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Tokens
    graft: GraftPart


class Delta(BaseModel):
    """What a chunk adds to the message; what is not set is not sent."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    annotations: list[Annotation] | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(BaseModel):
    """The only one."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None
    logprobs: Scores | None = None


class Chunk(BaseModel):
    """One event of a stream."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Tokens | None = None
    graft: GraftPart | DraftPart | None = None


class Embedding(BaseModel):
    """One text's vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens of all texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """Vectors in the texts' order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class SearchReply(BaseModel):
    """Hits, best first; the same object that `graft search --json` prints."""

    hits: list[Hit]
    latency_ms: SearchLatency
