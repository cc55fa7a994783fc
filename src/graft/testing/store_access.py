"""The part of a store's contract that says who may read and change what."""

from __future__ import annotations

import numpy as np
import pytest

from graft.errors import AccessDenied, GraftError, NotFound
from graft.store import Batch, Filter, Store
from graft.testing.store_parts import (
    ANA,
    BEN,
    EMBEDDER,
    HR,
    batch_of,
    collection_of,
    matching_texts,
    nearest_texts,
    new_document,
    vector_of,
)


class StoreAccessContract:
    """Whom a store answers."""

    def test_nobody_finds_or_learns_of_other_peoples_documents(self, store: Store) -> None:
        source = collection_of(store)
        [name] = store.write(
            batch_of(new_document("a", ["secret"], source_id=source, with_boxes=True)), principals=ANA
        ).added
        [hit] = store.search_text("secret", 5, Filter(ANA))
        assert store.search_text("secret", 5, Filter(BEN)) == []
        assert store.search_vectors(vector_of("secret"), 5, Filter(BEN), embedder=EMBEDDER) == []
        assert store.search_text("secret", 5, Filter(BEN, documents=(name,))) == []
        assert store.chunks([hit.chunk_id], principals=BEN) == []
        assert store.documents(principals=BEN) == [] and store.collections(principals=BEN) == []
        assert store.chunk_vectors(name, principals=BEN) == {}
        answers = {
            self._answer(ask)
            for who in ("doc_0000", name)
            for ask in (
                lambda who=who: store.document(who, principals=BEN),
                lambda who=who: store.version(who, 1, principals=BEN),
                lambda who=who: store.boxes(who, 1, 0, 1, principals=BEN),
            )
        }
        assert answers == {"NotFound no document 'X'"}
        foreign, missing = (self._answer(lambda n=n: store.documents(n, principals=BEN)) for n in ("notes", "none"))
        assert foreign == missing.replace("none'", "notes'") and foreign.startswith("NotFound")

    @staticmethod
    def _answer(ask: object) -> str:
        with pytest.raises(GraftError) as caught:
            ask()  # type: ignore[operator]
        words = ["'X'" if w.startswith("'doc_") else w for w in caught.value.message.split()]
        return f"{type(caught.value).__name__} {' '.join(words)}"

    def test_others_can_neither_write_remove_nor_grant(self, store: Store) -> None:
        source = collection_of(store)
        shared = new_document("b", ["shared"], source_id=source, principals=ANA | BEN)
        store.write(batch_of(new_document("a", ["x"], source_id=source), shared), principals=ANA)
        names = [d.id for d in store.documents(principals=ANA)]
        for change in (
            Batch(collection="notes", removed=[names[1]]),
            Batch(collection="notes", access={names[1]: BEN}),
        ):
            with pytest.raises(AccessDenied):
                store.write(change, principals=BEN)
            with pytest.raises(NotFound):
                store.write(change, principals=HR)
        with pytest.raises(AccessDenied):
            store.remove_collection("notes", principals=BEN)
        with pytest.raises(AccessDenied):
            store.create_collection("notes", principals=BEN)
        assert [d.id for d in store.documents(principals=ANA)] == names

    def test_others_can_neither_mark_nor_remove_a_source_nor_learn_of_it(self, store: Store) -> None:
        source = collection_of(store)
        shared = store.add_source("notes", kind="url", uri="http://b", grant=ANA | BEN, principals=ANA).id
        changes = (store.mark_synced, store.remove_source)
        for change in changes:
            for who, which in ((BEN, source), (BEN, shared), (BEN, 999), (HR, shared)):
                with pytest.raises(NotFound) as caught:
                    change(which, principals=who)
                assert caught.value.message == f"no source {which}"
        document = new_document("a", ["x"], source_id=shared, principals=ANA | BEN)
        store.write(batch_of(document), principals=ANA)
        for change in changes:
            with pytest.raises(AccessDenied):
                change(shared, principals=BEN)
        assert [s.last_sync for s in store.sources("notes", principals=ANA)] == [None, None]

    def test_others_vectors_are_dropped_like_those_of_chunks_that_are_gone(self, store: Store) -> None:
        source = collection_of(store)
        store.write(batch_of(new_document("a", ["x"], source_id=source)), principals=ANA)
        [left] = store.unembedded("notes", "new", limit=9, principals=ANA)
        chunks, vectors = [left.chunk_id, 999], np.array([vector_of("x", 8)] * 2)
        store.put_vectors("new", chunks, vectors, principals=BEN)
        assert len(store.unembedded("notes", "new", limit=9, principals=ANA)) == 1
        store.put_vectors("new", chunks, vectors, principals=ANA)
        assert store.unembedded("notes", "new", limit=9, principals=ANA) == []

    def test_a_new_grant_holds_in_both_searches_at_once(self, store: Store) -> None:
        source = collection_of(store)
        [name] = store.write(batch_of(new_document("a", ["plan"], source_id=source)), principals=ANA).added
        for granted, finds in ((ANA | BEN, True), (ANA, False), (ANA | HR, False), (ANA | BEN | HR, True)):
            store.write(Batch(collection="notes", access={name: granted}), principals=ANA)
            assert matching_texts(store, "plan", 5, Filter(BEN)) == ["plan"] * finds
            assert nearest_texts(store, "plan", 5, Filter(BEN)) == ["plan"] * finds

    def test_filters_by_collection_and_document_are_exact(self, store: Store) -> None:
        for name in ("one", "two"):
            source = collection_of(store, name)
            documents = [new_document(f"{name}-{i}", [f"word {name} {i}"], source_id=source) for i in range(5)]
            store.write(batch_of(*documents, collection=name), principals=ANA)
        chosen = tuple(d.id for d in store.documents("two", principals=ANA)[1:3])
        for find in (nearest_texts, matching_texts):
            assert len(find(store, "word", 99, Filter(ANA))) == 10
            assert {t.split()[1] for t in find(store, "word", 99, Filter(ANA, collections=("two",)))} == {"two"}
            assert sorted(find(store, "word", 99, Filter(ANA, documents=chosen))) == ["word two 1", "word two 2"]
            assert find(store, "word", 99, Filter(ANA, collections=("one",), documents=chosen)) == []
        with pytest.raises(NotFound, match="have one, two"):
            store.search_text("word", 5, Filter(ANA, collections=("three",)))
