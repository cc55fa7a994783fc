"""Random writes to a store and to a plain list of documents -> both must find the same.

Hypothesis chooses the writes and shortens those that fail. It does not know how a store works.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from graft.access import Principals
from graft.store import Batch, Filter, Store
from graft.testing.store_parts import (
    ANA,
    BEN,
    DIMENSIONS,
    EMBEDDER,
    HR,
    batch_of,
    collection_of,
    new_document,
    vector_of,
)

_WORDS = ("apple", "pear", "plum", "fig", "lime")
_GRANTS = (ANA, ANA | BEN, ANA | HR, ANA | BEN | HR)
_ASKING = (ANA, BEN, HR, BEN | HR, frozenset({"user:nobody"}))

_paragraphs = st.lists(
    st.lists(st.sampled_from(_WORDS), min_size=1, max_size=3).map(" ".join), min_size=0, max_size=4
)


@dataclass
class _Kept:
    """A document as the plain list has it."""

    paragraphs: list[str]
    principals: Principals
    texts: list[str] = field(default_factory=list)  # of every version, "" where removed


def compare_with_plain_list(open_store: Callable[[Path], Store], folder: Path, *, examples: int = 12) -> None:
    """Run random writes, reopenings and searches.

    Raises:
        AssertionError: The store and the list differ; hypothesis prints the shortest writes that show it.
    """

    class Machine(_Machine):
        pass

    Machine.open_store = staticmethod(open_store)
    Machine.folder = folder
    chosen = settings(
        max_examples=examples,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=chosen)


class _Machine(RuleBasedStateMachine):
    open_store: Callable[[Path], Store]
    folder: Path

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp(dir=self.folder))
        self.store = self.open_store(self.home)
        self.sources = {name: collection_of(self.store, name) for name in ("left", "right")}
        self.kept: dict[tuple[str, str], _Kept] = {}
        self.ids: dict[tuple[str, str], str] = {}
        self.history: dict[str, list[str]] = {}

    @rule(
        collection=st.sampled_from(("left", "right")),
        files=st.dictionaries(st.sampled_from("abc"), st.tuples(_paragraphs, st.sampled_from(_GRANTS)), max_size=3),
    )
    def put(self, collection: str, files: dict[str, tuple[list[str], Principals]]) -> None:
        documents = [
            new_document(uri, paragraphs, source_id=self.sources[collection], principals=principals)
            for uri, (paragraphs, principals) in files.items()
        ]
        self.store.write(batch_of(*documents, collection=collection), principals=ANA)
        ids = {d.uri: d.id for d in self.store.documents(collection, principals=ANA)}
        for uri, (paragraphs, principals) in files.items():
            key, name, text = (collection, uri), ids[uri], "\n".join(paragraphs)
            assert self.ids.setdefault(key, name) == name
            past = self.history.setdefault(name, [])
            if key not in self.kept or past[-1] != text:
                past.append(text)
            self.kept[key] = _Kept(paragraphs, principals)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.kept:
            key = data.draw(st.sampled_from(sorted(self.kept)))
            self.store.write(Batch(collection=key[0], removed=[self.ids[key]]), principals=ANA)
            del self.kept[key]
            self.history[self.ids[key]] = [""] * len(self.history[self.ids[key]])

    @rule(data=st.data(), principals=st.sampled_from(_GRANTS))
    def grant(self, data: st.DataObject, principals: Principals) -> None:
        if self.kept:
            key = data.draw(st.sampled_from(sorted(self.kept)))
            self.store.write(Batch(collection=key[0], access={self.ids[key]: principals}), principals=ANA)
            self.kept[key].principals = principals

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open_store(self.home)

    @rule()
    def rebuild(self) -> None:
        self.store.rebuild_indexes()

    @invariant()
    def both_searches_find_what_the_list_has(self) -> None:
        if not hasattr(self, "store"):
            return
        for who in _ASKING:
            self._compare(Filter(who), [k for k in self.kept.values() if k.principals & who])
        left = [kept for (collection, _), kept in self.kept.items() if collection == "left"]
        self._compare(Filter(ANA, collections=("left",)), left)
        one = sorted(self.kept)[:1]
        self._compare(Filter(ANA, documents=tuple(self.ids[key] for key in one)), [self.kept[key] for key in one])

    @invariant()
    def every_version_resolves(self) -> None:
        for key, name in getattr(self, "ids", {}).items():
            past = self.history[name]
            versions = [self.store.version(name, n + 1, principals=ANA) for n in range(len(past))]
            assert [v.text for v in versions] == past
            assert [v.state == "current" for v in versions] == [
                key in self.kept and n == len(past) - 1 for n in range(len(past))
            ]

    def _compare(self, filter: Filter, expected: list[_Kept]) -> None:
        allowed = [text for kept in expected for text in kept.paragraphs]
        for word in _WORDS[:2]:
            found = self._texts([hit.chunk_id for hit in self.store.search_text(word, 99, filter)], filter)
            assert found == sorted(text for text in allowed if word in text.split())
        query = vector_of("apple pear")
        hits = self.store.search_vectors(query, 5, filter, embedder=EMBEDDER)
        all_scores = np.array([vector_of(text) for text in allowed], np.float32).reshape(-1, DIMENSIONS) @ query
        np.testing.assert_allclose([h.score for h in hits], np.sort(all_scores)[::-1][:5], atol=1e-5)
        assert set(self._texts([hit.chunk_id for hit in hits], filter)) <= set(allowed)

    def _texts(self, ids: list[int], filter: Filter) -> list[str]:
        chunks = self.store.chunks(ids, principals=filter.principals)
        assert len(chunks) == len(ids)
        return sorted(chunk.text for chunk in chunks)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
