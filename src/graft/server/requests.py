"""JSON bodies -> checked values: what each route takes, in OpenAI's names.

A value of the wrong type is refused, never converted. It does not know what is done with them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MOST_MESSAGES = 2_000
MOST_TOOLS = 128
"""Of one request; OpenAI's own limit."""
MOST_INPUTS = 2_048
"""Texts of one request for embeddings; OpenAI's own limit."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Body(BaseModel):
    """Exactly these parameters."""

    model_config = ConfigDict(strict=True, extra="forbid")


class WholeBody(Body):
    """The body of a request."""

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, body: Any) -> Any:
        r"""JSON can hold halves of characters ("\ud800"), which are no text and would fail far below."""
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text in the body holds half of a surrogate pair") from None
        except (RecursionError, TypeError):  # nested too deeply; or bytes, which the fields themselves refuse
            if isinstance(body, dict):
                raise ValueError("the body is nested too deeply") from None
        return body


class TextPart(Body):
    """A part of a message; images, audio and files are not taken."""

    type: Literal["text"]
    text: str


class CalledFunction(Body):
    """A function's name, and its arguments as JSON."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    arguments: str


class CalledTool(Body):
    """What an earlier answer wanted done."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    type: Literal["function"]
    function: CalledFunction


class FunctionSpec(Body):
    """A function that a model may ask for."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Body):
    """The only kind of tool."""

    type: Literal["function"]
    function: FunctionSpec


class ChosenName(Body):
    """One of the functions."""

    name: str


class ChosenFunction(Body):
    """The function that must be asked for."""

    type: Literal["function"]
    function: ChosenName


class ChatMessage(BaseModel):
    """One turn. What a client sends back of an earlier answer (annotations, graft, refusal) is not read."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    tool_calls: list[CalledTool] | None = Field(default=None, description="Of an assistant's turn.")
    tool_call_id: str | None = Field(default=None, description="Of a tool's turn: the call that it answers.")

    @property
    def text(self) -> str:
        """All of its text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Body):
    """Of a stream."""

    include_usage: bool | None = Field(default=None, description="Send the tokens in a last chunk before [DONE].")
    include_obfuscation: Literal[False] | None = None


class JsonSchema(Body):
    """A form that the answer must have."""

    name: str
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """`text`, `json_object`, or `json_schema` with its schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class GraftOptions(Body):
    """What Graft adds; `extra_body={"graft": {...}}` in OpenAI's Python client."""

    retrieval: bool = Field(default=True, description="Answer from the documents; false asks the model alone.")
    collection: Name | None = Field(default=None, description="Only from this collection.")
    strict: bool = Field(default=False, description="Leave out every statement that is not supported.")
    draft: bool = Field(
        default=False,
        description="While streaming, also send the model's unchecked draft, as chunks with graft.draft.",
    )


class ChatRequest(WholeBody):
    """A conversation to be continued.

    Other parameters of OpenAI's are taken where they change nothing (n = 1, tools = [], ...) and refused by
    name where they would.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    model: Name = Field(description="An id of /v1/models, or litellm/PROVIDER/MODEL.")
    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_tokens: int | None = Field(
        default=None, ge=1, le=1_000_000, description="The older name of max_completion_tokens."
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="Default: [answering] temperature.")
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = Field(
        default=None, description="Only where graft.retrieval is false."
    )
    seed: int | None = Field(
        default=None, ge=0, lt=2**32, description="Grounded answers are always made with seed 0."
    )
    response_format: ResponseFormat | None = Field(
        default=None, description="Other than text only where graft.retrieval is false."
    )
    logprobs: bool | None = Field(default=None, description="Only where graft.retrieval is false.")
    top_logprobs: int | None = Field(default=None, ge=0, le=20, description="With logprobs: the likeliest tokens.")
    tools: Annotated[list[FunctionTool], Field(max_length=MOST_TOOLS)] | None = Field(
        default=None, description="Passed to hosted models, where graft.retrieval is false."
    )
    tool_choice: Literal["none", "auto", "required"] | ChosenFunction | None = None
    parallel_tool_calls: bool | None = None
    graft: GraftOptions | None = None


class EmbeddingRequest(WholeBody):
    """Texts to be turned into vectors."""

    model: Name = Field(description="The embedder of the settings: the one of /v1/models that is an embedder.")
    input: str | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, description="Only the embedder's own number.")
    user: str | None = None


class SearchRequest(WholeBody):
    """A question to find passages for."""

    query: str
    k: int | None = Field(default=None, description="Most hits; default: [retrieval] top_k.")
    collection: Name | None = Field(default=None, description="Only this collection.")
