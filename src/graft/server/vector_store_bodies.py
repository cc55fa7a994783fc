"""Bodies of /v1/vector_stores -> checked values, in OpenAI's names; attribute filters -> a test of attributes.

It does not know what is done with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from graft.server.requests import Body, WholeBody

MOST_FILES = 500
_MOST_KEYS = 16
_DEEPEST = 8

Key = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Value = Annotated[str, StringConstraints(max_length=512)] | bool | int | float
Metadata = Annotated[dict[Key, Annotated[str, StringConstraints(max_length=512)]], Field(max_length=_MOST_KEYS)]
Attributes = Annotated[dict[Key, Value], Field(max_length=_MOST_KEYS)]
FileId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Query = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


class AutoChunking(Body):
    """As [chunking] of the settings."""

    type: Literal["auto"]


class ChunkSizes(Body):
    """Tokens of the embedder. A chunk is never larger than what the embedder reads."""

    max_chunk_size_tokens: int = Field(ge=100, le=4096)
    chunk_overlap_tokens: int = Field(ge=0, le=2048, description="Where a paragraph must be cut, and nowhere else.")

    @model_validator(mode="after")
    def _overlaps_by_half_at_most(self) -> Self:
        if self.chunk_overlap_tokens > self.max_chunk_size_tokens // 2:
            raise ValueError("chunk_overlap_tokens is over half of max_chunk_size_tokens")
        return self


class StaticChunking(Body):
    """Chunks of a size of one's own."""

    type: Literal["static"]
    static: ChunkSizes


Chunking = AutoChunking | StaticChunking


class ExpiresAfter(Body):
    """Days since it was last used."""

    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class NewVectorStore(WholeBody):
    """A vector store, and the files to begin with."""

    name: Annotated[str, StringConstraints(max_length=256)] | None = None
    description: str | None = None
    file_ids: Annotated[list[FileId], Field(max_length=MOST_FILES)] | None = None
    metadata: Metadata | None = None
    expires_after: ExpiresAfter | None = None
    chunking_strategy: Chunking | None = None


class ChangedVectorStore(WholeBody):
    """What is to be otherwise."""

    name: Annotated[str, StringConstraints(max_length=256)] | None = None
    metadata: Metadata | None = None
    expires_after: ExpiresAfter | None = None


class NewMember(WholeBody):
    """A file to be put into a vector store."""

    file_id: FileId
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None


class ChangedMember(WholeBody):
    """Other attributes."""

    attributes: Attributes | None


class NewBatch(WholeBody):
    """Files to be put into a vector store together."""

    file_ids: Annotated[list[FileId], Field(min_length=1, max_length=MOST_FILES)] | None = None
    files: Annotated[list[NewMember], Field(min_length=1, max_length=MOST_FILES)] | None = None
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None

    @model_validator(mode="after")
    def _names_its_files_one_way(self) -> Self:
        if (self.file_ids is None) == (self.files is None):
            raise ValueError("give file_ids or files, one of them")
        return self

    def members(self) -> list[NewMember]:
        """Each file with its own attributes and chunking; those of the batch where it has file_ids."""
        return self.files or [
            NewMember.model_construct(  # each value has been checked
                file_id=id, attributes=self.attributes, chunking_strategy=self.chunking_strategy
            )
            for id in self.file_ids or ()
        ]


class Comparison(Body):
    """An attribute held against a value."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: Key
    value: Value | Annotated[list[Value], Field(max_length=100)]


class Compound(Body):
    """Several filters, all or any of which hold."""

    type: Literal["and", "or"]
    filters: Annotated[list[Comparison | Compound], Field(min_length=1, max_length=50)]


class RankingOptions(BaseModel):
    """`score_threshold` is of Graft's fused score; the ranker is always the same."""

    ranker: str | None = None
    score_threshold: float = Field(default=0.0, ge=0, le=1)


class VectorSearch(WholeBody):
    """One question, or several whose results are joined."""

    query: Query | Annotated[list[Query], Field(min_length=1, max_length=10)]
    max_num_results: int = Field(default=10, ge=1, le=50)
    filters: Comparison | Compound | None = None
    ranking_options: RankingOptions | None = None
    rewrite_query: bool = Field(default=False, description="Let the usual model shorten it to what is sought.")


def sizes_of(given: AutoChunking | StaticChunking | None) -> tuple[int, int] | None:
    """Tokens of a chunk and of an overlap; None leaves them to the settings."""
    if not isinstance(given, StaticChunking):
        return None
    return given.static.max_chunk_size_tokens, given.static.chunk_overlap_tokens


def test_of(given: Comparison | Compound | None, *, depth: int = 0) -> Callable[[Mapping[str, Any]], bool] | None:
    """Attributes -> whether the filter keeps them; None where there is no filter.

    Raises:
        ValueError: It is nested too deeply.

    >>> keeps = test_of(Comparison(type="gte", key="year", value=2020))
    >>> keeps({"year": 2024}), keeps({"year": "2024"}), keeps({})
    (True, False, False)
    """
    if given is None:
        return None
    if depth > _DEEPEST:
        raise ValueError(f"filters are nested more than {_DEEPEST} deep")
    if isinstance(given, Compound):
        tests = [test_of(one, depth=depth + 1) for one in given.filters]
        joined = all if given.type == "and" else any
        return lambda attributes: joined(test(attributes) for test in tests if test is not None)
    return lambda attributes: _holds(given, attributes.get(given.key))


def _holds(comparison: Comparison, found: Any) -> bool:
    wanted = comparison.value
    if comparison.type in ("in", "nin"):
        return (found in wanted if isinstance(wanted, list) else found == wanted) == (comparison.type == "in")
    if comparison.type in ("eq", "ne"):
        return bool(found == wanted) == (comparison.type == "eq")
    if isinstance(found, str) != isinstance(wanted, str) or found is None or isinstance(wanted, list):
        return False
    less, more = bool(found < wanted), bool(found > wanted)
    return {"gt": more, "gte": not less, "lt": less, "lte": not more}[comparison.type]
