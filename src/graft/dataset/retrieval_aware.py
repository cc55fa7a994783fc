"""questions with evidence + a collection -> examples whose prompts are what retrieval really returns.

A model that will be asked with retrieved passages is taught with them: the production prompt over the hits of the
production search, the evidence where it ranked, passages beside it that only look right. For a share of the
questions the evidence is taken away and the answer is to decline, so that the model learns to tell the two apart.
It does not know where questions come from, files, or how a model is trained.

Source: Zhang et al., "RAFT: Adapting Language Model to Domain Specific RAG", arXiv 2403.10131. Differences: answers
are short and cite a passage's number instead of reasoning aloud, and a prompt without evidence is declined where
RAFT lets the model answer from memory.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graft.access import Principals
from graft.answering import irrelevant
from graft.citing import Verdict, cite, without_markers
from graft.dataset.examples import Example
from graft.dataset.retrieval_aware_evidence import Evidence, evidence_of, holds, holds_answer
from graft.embedding import Embedder
from graft.models import Message
from graft.prompting import CountTokens, Prompt, grounded_prompt
from graft.retrieval import Hit, search
from graft.settings import AnsweringSettings, RetrievalAwareSettings, RetrievalSettings
from graft.store import Store

REFUSAL = "Not in the documents."
"""What the production prompt asks for where the sources do not answer, and what answering recognises."""

PARTS = ("train", "dev")
_SEARCHED = 10
"""Hits that prompts are made of: room for what the other part's documents and the evidence leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Where passages come from, and how production would ask over them."""

    store: Store
    embedder: Embedder
    principals: Principals
    count_tokens: CountTokens
    collections: tuple[str, ...] | None = None
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    answering: AnsweringSettings = field(default_factory=AnsweringSettings)

    def search(self, question: str) -> tuple[Hit, ...]:
        """The hits of the production search, best first."""
        found = search(
            question,
            store=self.store,
            embedder=self.embedder,
            principals=self.principals,
            settings=self.retrieval,
            collections=self.collections,
            k=_SEARCHED,
        )
        return found.hits


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalAware:
    """What was made.

    Attributes:
        train, dev: No document is a source, or stands in a prompt, on both sides.
        counts: Examples by how they came about: "ranked" (evidence where retrieval put it), "inserted",
            "removed" (evidence taken away), "missed" (retrieval did not find it), "unanswerable".
        dropped: Questions that no example was made of, by reason.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    counts: dict[str, int]
    dropped: dict[str, int]


def retrieval_aware(
    questions: Iterable[Example],
    shelf: Shelf,
    *,
    settings: RetrievalAwareSettings | None = None,
    seed: int = 0,
    progress: Callable[[int], object] = lambda count: None,
) -> RetrievalAware:
    """Make an example of every question that one can be made of.

    Args:
        questions: Their prompt's last turn is the question. `extra["evidence"]` lists {"document", "quote"} as
            question files do; where it is missing, the passage that supports the answer is the evidence.
            `extra["kind"] == "unanswerable"` marks those that no document answers.
        progress: Called with 1 for each question.
    Returns: The same for the same questions, documents and seed, in the order of the questions.
    """
    wanted = settings or RetrievalAwareSettings()
    made: dict[str, list[Example]] = {part: [] for part in PARTS}
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for question in questions:
        try:
            part, example = _Making(question, shelf, wanted, seed).example()
            made[part].append(example)
            counts[example.extra["passages_from"]] += 1
        except _Unfit as reason:
            dropped[str(reason)] += 1
        progress(1)
    return RetrievalAware(
        train=tuple(made["train"]), dev=tuple(made["dev"]), counts=dict(counts), dropped=dict(dropped)
    )


def part_of(document: str, *, dev_share: float, seed: int = 0) -> str:
    """The side that a document is on, for ever: by its name's hash, not by what else there is.

    >>> part_of("policies/travel.md", dev_share=0.0), part_of("policies/travel.md", dev_share=1.0)
    ('train', 'dev')
    """
    return "dev" if _uniform(f"{seed}:part:{document}") < dev_share else "train"


class _Unfit(Exception):
    """Why no example can be made of a question."""


class _Making:
    """One question on its way to an example."""

    def __init__(self, question: Example, shelf: Shelf, settings: RetrievalAwareSettings, seed: int) -> None:
        self.question, self.shelf, self.settings, self.seed = question, shelf, settings, seed
        self.chance = random.Random(f"{seed}:{question.id}")
        if sum(turn.role == "user" for turn in question.messages) != 1:
            raise _Unfit("it follows up an earlier question")
        text = question.prompt[-1].content.strip()
        self.casual = self.chance.random() < settings.casual
        self.text = _typed(text) if self.casual else _written(text)
        self.answer = without_markers(question.answer).strip()
        self.unanswerable = question.extra.get("kind") == "unanswerable" or self.answer == REFUSAL

    def example(self) -> tuple[str, Example]:
        """Part and example.

        Raises:
            _Unfit: None can be made.
        """
        evidence = evidence_of(self.question)
        found = self.shelf.search(self.text)
        if not evidence and not self.unanswerable:
            evidence = self._supporting(found)
        part = self._part(evidence, found)
        hits = [hit for hit in found if self._side(hit.document) == part]
        if irrelevant(self.text, hits, self.shelf.answering):
            raise _Unfit("production would decline before it asks a model")
        if self.unanswerable:
            return part, self._declined(hits, "unanswerable", ())
        places = [i for i, hit in enumerate(hits) if any(holds(hit, one) for one in evidence)]
        missed = not places or places[0] >= self.shelf.answering.passages
        if self.chance.random() < self.settings.without_evidence:
            return part, self._declined(hits, "removed", evidence)
        if not missed:
            return part, self._answered(hits, places[0], "ranked", evidence)
        if self.chance.random() >= self.settings.insert_missed:
            return part, self._declined(hits, "missed", evidence)
        bearing = self._fetch(evidence, part)
        rest = [hit for hit in hits if not any(holds(hit, one) for one in evidence)]
        place = min(self.chance.randrange(self.shelf.answering.passages), len(rest))
        return part, self._answered([*rest[:place], bearing, *rest[place:]], place, "inserted", evidence)

    def _answered(
        self, hits: Sequence[Hit], place: int, passages_from: str, evidence: tuple[Evidence, ...]
    ) -> Example:
        """Answer and the number of the passage that bears it."""
        prompt = self._prompt(hits, max(self._passages(), place + 1))
        if len(prompt.hits) <= place:  # what ranked above it leaves no room
            ordered = [hits[place], *hits[:place], *hits[place + 1 :]]
            prompt, place = self._prompt(ordered, self._passages()), 0
        if not prompt.hits:
            raise _Unfit("the evidence is longer than the prompt may be")
        if not self._supported(prompt.hits):
            raise _Unfit("the passages do not support the answer")
        answer = f"{self.answer.rstrip(' .')} [{place + 1}]."
        return self._made(prompt, answer, "short", passages_from, evidence, position=place + 1)

    def _declined(self, hits: Sequence[Hit], passages_from: str, evidence: tuple[Evidence, ...]) -> Example:
        """Only passages that do not answer, and the refusal."""
        if not self.unanswerable:
            hits = [
                hit
                for hit in hits
                if not any(holds(hit, one) for one in evidence) and not holds_answer(hit, self.answer)
            ]
        if irrelevant(self.text, hits, self.shelf.answering):
            raise _Unfit("without its evidence nothing near is left")
        prompt = self._prompt(hits, self._passages())
        if not prompt.hits:
            raise _Unfit("the nearest passage is longer than the prompt may be")
        if not self.unanswerable and self._supported(prompt.hits):
            raise _Unfit("other passages support the answer too")
        return self._made(prompt, REFUSAL, "unanswerable", passages_from, evidence, position=None)

    def _passages(self) -> int:
        most = self.shelf.answering.passages
        return self.chance.choices(
            (1, min(2, most), most),
            (
                self.settings.one_passage,
                self.settings.two_passages,
                max(0.0, 1 - self.settings.one_passage - self.settings.two_passages),
            ),
        )[0]

    def _prompt(self, hits: Sequence[Hit], passages: int) -> Prompt:
        return grounded_prompt(
            self.text,
            hits,
            count_tokens=self.shelf.count_tokens,
            budget=self.settings.prompt_tokens,
            passages=min(passages, self.shelf.answering.passages),
        )

    def _supported(self, hits: Sequence[Hit]) -> bool:
        """Whether production would let the answer stand over these passages."""
        found = cite(
            self.answer, hits, question=self.text, embed=self.shelf.embedder.embed, page_of=lambda hit, offset: None
        )
        return any(citation.verdict is Verdict.SUPPORTED for citation in found)

    def _supporting(self, hits: Sequence[Hit]) -> tuple[Evidence, ...]:
        """The range that bears the answer best, as evidence, where the question came without any."""
        found = cite(
            self.answer, hits, question=self.text, embed=self.shelf.embedder.embed, page_of=lambda hit, offset: None
        )
        bearing = [c for c in found if c.verdict is Verdict.SUPPORTED and c.document and c.quote]
        if not bearing or len(bearing) < len(found):
            raise _Unfit("no passage supports the answer")
        return tuple(Evidence(document=str(c.document), quote=str(c.quote)) for c in bearing)

    def _fetch(self, evidence: tuple[Evidence, ...], part: str) -> Hit:
        """A hit that holds the evidence, found by its own words."""
        for one in evidence:
            for hit in self.shelf.search(one.quote[:400]):
                if holds(hit, one) and self._side(hit.document) == part:
                    return hit
        raise _Unfit("the evidence is not in the collection")

    def _side(self, document: str) -> str:
        return part_of(document, dev_share=self.settings.dev_share, seed=self.seed)

    def _part(self, evidence: tuple[Evidence, ...], hits: Sequence[Hit]) -> str:
        documents = [one.document for one in evidence] or [hit.document for hit in hits[:1]]
        parts = {self._side(document) for document in documents}
        if len(parts) != 1:
            raise _Unfit("its documents are on both sides" if parts else "nothing is found")
        return parts.pop()

    def _made(
        self,
        prompt: Prompt,
        answer: str,
        kind: str,
        passages_from: str,
        evidence: tuple[Evidence, ...],
        *,
        position: int | None,
    ) -> Example:
        told: dict[str, Any] = {
            "kind": kind,
            "passages_from": passages_from,
            "position": position,
            "casual": self.casual,
            "evidence": [{"document": one.document, "quote": one.quote} for one in evidence],
            "passages": [
                {"document": hit.document, "version": hit.version, "start": hit.start, "end": hit.end}
                for hit in prompt.hits
            ],
        }
        return replace(
            self.question,
            messages=(*prompt.messages, Message("assistant", answer)),
            source=evidence[0].document if evidence else prompt.hits[0].document,
            extra={**self.question.extra, **told},
        )


def _typed(question: str) -> str:
    """As people type into a search box.

    >>> _typed("When does the London office open?")
    'when does the london office open'
    """
    return question.rstrip(" ?").lower()


def _written(question: str) -> str:
    """As people write. Without this, how a question is written would tell whether its set has answers.

    >>> _written("when does the london office open"), _written("Name three offices.")
    ('When does the london office open?', 'Name three offices.')
    """
    return f"{question[0].upper()}{question[1:]}?" if question[-1:].isalnum() else question


def _uniform(key: str) -> float:
    """A number from 0 to 1 that the key decides."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
