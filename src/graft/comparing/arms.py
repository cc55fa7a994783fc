"""A way of answering -> a function from question to reply: (model or none) x (documents or none) x examples.

Arms that read documents go through `answering.answer`, the path of `graft ask`; the others put the question to
the model as it is. It does not know how replies are scored or kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from graft.access import Principals
from graft.answering import Answer, Asking, answer
from graft.citing import Citation, Verdict, without_markers
from graft.citing.quoting import quote_answer, spelled_out
from graft.comparing.citations import recall_of
from graft.comparing.values import ArmReply, OneTime, ShownCitation
from graft.dataset import Example
from graft.embedding import Embedder
from graft.evaluation.baselines import NearestVote, best_constant
from graft.evaluation.questions import Question
from graft.models import GenerateOptions, Message, Model, Reply, Usage, complete
from graft.prompting import grounded_prompt
from graft.retrieval import Hit, SearchResult, search
from graft.settings import RetrievalSettings
from graft.store import Store

SHOTS = 4
"""Examples in a few-shot prompt: the nearest."""

Replies = Callable[[Question], ArmReply]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An arm that can be asked.

    Attributes:
        configuration: Everything but the question that decides its replies.
        prompt_tokens: Of a question's prompt, counted without asking; `reply_tokens` is the most it may write.
        price: Tokens -> dollars, None where unknown; no function where nobody is paid.
        over: The same arm over other documents; None for one that reads none.
        tuned: Its model was made from examples; `one_time` is what that took, None where nobody knows.
    """

    name: str
    model: str
    about: str
    configuration: str
    replies: Replies
    prompt_tokens: Callable[[Question], int] = lambda question: 0
    reply_tokens: int = 0
    price: Callable[[Usage], float | None] | None = None
    control: bool = False
    seed: int | None = None
    over: Callable[[Store], Replies] | None = None
    tuned: bool = False
    one_time: OneTime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """Where the arms that need no model look."""

    store: Store
    embedder: Embedder
    principals: Principals
    retrieval: RetrievalSettings
    collections: tuple[str, ...] | None = None

    def search(self, question: str) -> SearchResult:
        """The passages that bear on it."""
        return search(
            question,
            store=self.store,
            embedder=self.embedder,
            principals=self.principals,
            settings=self.retrieval,
            collections=self.collections,
        )


class Uncached:
    """The same model without a cache of prompts, so that no reply depends on the one before."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def name(self) -> str:
        """The model's."""
        return self._model.name

    @property
    def context_tokens(self) -> int:
        """The model's."""
        return self._model.context_tokens

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """See `Model.count_tokens`."""
        return self._model.count_tokens(messages)

    def stream(self, messages: Sequence[Message], options: GenerateOptions) -> Generator[str, None, Reply]:
        """See `Model.stream`."""
        return self._model.stream(messages, replace(options, cache_prompt=False))


def configuration(**parts: Any) -> str:
    """What decides an arm's replies, as text."""
    return json.dumps(parts, sort_keys=True, default=str)


class FromQuestion:
    """The question put to the model, after the examples nearest to it: as many of SHOTS as fit the context."""

    def __init__(
        self, model: Model, *, system: str | None, max_tokens: int, examples: Sequence[Example] = ()
    ) -> None:
        self._model, self._system, self._examples = model, system, examples
        self._near = NearestVote(examples) if examples else None
        self._options = GenerateOptions(max_tokens=max_tokens, temperature=0.0, cache_prompt=False)

    def __call__(self, question: Question) -> ArmReply:
        """Its reply.

        Raises:
            ModelError: The model cannot answer.
        """
        said = complete(self._model, self._messages(question), self._options)
        return ArmReply(
            reply=said.text.strip(),
            mode="model",
            first_token_ms=said.first_token_ms,
            total_ms=said.total_ms,
            prompt_tokens=said.usage.input_tokens,
            completion_tokens=said.usage.output_tokens,
            cost_usd=said.cost_usd,
        )

    def prompt_tokens(self, question: Question) -> int:
        """Of its prompt; nothing is asked."""
        return self._model.count_tokens(self._messages(question))

    def _messages(self, question: Question) -> tuple[Message, ...]:
        near = [] if self._near is None else self._near.nearest(question.text, k=SHOTS)
        shots = [self._examples[row] for row, _ in near]
        messages = prompt(question, shots, self._system)
        room = self._model.context_tokens - self._options.max_tokens
        while shots and self._model.count_tokens(messages) > room:
            shots.pop()
            messages = prompt(question, shots, self._system)
        return messages


def prompt(question: Question, shots: Sequence[Example], system: str | None) -> tuple[Message, ...]:
    """Instructions, examples (the nearest last) and the question with the turns before it."""
    own = [turn for turn in question.messages if turn.role == "system"]
    head = own or ([] if system is None else [Message("system", system)])
    shown = [turn for example in reversed(shots) for turn in example.messages if turn.role != "system"]
    return (*head, *shown, *(turn for turn in question.messages if turn.role != "system"))


def shared_system(examples: Sequence[Example]) -> str | None:
    """The instructions that all examples begin with; a tuned model expects them, so every arm gets them."""
    found = {next((turn.content for turn in example.prompt if turn.role == "system"), None) for example in examples}
    return found.pop() if len(found) == 1 else None


class FromDocuments:
    """The answer that `graft ask` gives, by this model."""

    def __init__(self, asking: Asking) -> None:
        self._asking = replace(asking, model=Uncached(asking.model))

    def __call__(self, question: Question) -> ArmReply:
        """Its checked answer.

        Raises:
            GraftError: As `answering.answer`.
        """
        history = [turn for turn in question.messages[:-1] if turn.role != "system"]
        given = answer(question.text, self._asking, history=history)
        told = _from_answer(given)
        return replace(told, recall=recall_of(question, given.hits[: self._asking.passages]))

    def prompt_tokens(self, question: Question) -> int:
        """Of its prompt, but for the rewriting of a follow-up; nothing is asked."""
        asking = self._asking
        found = search(
            question.text,
            store=asking.store,
            embedder=asking.embedder,
            principals=asking.principals,
            settings=asking.retrieval,
            collections=asking.collections,
        )
        budget = min(asking.answering.prompt_tokens, asking.model.context_tokens - asking.answering.answer_tokens)
        made = grounded_prompt(
            question.text,
            found.hits,
            count_tokens=asking.model.count_tokens,
            budget=budget,
            passages=asking.passages,
        )
        return asking.model.count_tokens(made.messages)


def _from_answer(given: Answer) -> ArmReply:
    latency = given.latency_ms
    return ArmReply(
        reply=without_markers(given.text).strip(),
        mode=given.mode.value,
        draft=given.draft,
        citations=tuple(map(_shown, given.citations)),
        retrieve_ms=latency.retrieve,
        first_token_ms=None if latency.first_token is None else latency.retrieve + latency.first_token,
        total_ms=latency.total,
        prompt_tokens=given.usage.input_tokens,
        completion_tokens=given.usage.output_tokens,
        cost_usd=given.cost_usd,
    )


def _shown(citation: Citation) -> ShownCitation:
    return ShownCitation(
        claim=citation.claim,
        verdict=citation.verdict.value,
        document=citation.document,
        start=citation.start,
        end=citation.end,
        page=citation.page,
        quote=citation.quote,
        opposed=citation.opposed,
        evidence=None,
    )


def nearest_vote(train: Sequence[Example]) -> Replies:
    """What most of the nearest examples were answered with."""
    voters = NearestVote(train)

    def reply(question: Question) -> ArmReply:
        started = time.perf_counter()
        said = voters.vote(question.text)
        return ArmReply(reply=said, mode="control", total_ms=1000 * (time.perf_counter() - started), cost_usd=0.0)

    return reply


def constant(train: Sequence[Example], fits: Callable[[str, Sequence[str]], float]) -> Replies:
    """The same reply to everything: the one that fits the examples' answers best."""
    said = best_constant([example.answer for example in train], fits)
    return lambda question: ArmReply(reply=said, mode="control", total_ms=0.0, cost_usd=0.0)


def best_sentence(library: Library) -> Replies:
    """The sentence of the documents that fits the question best, word for word."""

    def reply(question: Question) -> ArmReply:
        asked = _standing_alone(question)
        found = library.search(asked)
        best = quote_answer(asked, found.hits, embed=library.embedder.embed, page_of=lambda hit, offset: hit.page)
        told = _quoted("" if best is None else spelled_out(best), () if best is None else (_shown(best),), found)
        return replace(told, recall=recall_of(question, found.hits))

    return reply


def always_first(library: Library) -> Replies:
    """The whole first passage that is found."""

    def reply(question: Question) -> ArmReply:
        found = library.search(_standing_alone(question))
        told = _quoted(found.hits[0].text if found.hits else "", tuple(map(_whole, found.hits[:1])), found)
        return replace(told, recall=recall_of(question, found.hits[:1]))

    return reply


def _quoted(text: str, citations: tuple[ShownCitation, ...], found: SearchResult) -> ArmReply:
    return ArmReply(
        reply=text,
        mode="control",
        citations=citations,
        retrieve_ms=found.latency_ms.total,
        total_ms=found.latency_ms.total,
        cost_usd=0.0,
    )


def _whole(hit: Hit) -> ShownCitation:
    return ShownCitation(
        claim=hit.text,
        verdict=Verdict.SUPPORTED.value,
        document=hit.document,
        start=hit.start,
        end=hit.end,
        page=hit.page,
        quote=hit.text,
        opposed=False,
        evidence=None,
    )


def _standing_alone(question: Question) -> str:
    """With the question before it, as retrieval for a short follow-up uses it; no model rewrites it here."""
    asked = [turn.content for turn in question.messages if turn.role == "user"]
    return " ".join(asked[-2:])


def kept_form(reply: ArmReply) -> dict[str, Any]:
    """As it is kept on disk; `values.from_plain` reads it."""
    return asdict(reply)
