"""The part of a store's contract about collections, sources, embedders and models."""

from __future__ import annotations

import numpy as np
import pytest

from graft.errors import EmbedderMismatch, NotFound, StoreError
from graft.store import Filter, Store
from graft.testing.store_parts import (
    ANA,
    EMBEDDER,
    batch_of,
    collection_of,
    matching_texts,
    nearest_texts,
    new_document,
    vector_of,
)


class StoreShelvesContract:
    """What documents stand in, come from and are found by."""

    def test_removing_a_collection_or_a_source_removes_its_documents(self, store: Store) -> None:
        source = collection_of(store)
        other = store.add_source("notes", kind="url", uri="http://b", grant=ANA, principals=ANA).id
        store.write(
            batch_of(new_document("a", ["x one"], source_id=source), new_document("b", ["x two"], source_id=other)),
            principals=ANA,
        )
        assert len(store.remove_source(other, principals=ANA).removed) == 1
        assert matching_texts(store, "x", 5, Filter(ANA)) == ["x one"]
        assert len(store.remove_collection("notes", principals=ANA).removed) == 1
        assert store.collections(principals=ANA) == [] and matching_texts(store, "x", 5, Filter(ANA)) == []
        assert collection_of(store) not in (source, other)

    def test_adding_a_source_twice_is_once(self, store: Store) -> None:
        source = collection_of(store)
        assert collection_of(store) == source
        assert [s.last_sync for s in store.sources("notes", principals=ANA)] == [None]
        store.mark_synced(source, principals=ANA)
        assert store.sources("notes", principals=ANA)[0].last_sync is not None

    def test_vectors_of_two_embedders_are_never_mixed(self, store: Store) -> None:
        source = collection_of(store)
        store.write(batch_of(new_document("a", ["x"], source_id=source)), principals=ANA)
        with pytest.raises(EmbedderMismatch) as caught:
            store.write(batch_of(new_document("b", ["y"], source_id=source), embedder="other"), principals=ANA)
        assert caught.value.fix == "graft collections reembed notes"
        with pytest.raises(EmbedderMismatch):
            store.search_vectors(vector_of("x"), 5, Filter(ANA), embedder="other")

    def test_a_collection_changes_its_embedder_in_steps(self, store: Store) -> None:
        source = collection_of(store)
        store.write(batch_of(new_document("a", ["x", "y", "z"], source_id=source)), principals=ANA)
        with pytest.raises(StoreError, match="3 chunks"):
            store.switch_embedder("notes", "new", principals=ANA)
        while left := store.unembedded("notes", "new", limit=2, principals=ANA):
            vectors = np.array([vector_of(chunk.text, 8) for chunk in left])
            store.put_vectors("new", [chunk.chunk_id for chunk in left], vectors, principals=ANA)
        assert nearest_texts(store, "y", 1, Filter(ANA)) == ["y"]  # the old one serves until the switch
        store.switch_embedder("notes", "new", principals=ANA)
        [hit] = store.search_vectors(vector_of("y", 8), 1, Filter(ANA), embedder="new")
        assert store.chunks([hit.chunk_id], principals=ANA)[0].text == "y"
        with pytest.raises(EmbedderMismatch):
            store.search_vectors(vector_of("y"), 1, Filter(ANA), embedder=EMBEDDER)

    def test_an_update_can_reuse_vectors_of_unchanged_chunks(self, store: Store) -> None:
        source = collection_of(store)
        [name] = store.write(
            batch_of(new_document("a", ["x", "y"], source_id=source, context="c")), principals=ANA
        ).added
        known = store.chunk_vectors(name, principals=ANA)
        assert set(known) == {("c", "x"), ("c", "y")}
        np.testing.assert_array_equal(known["c", "x"], vector_of("x"))

    def test_models_are_kept_by_name(self, store: Store) -> None:
        store.put_model("mine", {"base": "smollm2", "rank": 16})
        store.put_model("mine", {"base": "smollm2", "rank": 8})
        assert store.models() == {"mine": {"base": "smollm2", "rank": 8}} and store.model("mine")["rank"] == 8
        store.remove_model("mine")
        with pytest.raises(NotFound, match="have none"):
            store.model("mine")
