"""search and ask."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from graft.access import principals as check_principals
from graft.errors import UsageError
from graft.workspace.opened import Opened

if TYPE_CHECKING:
    from graft.answering import Answer, Asking
    from graft.following_up import Standalone
    from graft.models import Message
    from graft.retrieval import SearchResult


class QuestionVerbs(Opened):
    """search, ask."""

    def search(
        self,
        question: str,
        *,
        k: int | None = None,
        collection: str | None = None,
        documents: Iterable[str] | None = None,
        principals: Iterable[str] | None = None,
    ) -> SearchResult:
        """The passages that bear on a question, best first; see `retrieval.search`.

        Args:
            documents: Ids of the only ones to search in.
        """
        from graft.retrieval import search

        return search(
            question,
            store=self.store,
            embedder=self.embedder,
            principals=self.principals if principals is None else check_principals(principals),
            settings=self.settings.retrieval,
            collections=None if collection is None else (collection,),
            documents=None if documents is None else tuple(documents),
            k=k,
        )

    def search_query(self, query: str) -> Standalone:
        """A message as a shorter search query, by the usual model; see `following_up.make_search_query`."""
        from graft.following_up import make_search_query

        return make_search_query(query, self.model(None), budget=self.settings.answering.prompt_tokens)

    def ask(
        self,
        question: str,
        *,
        model: str | None = None,
        retrieval: bool = True,
        strict: bool = False,
        collection: str | None = None,
        history: Sequence[Message] = (),
    ) -> Answer:
        """A question -> a checked answer, or an honest "not in your documents"; see `answering`."""
        from graft.models import drain

        return drain(
            self.ask_stream(
                question, model=model, retrieval=retrieval, strict=strict, collection=collection, history=history
            )
        )

    def ask_stream(
        self,
        question: str,
        *,
        model: str | None = None,
        retrieval: bool = True,
        strict: bool = False,
        collection: str | tuple[str, ...] | None = None,
        documents: tuple[str, ...] | None = None,
        least_score: float = 0.0,
        history: Sequence[Message] = (),
    ) -> Generator[str, None, Answer]:
        """Like `ask`, yielding the model's draft as it is written; the return value is the Answer.

        Args:
            collection: One, or several.
            documents: Ids of the only ones to look in.
            least_score: Of a passage, from 0 to 1.
        """
        from graft.answering import answer_closed_book, answer_stream

        if strict and not retrieval:
            raise UsageError(
                "without retrieval nothing can be checked, so strict would leave nothing",
                fix="leave out --no-retrieval",
            )
        asking = replace(self._asking(model, collection), documents=documents, least_score=least_score)
        if retrieval:
            return answer_stream(question, asking, history=history, strict=strict)
        return answer_closed_book(question, asking)

    def _asking(self, model: str | None, collection: str | tuple[str, ...] | None) -> Asking:
        from graft.answering import Asking

        return Asking(
            store=self.store,
            embedder=self.embedder,
            model=self.model(model),
            principals=self.principals,
            answering=self.settings.answering,
            retrieval=self.settings.retrieval,
            collections=(collection,) if isinstance(collection, str) else collection,
            reader=self._reader_of(model),
        )
