"""The body of POST /v1/responses -> checked values, and what they ask of the workspace.

It does not know how an answer is made or sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from graft.models import Message
from graft.server.failing import ParameterRefused
from graft.server.parameters import ClosedBook, Grounded, refuse_unsupported
from graft.server.requests import MOST_MESSAGES, Body, Name, WholeBody
from graft.server.vector_store_bodies import FileId

_NO_MATTER = frozenset(
    {"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"}
)
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "background": (False,),
    "conversation": (),
    "max_tool_calls": (),
    "prompt": (),
    "reasoning": ({},),
    "service_tier": ("auto", "default"),
    "stream_options": (),
    "text": ({"format": {"type": "text"}},),
    "tool_choice": ("auto",),
    "top_logprobs": (0,),
    "top_p": (1,),
    "truncation": ("disabled",),
}


class InputText(Body):
    """A part of a message; images, audio and files are not taken."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputMessage(Body):
    """One turn, as it is written or as an earlier response had it."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputText]
    id: str | None = None
    status: str | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class FileSearch(Body):
    """Answer from these vector stores, or collections by their name."""

    type: Literal["file_search"]
    vector_store_ids: Annotated[list[FileId], Field(min_length=1, max_length=10)]
    max_num_results: int | None = Field(default=None, ge=1, le=50, description="Taken; [answering] passages decides.")
    ranking_options: dict[str, Any] | None = Field(default=None, description="Taken; there is one ranker.")
    filters: None = Field(default=None, description="Not supported here; POST /v1/vector_stores/ID/search has them.")


class ResponseRequest(WholeBody):
    """An input to be answered.

    Other parameters of OpenAI's are taken where they change nothing, and refused by name where they would.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    model: Name
    input: (
        Annotated[str, StringConstraints(min_length=1)]
        | Annotated[list[InputMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    )
    instructions: str | None = None
    tools: Annotated[list[FileSearch], Field(max_length=1)] | None = Field(
        default=None, description="file_search: answered from it, and checked; without it by the model alone."
    )
    include: list[str] | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    stream: bool | None = None
    store: bool | None = Field(default=None, description="Kept for previous_response_id, unless false.")
    previous_response_id: FileId | None = None
    metadata: dict[str, str] | None = None

    def messages(self) -> list[Message]:
        """Its own turns."""
        if isinstance(self.input, str):
            return [Message("user", self.input)]
        roles = {"developer": "system"}
        return [Message(roles.get(one.role, one.role), one.text) for one in self.input]  # type: ignore[arg-type]


def asked_of(body: ResponseRequest, before: Sequence[Message]) -> Grounded | ClosedBook:
    """What is asked.

    Args:
        before: The turns of the responses that it goes on from.
    Raises:
        ParameterRefused: A parameter cannot be honoured.
    """
    refuse_unsupported(body.model_extra or {}, _NEUTRAL, _NO_MATTER)
    messages = [*before, *body.messages()]
    if messages[-1].role != "user":
        raise ParameterRefused(
            f"the last turn is the {messages[-1].role}'s; what is to be answered must be the user's",
            param="input",
            fix='end with {"role": "user", "content": "..."}',
        )
    system = [] if body.instructions is None else [Message("system", body.instructions)]
    if not body.tools:
        return ClosedBook(
            model=body.model,
            messages=(*system, *messages),
            most_tokens=body.max_output_tokens,
            temperature=body.temperature,
            stop=(),
            seed=None,
            json_schema=None,
        )
    ignored = bool(system) or any(message.role == "system" for message in messages)
    return Grounded(
        model=body.model,
        question=messages[-1].content,
        history=tuple(message for message in messages[:-1] if message.role != "system"),
        collection=tuple(dict.fromkeys(body.tools[0].vector_store_ids)),
        strict=False,
        most_tokens=body.max_output_tokens,
        temperature=body.temperature,
        notes=("instructions: a grounded answer follows Graft's own",) if ignored else (),
    )
