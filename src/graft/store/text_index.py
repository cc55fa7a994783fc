"""Texts -> the chunks whose words fit a question best, by BM25 in tantivy.

A word is a run of letters and digits, without case or accents, cut to its English stem; in scripts that put
no spaces between words each character is a word. Measured, nDCG@10, tantivy's own words -> these: SciFact
.661 -> .687, NFCorpus .308 -> .323, Cranfield .500 -> .522, XQuAD en .960 -> .967, es .948 -> .953,
de .917 -> .928, ru and ar the same, zh .113 -> .952. A field of its own for the context was no better.

It does not know SQL (following.py hands it rows) or principals (the caller hands it allowed scopes).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tantivy
from numpy.typing import NDArray

from graft.errors import IndexCorrupt
from graft.store.index_state import REBUILD, IndexState, index_lock, read_state, sync_folder, write_state
from graft.store.records import Scored

Ids = NDArray[np.int64]

MAX_TERMS = 64
"""Words of a question that are looked for: the rarest ones. Others add time, not meaning."""

MAX_CHARACTERS = 100_000
"""What is read of a question."""

_MERGE_ABOVE = 8  # segments; tantivy's own policy then has something to merge, so wait for it
_HEAP_BYTES = 64_000_000
_LONGEST_WORD = 64  # bytes; longer runs are encoded data, not words

_WITHOUT_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_WITHOUT_SPACES}]|[\p{{L}}\p{{M}}\p{{N}}--[{_WITHOUT_SPACES}]]+"


@dataclass(frozen=True, slots=True)
class TextRow:
    """A chunk to add."""

    chunk: int
    document: int
    scope: int
    context: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """The index at one moment."""

    state: IndexState
    index: tantivy.Index
    searcher: tantivy.Searcher


class TextIndex:
    """The words of all chunks, in one folder, for any number of threads and processes."""

    def __init__(self, folder: Path, *, store: str) -> None:
        self._folder = folder
        self._store = store
        self._schema = _schema()
        self._analyzer = _analyzer()
        self._view: _View | None = None

    @property
    def sequence(self) -> int:
        """Changes up to this one are found; -1 before `load`."""
        view = self._view
        return -1 if view is None else view.state.sequence

    def lock(self) -> AbstractContextManager[None]:
        """See `index_lock`."""
        return index_lock(self._folder)

    def load(self) -> None:
        """Open what is on disk.

        Raises:
            IndexCorrupt: Nothing is there, it is damaged, or it belongs to another database.
        """
        state = read_state(self._folder)
        if state.store != self._store:
            raise IndexCorrupt(f"{self._folder} belongs to another database", fix=REBUILD)
        self._view = self._open(state)

    def clear(self) -> None:
        """Begin again with no rows, in a new folder; the caller holds the lock."""
        taken = [int(p.name) for p in self._folder.glob("[0-9]*") if p.name.isdigit()]
        state = IndexState(store=self._store, sequence=0, generation=max(taken, default=0) + 1)
        inner = self._inner(state)
        inner.mkdir()
        tantivy.Index(self._schema, str(inner))
        sync_folder(self._folder)
        write_state(self._folder, state)
        for generation in taken:
            shutil.rmtree(self._folder / str(generation), ignore_errors=True)
        self._view = self._open(state)

    def apply(self, *, sequence: int, changed: Ids, rows: Iterable[TextRow]) -> None:
        """Replace all rows of the documents `changed` by `rows` and be at `sequence`; the caller holds the lock.

        tantivy commits before the state moves: a process that dies between the two leaves changes that the
        next call makes again, with the same result.
        """
        view = self._loaded()
        if len(changed):
            self._commit(view, changed, rows)
        state = replace(view.state, sequence=sequence)
        write_state(self._folder, state)
        self._view = self._open(state)

    def _commit(self, view: _View, changed: Ids, rows: Iterable[TextRow]) -> None:
        try:
            writer = view.index.writer(_HEAP_BYTES, 1)
            if view.searcher.num_docs:  # not the sequence: a first build may have died after its commit
                for key in changed.tolist():
                    writer.delete_documents_by_term("document", key)
            for row in rows:
                document = tantivy.Document(chunk=row.chunk, document=row.document, scope=row.scope)
                document.add_text("body", f"{row.context}\n{row.text}" if row.context else row.text)
                writer.add_document(document)
            writer.commit()
            view.index.reload()
            if view.index.searcher().num_segments > _MERGE_ABOVE:
                writer.wait_merging_threads()
        except ValueError as error:  # how tantivy reports everything
            raise _damaged(self._folder, error) from error

    def search(
        self, question: str, k: int, *, scopes: Ids, documents: Ids | None, all_until: int = -1
    ) -> list[Scored]:
        """The `k` chunks of greatest BM25 score among those of `scopes` and `documents`.

        Args:
            question: Any text; it has no syntax, every character that is not part of a word is skipped.
            documents: None is all.
            all_until: Up to this sequence there were no scopes but `scopes`, which spares the filter.
        Returns: Best first; equal scores in order of chunk id.
        """
        view = self._loaded()
        terms = self.terms(question)
        if not terms or k <= 0 or len(scopes) == 0 or (documents is not None and len(documents) == 0):
            return []
        limiting = None if view.state.sequence <= all_until else scopes
        words = [(tantivy.Occur.Should, self._term("body", term)) for term in terms]
        query = tantivy.Query.boolean_query(words)
        limits = [
            (tantivy.Occur.Must, tantivy.Query.const_score_query(self._one_of(name, ids), 0.0))
            for name, ids in (("scope", limiting), ("document", documents))
            if ids is not None
        ]
        if limits:
            query = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), *limits])
        try:
            hits = view.searcher.search(query, k, count=False).hits
            chunks = view.searcher.fast_field_values("chunk", [address for _, address in hits])
        except ValueError as error:
            raise _damaged(self._folder, error) from error
        found = [Scored(chunk, score) for chunk, (score, _) in zip(chunks, hits, strict=True)]
        return sorted(found, key=lambda hit: (-hit.score, hit.chunk_id))

    def terms(self, question: str) -> list[str]:
        """The words of `question` that are looked for, each once."""
        readable = question[:MAX_CHARACTERS].encode(errors="replace").decode()  # half a surrogate pair is no text
        terms = list(dict.fromkeys(self._analyzer.analyze(readable)))
        if len(terms) <= MAX_TERMS:
            return terms
        searcher = self._loaded().searcher
        known = [(frequency, term) for term in terms if (frequency := searcher.doc_freq("body", term))]
        return [term for _, term in sorted(known)[:MAX_TERMS]]

    def chunk_ids(self) -> Ids:
        """Ids of all rows, to compare with the truth."""
        searcher = self._loaded().searcher
        hits = searcher.search(tantivy.Query.all_query(), max(1, searcher.num_docs), count=False).hits
        return np.array(searcher.fast_field_values("chunk", [address for _, address in hits]), np.int64)

    def _one_of(self, name: str, ids: Ids) -> tantivy.Query:
        if len(ids) == 1:
            return self._term(name, int(ids[0]))
        return tantivy.Query.term_set_query(self._schema, name, ids.tolist())

    def _term(self, name: str, value: str | int) -> tantivy.Query:
        return tantivy.Query.term_query(self._schema, name, value, index_option="freq")

    def _loaded(self) -> _View:
        if self._view is None:
            self.load()
        assert self._view is not None
        return self._view

    def _open(self, state: IndexState) -> _View:
        try:
            index = tantivy.Index.open(str(self._inner(state)))
            index.register_tokenizer("words", self._analyzer)
            index.config_reader("manual")
            index.reload()
            return _View(state, index, index.searcher())
        except ValueError as error:
            raise _damaged(self._folder, error) from error

    def _inner(self, state: IndexState) -> Path:
        return self._folder / str(state.generation)


def _damaged(folder: Path, error: ValueError) -> IndexCorrupt:
    return IndexCorrupt(f"the text index in {folder} cannot be used: {error}", fix=REBUILD)


def _analyzer() -> tantivy.TextAnalyzer:
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(_WORD))
        .filter(tantivy.Filter.remove_long(_LONGEST_WORD))
        .filter(tantivy.Filter.lowercase())
        .filter(tantivy.Filter.ascii_fold())
        .filter(tantivy.Filter.stemmer("english"))
        .build()
    )


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_integer_field("chunk", fast=True)
    builder.add_integer_field("document", indexed=True)
    builder.add_integer_field("scope", indexed=True)
    builder.add_text_field("body", tokenizer_name="words", index_option="freq")
    return builder.build()
