"""What goes into and comes out of making questions from documents, and how a question is written to files.

It does not know how questions are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graft.access import Principals
from graft.dataset.examples import Example
from graft.dataset.passages import Place
from graft.embedding import Embedder
from graft.models import Message, Model
from graft.settings import RetrievalSettings
from graft.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars for a million tokens."""

    input_usd: float
    output_usd: float

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """US dollars for so many.

        >>> Price(input_usd=1.0, output_usd=2.0).of(500_000, 250_000)
        1.0
        """
        return (input_tokens * self.input_usd + output_tokens * self.output_usd) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where questions come from, and who writes them.

    Attributes:
        price: Of the model's tokens: for the estimate, and for replies that do not say what they cost.
    """

    store: Store
    embedder: Embedder
    model: Model
    principals: Principals
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    collection: str | None = None
    price: Price | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run will take, before it starts.

    Attributes:
        passages: In the collection; `tried` of them are expected to be needed.
        calls: Of the model, two for a question that passes.
        cost_usd: None where the price is unknown.
        seconds: None where no speed was measured.
    """

    passages: int
    tried: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question made from a document.

    Attributes:
        place: The passage it was made from.
        start, end: Range of the evidence in that version's text; `quote` is exactly that range.
        retrieved: Rank from 1 at which retrieval finds the evidence by this question; None: not at all.
    """

    id: str
    question: str
    answer: str
    place: Place
    start: int
    end: int
    quote: str
    retrieved: int | None
    model: str

    def line(self) -> dict[str, Any]:
        """As a line of a question file."""
        return {
            "id": self.id,
            "question": self.question,
            "answers": [self.answer],
            "kind": "short",
            "evidence": [self._evidence()],
            "source": self.place.document_id,
            "retrieved": self.retrieved,
            "generated_by": self.model,
        }

    def example(self) -> Example:
        """As an example to learn from; its source is the document, so that it stays on one side of a split."""
        return Example(
            id=self.id,
            messages=(Message("user", self.question), Message("assistant", self.answer)),
            source=self.place.document_id,
            origin=f"{self.place.document}:{self.start}-{self.end}",
            extra={
                "kind": "short",
                "evidence": [self._evidence()],
                "retrieved": self.retrieved,
                "generated_by": self.model,
            },
        )

    def _evidence(self) -> dict[str, Any]:
        return {
            "document": self.place.document,
            "document_id": self.place.document_id,
            "version": self.place.version,
            "start": self.start,
            "end": self.end,
            "quote": self.quote,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """What a run made.

    Attributes:
        dropped: Reason -> passages without a question; see `asking.REASONS`.
        tried: Passages asked about, of which `resumed` in an earlier run.
        stopped: "enough", "passages used up", "budget spent" or "the model writes nothing that can be kept".
        cost_usd: Of this run alone; None where the price is unknown.
    """

    questions: tuple[Question, ...]
    dropped: Mapping[str, int]
    tried: int
    resumed: int
    stopped: str
    input_tokens: int
    output_tokens: int
    seconds: float
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: questions kept of those wanted, passages tried, dollars spent (None: unknown)."""

    kept: int
    wanted: int
    tried: int
    spent_usd: float | None
    seconds_left: float | None
