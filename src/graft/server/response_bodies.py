"""The body of POST /v1/responses -> checked values, and what they ask of the workspace.

It does not know how an answer is made or sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from graft.models import Message
from graft.server.failing import ParameterRefused
from graft.server.items import InputItem, InputMessage, as_kept
from graft.server.parameters import ClosedBook, Grounded, checked_schema, refuse_unsupported
from graft.server.requests import MOST_MESSAGES, Body, Name, WholeBody
from graft.server.vector_store_bodies import Comparison, Compound, FileId, Metadata, RankingOptions

_NO_MATTER = frozenset(
    {"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls"}
)
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "max_tool_calls": (),
    "prompt": (),
    "reasoning": ({},),
    "service_tier": ("auto", "default"),
    "stream_options": (),
    "top_logprobs": (0,),
    "top_p": (1,),
    "truncation": ("disabled",),
}


class FileSearch(Body):
    """Answer from these vector stores, or collections by their name."""

    type: Literal["file_search"]
    vector_store_ids: Annotated[list[FileId], Field(min_length=1, max_length=10)]
    max_num_results: int | None = Field(
        default=None,
        ge=1,
        le=50,
        description="Most passages found; [answering] passages of them are put to the model.",
    )
    ranking_options: RankingOptions | None = None
    filters: Comparison | Compound | None = Field(default=None, description="Of the attributes of files.")


class ChosenTool(Body):
    """The tool that must be used."""

    type: Literal["file_search"]


class TextFormat(Body):
    """`text`, `json_object`, or `json_schema` with its schema; other than text only where nothing is searched."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(Body):
    """Of the answer's text."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ConversationRef(Body):
    """A conversation by its id."""

    id: FileId


class ResponseRequest(WholeBody):
    """An input to be answered.

    Other parameters of OpenAI's are taken where they change nothing, and refused by name where they would.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    model: Name
    input: (
        Annotated[str, StringConstraints(min_length=1)]
        | Annotated[list[InputItem], Field(min_length=1, max_length=MOST_MESSAGES)]
    )
    instructions: str | None = None
    tools: Annotated[list[FileSearch], Field(max_length=1)] | None = Field(
        default=None, description="file_search: answered from it, and checked; without it by the model alone."
    )
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = Field(
        default=None, description="none asks the model alone; a tool that is given is used in any other case."
    )
    text: TextOptions | None = None
    include: list[str] | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    stream: bool | None = None
    background: bool | None = Field(default=None, description="Answered at once, to be polled; not as a stream.")
    store: bool | None = Field(
        default=None, description="Kept, for previous_response_id and in its conversation, unless false."
    )
    previous_response_id: FileId | None = None
    conversation: FileId | ConversationRef | None = Field(
        default=None, description="Its items come before the input; input and output are added to it."
    )
    metadata: Metadata | None = None

    @property
    def searches(self) -> FileSearch | None:
        """The tool that is used, if any."""
        return self.tools[0] if self.tools and self.tool_choice != "none" else None

    @property
    def conversation_id(self) -> str | None:
        """The conversation that it is part of."""
        return self.conversation.id if isinstance(self.conversation, ConversationRef) else self.conversation

    def items(self) -> list[dict[str, Any]]:
        """Its own items as they are kept, under new ids each time."""
        given = [InputMessage(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        return [as_kept(item) for item in given]


def refuse_contradictions(body: ResponseRequest) -> None:
    """Refuse parameters that cannot be honoured together, before anything is looked up.

    Raises:
        ParameterRefused: Names one of them.
    """
    refuse_unsupported(body.model_extra or {}, _NEUTRAL, _NO_MATTER)
    if body.previous_response_id is not None and body.conversation is not None:
        raise ParameterRefused(
            "previous_response_id and conversation are both given; a response goes on from one of them",
            param="previous_response_id",
            fix="leave one of them out",
            code="mutually_exclusive_parameters",
        )
    if body.background and body.store is False:
        raise ParameterRefused(
            "a background response is polled, so it must be kept", param="background", fix="leave out store=False"
        )
    if body.background and body.stream:
        raise ParameterRefused(
            "a background response is polled, not streamed", param="background", fix="leave out stream or background"
        )
    if body.tool_choice not in (None, "auto", "none") and not body.tools:
        raise ParameterRefused(
            "tool_choice asks for a tool, and none is given",
            param="tool_choice",
            fix='tools=[{"type": "file_search", "vector_store_ids": ["vs_..."]}]',
        )
    if body.searches is not None and _format_of(body).type != "text":
        raise ParameterRefused(
            "an answer from file_search is text with citations", param="text.format.type", fix="leave out one of them"
        )


def asked_of(
    body: ResponseRequest, turns: Sequence[Message], documents: tuple[str, ...] | None
) -> Grounded | ClosedBook:
    """What is asked.

    Args:
        turns: Those that it goes on from, and its own.
        documents: Ids of the only ones to look in; None where all of the stores' are searched.
    Raises:
        ParameterRefused: A parameter cannot be honoured.
    """
    if not turns or turns[-1].role != "user":
        raise ParameterRefused(
            f"the last turn is {f'the {turns[-1].role}' if turns else 'nobody'}'s; what is to be answered must be "
            "the user's",
            param="input",
            fix='end with {"role": "user", "content": "..."}',
        )
    system = [] if body.instructions is None else [Message("system", body.instructions)]
    tool = body.searches
    if tool is None:
        return ClosedBook(
            model=body.model,
            messages=(*system, *turns),
            most_tokens=body.max_output_tokens,
            temperature=body.temperature,
            stop=(),
            seed=None,
            json_schema=_schema_of(_format_of(body)),
        )
    ignored = bool(system) or any(message.role == "system" for message in turns)
    return Grounded(
        model=body.model,
        question=turns[-1].content,
        history=tuple(message for message in turns[:-1] if message.role != "system"),
        collection=tuple(dict.fromkeys(tool.vector_store_ids)),
        strict=False,
        most_tokens=body.max_output_tokens,
        temperature=body.temperature,
        notes=("instructions: a grounded answer follows Graft's own",) if ignored else (),
        most_hits=tool.max_num_results,
        documents=documents,
        least_score=0.0 if tool.ranking_options is None else tool.ranking_options.score_threshold,
    )


def _format_of(body: ResponseRequest) -> TextFormat:
    return (None if body.text is None else body.text.format) or TextFormat(type="text")


def _schema_of(wanted: TextFormat) -> dict[str, Any] | None:
    if wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.schema_ is None:
        raise ParameterRefused(
            "a schema is missing",
            param="text.format.schema",
            fix='{"type": "json_schema", "name": "...", "schema": {...}}',
            code="missing_required_parameter",
        )
    return checked_schema(wanted.schema_, param="text.format.schema")
