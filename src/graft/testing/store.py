"""The contract of a store, as tests: subclass `StoreContract`, say how to open one, and run pytest.

    class TestMyStore(StoreContract):
        def open_store(self, home: Path) -> Store:
            return MyStore(home)

It does not know how a store works; what is special to ours is tested in tests/test_store.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graft.chunking import Chunk
from graft.errors import NotFound, UsageError
from graft.store import Batch, Filter, NewDocument, Store, Touched
from graft.testing.store_access import StoreAccessContract
from graft.testing.store_parts import (
    ANA,
    BEN,
    DIMENSIONS,
    EMBEDDER,
    HR,
    batch_of,
    collection_of,
    matching_texts,
    nearest_texts,
    new_document,
    vector_of,
)
from graft.testing.store_shelves import StoreShelvesContract

__all__ = [
    "ANA",
    "BEN",
    "DIMENSIONS",
    "EMBEDDER",
    "HR",
    "StoreContract",
    "batch_of",
    "collection_of",
    "matching_texts",
    "nearest_texts",
    "new_document",
    "vector_of",
]


class StoreContract(StoreAccessContract, StoreShelvesContract):
    """What holds for every store."""

    def open_store(self, home: Path) -> Store:
        """Open the store that lives in `home`, or make it. Called again for the same `home` to reopen."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return self.open_store(tmp_path / "home")

    # What is written

    def test_what_is_written_is_found_by_both_searches_at_once(self, store: Store) -> None:
        source = collection_of(store)
        result = store.write(
            batch_of(new_document("a", ["red apples", "green pears"], source_id=source)), principals=ANA
        )
        assert (len(result.added), result.chunks) == (1, 2)
        assert nearest_texts(store, "green pears", 1, Filter(ANA)) == ["green pears"]
        assert matching_texts(store, "apples?", 5, Filter(ANA)) == ["red apples"]

    def test_a_chunk_is_its_range_of_its_version(self, store: Store) -> None:
        source = collection_of(store)
        store.write(batch_of(new_document("a", ["où est-il", "数据库 ok"], source_id=source)), principals=ANA)
        [document] = store.documents("notes", principals=ANA)
        text = store.version(document.id, principals=ANA).text
        hits = store.search_text("est ok 数据库", 5, Filter(ANA))
        chunks = store.chunks([h.chunk_id for h in hits], principals=ANA)
        assert len(chunks) == 2
        assert all(text[c.start : c.end] == c.text and c.page == c.ordinal + 1 for c in chunks)

    def test_writing_a_batch_again_changes_nothing(self, store: Store) -> None:
        source = collection_of(store)
        batch = batch_of(new_document("a", ["one", "two"], source_id=source))
        first = store.write(batch, principals=ANA)
        again = store.write(batch, principals=ANA)
        assert again.unchanged == first.added and not again.added + again.updated + again.removed
        assert [d.version for d in store.documents(principals=ANA)] == [1]

    def test_the_same_text_cut_otherwise_keeps_its_version(self, store: Store) -> None:
        source = collection_of(store)
        store.write(batch_of(new_document("a", ["one", "two"], source_id=source)), principals=ANA)
        result = store.write(
            batch_of(new_document("a", ["one", "two"], source_id=source, context="Numbers")), principals=ANA
        )
        assert len(result.updated) == 1
        assert [d.version for d in store.documents(principals=ANA)] == [1]
        assert sorted(matching_texts(store, "numbers", 5, Filter(ANA))) == ["one", "two"]

    def test_a_new_text_supersedes_the_old_which_still_resolves(self, store: Store) -> None:
        source = collection_of(store)
        [name] = store.write(batch_of(new_document("a", ["old words"], source_id=source)), principals=ANA).added
        assert store.write(batch_of(new_document("a", ["new words"], source_id=source)), principals=ANA).updated == (
            name,
        )
        old, new = (store.version(name, n, principals=ANA) for n in (1, 2))
        assert (old.text, old.state, new.text, new.state) == ("old words", "superseded", "new words", "current")
        assert store.version(name, principals=ANA) == new
        assert matching_texts(store, "old new words", 9, Filter(ANA)) == ["new words"]
        assert nearest_texts(store, "old words", 9, Filter(ANA)) == ["new words"]

    def test_two_files_with_the_same_bytes_are_two_documents(self, store: Store) -> None:
        source = collection_of(store)
        store.write(batch_of(*(new_document(u, ["same"], source_id=source) for u in "ab")), principals=ANA)
        assert [d.uri for d in store.documents(principals=ANA)] == ["a", "b"]
        assert nearest_texts(store, "same", 9, Filter(ANA)) == ["same", "same"]

    def test_a_removed_document_is_gone_everywhere_and_its_citation_says_so(self, store: Store) -> None:
        source = collection_of(store)
        [name] = store.write(batch_of(new_document("a", ["secret"], source_id=source)), principals=ANA).added
        [hit] = store.search_text("secret", 5, Filter(ANA))
        assert store.write(Batch(collection="notes", removed=[name]), principals=ANA).removed == (name,)
        assert store.search_text("secret", 5, Filter(ANA)) == []
        assert nearest_texts(store, "secret", 5, Filter(ANA)) == []
        assert store.chunks([hit.chunk_id], principals=ANA) == []
        assert store.documents(principals=ANA) == []
        gone = store.version(name, 1, principals=ANA)
        assert (gone.state, gone.text, gone.title) == ("removed", "", "")
        assert store.write(Batch(collection="notes", removed=[name]), principals=ANA).removed == ()

    def test_a_document_that_comes_back_is_a_new_version_of_itself(self, store: Store) -> None:
        source = collection_of(store)
        new = new_document("a", ["words"], source_id=source)
        [name] = store.write(batch_of(new), principals=ANA).added
        store.write(Batch(collection="notes", removed=[name]), principals=ANA)
        assert store.write(batch_of(new), principals=ANA).added == (name,)
        states = [store.version(name, n, principals=ANA).state for n in (1, 2)]
        assert states == ["removed", "current"]
        assert nearest_texts(store, "words", 5, Filter(ANA)) == ["words"]

    def test_what_somebody_took_out_is_told_from_what_vanished(self, store: Store) -> None:
        source = collection_of(store)
        new = [new_document(uri, ["words"], source_id=source) for uri in "abc"]
        names = store.write(batch_of(*new), principals=ANA).added
        batch = Batch(collection="notes", removed=names[:1], vanished=names[1:])
        assert set(store.write(batch, principals=ANA).removed) == set(names)
        assert store.removed_uris(source, principals=ANA) == {"a"}
        assert [store.version(name, principals=ANA).state for name in names] == ["removed"] * 3
        store.write(Batch(collection="notes", removed=names[1:2]), principals=ANA)
        assert store.removed_uris(source, principals=ANA) == {"a", "b"}
        store.write(Batch(collection="notes", vanished=names[:1]), principals=ANA)
        assert store.removed_uris(source, principals=ANA) == {"a", "b"}
        assert store.write(batch_of(*new), principals=ANA).added == names
        assert store.removed_uris(source, principals=ANA) == frozenset()
        assert store.removed_uris(source, principals=BEN) == frozenset()

    def test_a_document_made_otherwise_is_updated_and_keeps_its_version_while_its_text_is_the_same(
        self, store: Store
    ) -> None:
        source = collection_of(store)
        [name] = store.write(batch_of(new_document("a", ["one"], source_id=source)), principals=ANA).added
        [before] = store.search_text("one", 1, Filter(ANA))
        better = new_document("a", ["one"], source_id=source, with_boxes=True, fingerprint="reader 2")
        assert store.write(batch_of(better), principals=ANA).updated == (name,)
        assert store.write(batch_of(better), principals=ANA).unchanged == (name,)
        document = store.document(name, principals=ANA)
        assert (document.version, document.fingerprint, document.format) == (1, "reader 2", "pdf")
        assert store.boxes(name, 1, 0, 3, principals=ANA) is not None
        assert store.search_text("one", 1, Filter(ANA)) == [before]
        other = new_document("a", ["two"], source_id=source, fingerprint="reader 3")
        assert store.write(batch_of(other), principals=ANA).updated == (name,)
        assert store.document(name, principals=ANA).version == 2

    def test_boxes_come_back_to_a_tenth_of_a_point(self, store: Store) -> None:
        source = collection_of(store)
        new = new_document("a.pdf", ["some words", "more"], source_id=source, with_boxes=True)
        [name] = store.write(batch_of(new), principals=ANA).added
        assert new.document.boxes is not None
        saved = store.boxes(name, 1, 5, 15, principals=ANA)
        assert saved is not None
        np.testing.assert_allclose(saved, new.document.boxes[5:15], atol=0.0501)
        assert np.isnan(saved[5]).all()
        assert store.version(name, principals=ANA).pages == new.document.pages
        with pytest.raises(UsageError):
            store.boxes(name, 1, 5, 500, principals=ANA)

    def test_a_batch_that_fails_leaves_nothing(self, store: Store) -> None:
        source = collection_of(store)
        with pytest.raises(NotFound):
            store.write(
                Batch(
                    collection="notes",
                    embedder=EMBEDDER,
                    documents=[new_document("a", ["x"], source_id=source)],
                    removed=["doc_0"],
                ),
                principals=ANA,
            )
        assert store.documents(principals=ANA) == []
        assert store.search_text("x", 5, Filter(ANA)) == []

    def test_touching_changes_only_the_marks(self, store: Store) -> None:
        source = collection_of(store)
        new = new_document("a", ["x"], source_id=source, fingerprint="f", etag='"1"')
        [name] = store.write(batch_of(new), principals=ANA).added
        assert store.document(name, principals=ANA).etag == '"1"'
        touched = Touched(document_id=name, size=7, mtime_ns=9, etag='"2"', last_modified="today")
        store.write(Batch(collection="notes", touched=[touched]), principals=ANA)
        document = store.document(name, principals=ANA)
        assert (document.size, document.mtime_ns, document.version) == (7, 9, 1)
        assert (document.etag, document.last_modified, document.fingerprint) == ('"2"', "today", "f")

    def test_a_chunk_that_is_not_its_range_is_refused(self, store: Store) -> None:
        source = collection_of(store)
        good = new_document("a", ["abc"], source_id=source)
        bad = NewDocument(
            **{f: getattr(good, f) for f in NewDocument.__slots__} | {"chunks": [Chunk(0, 3, "abd", "", None)]}
        )
        with pytest.raises(UsageError, match="not characters 0 to 3"):
            store.write(batch_of(bad), principals=ANA)

    def test_neighbours_stand_around_a_chunk(self, store: Store) -> None:
        source = collection_of(store)
        store.write(batch_of(new_document("a", ["one", "two", "three", "four"], source_id=source)), principals=ANA)
        [hit] = store.search_text("three", 1, Filter(ANA))
        assert [c.text for c in store.neighbours(hit.chunk_id, principals=ANA)] == ["two", "three", "four"]
        assert store.neighbours(hit.chunk_id, principals=BEN) == []

    # Any question, any order, any time

    @pytest.mark.parametrize(
        "question",
        [
            "",
            "   ",
            '"',
            'body:"x" AND (',
            "scope:1 OR *",
            "-\\:/[]{}^~",
            "\x00\ud800",
            "?" * 10,
            "é" * 5000,
            "'; --",
        ],
    )
    def test_a_question_has_no_syntax(self, store: Store, question: str) -> None:
        source = collection_of(store)
        store.write(batch_of(new_document("a", ["word"], source_id=source)), principals=ANA)
        assert store.search_text(question, 5, Filter(ANA)) == []
        assert matching_texts(store, f"{question} word", 5, Filter(ANA)) == ["word"]

    def test_a_question_of_a_book_finds_its_rarest_words(self, store: Store) -> None:
        source = collection_of(store)
        documents = [new_document(f"{i}", [f"common text number{i}"], source_id=source) for i in range(200)]
        store.write(batch_of(*documents), principals=ANA)
        question = " ".join(["common text", *(f"filler{i}" for i in range(20_000)), "number7"])[-99_000:]
        assert matching_texts(store, question, 1, Filter(ANA)) == ["common text number7"]

    def test_a_reopened_store_holds_the_same(self, tmp_path: Path) -> None:
        store = self.open_store(tmp_path / "home")
        source = collection_of(store)
        store.write(batch_of(new_document("a", ["kept"], source_id=source)), principals=ANA)
        store.close()
        again = self.open_store(tmp_path / "home")
        assert (
            nearest_texts(again, "kept", 5, Filter(ANA)) == matching_texts(again, "kept", 5, Filter(ANA)) == ["kept"]
        )
        assert again.check() == []

    def test_a_home_that_is_only_read_is_not_made(self, tmp_path: Path) -> None:
        home = tmp_path / "mistyped"
        store = self.open_store(home)
        assert (store.collections(principals=ANA), store.documents(principals=ANA), store.models()) == ([], [], {})
        assert store.search_text("word", 5, Filter(ANA)) == []
        assert store.search_vectors(vector_of("word"), 5, Filter(ANA), embedder=EMBEDDER) == []
        for ask in (
            lambda: store.document("doc_0", principals=ANA),
            lambda: store.sources("notes", principals=ANA),
            lambda: store.write(Batch(collection="notes", removed=["doc_0"]), principals=ANA),
            lambda: store.remove_collection("notes", principals=ANA),
            lambda: store.remove_model("mine"),
        ):
            with pytest.raises(NotFound):
                ask()
        store.follow()
        assert store.check() == []
        store.close()
        assert not home.exists()
        source = collection_of(store)
        store.write(batch_of(new_document("a", ["word"], source_id=source)), principals=ANA)
        assert (
            nearest_texts(store, "word", 5, Filter(ANA)) == matching_texts(store, "word", 5, Filter(ANA)) == ["word"]
        )
        assert home.exists()

    def test_any_order_of_writes_gives_what_a_plain_list_gives(self, tmp_path: Path) -> None:
        from graft.testing.store_model import compare_with_plain_list

        compare_with_plain_list(self.open_store, tmp_path)
