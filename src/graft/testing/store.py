"""The contract of a store, as tests: subclass `StoreContract`, say how to open one, and run pytest.

    class TestMyStore(StoreContract):
        def open_store(self, home: Path) -> Store:
            return MyStore(home)

It does not know how a store works; what is special to ours is tested in tests/test_store.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from graft.access import Principals
from graft.chunking import Chunk
from graft.documents import Block, BlockKind, Document, Page
from graft.embedding.protocol import Vectors
from graft.errors import AccessDenied, EmbedderMismatch, GraftError, NotFound, StoreError, UsageError
from graft.store import Batch, Filter, NewDocument, Store, Touched

ANA, BEN, HR = frozenset({"user:ana"}), frozenset({"user:ben"}), frozenset({"group:hr"})
EMBEDDER = "test-embedder/1"
DIMENSIONS = 40  # not a multiple of 64, as an embedder's need not be


def vector_of(text: str, dimensions: int = DIMENSIONS) -> Vectors:
    """A unit vector that depends on the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def new_document(
    uri: str,
    paragraphs: Sequence[str],
    *,
    source_id: int,
    principals: Principals = ANA,
    context: str = "",
    dimensions: int = DIMENSIONS,
    with_boxes: bool = False,
) -> NewDocument:
    """A document of these paragraphs, each a chunk on a page of its own."""
    text = "\n".join(paragraphs)
    starts = [sum(len(p) + 1 for p in paragraphs[:i]) for i in range(len(paragraphs))]
    ranges = [(start, start + len(p)) for start, p in zip(starts, paragraphs, strict=True)]
    boxes = np.arange(len(text) * 4, dtype=np.float32).reshape(-1, 4) % 700 / 1.3 if with_boxes else None
    if boxes is not None:
        boxes[[i for i, character in enumerate(text) if character == "\n"]] = np.nan
    document = Document(
        text=text,
        format="pdf" if with_boxes else "text",
        blocks=tuple(Block(start, end, BlockKind.PARAGRAPH) for start, end in ranges),
        pages=tuple(Page(i + 1, start, end, 612, 792) for i, (start, end) in enumerate(ranges)),
        boxes=boxes,
        metadata={"author": "Ana"},
    )
    chunks = [Chunk(a, b, text[a:b], context, i + 1) for i, (a, b) in enumerate(ranges)]
    vectors = [vector_of(chunk.text, dimensions) for chunk in chunks]
    return NewDocument(
        uri=uri,
        source_id=source_id,
        title=Path(uri).stem,
        principals=principals,
        document=document,
        source_sha256=hashlib.sha256(text.encode()).hexdigest(),
        size=len(text),
        mtime_ns=1,
        chunks=chunks,
        vectors=np.array(vectors, np.float32).reshape(len(chunks), dimensions),
    )


def collection_of(store: Store, name: str = "notes", *, principals: Principals = ANA) -> int:
    """A collection with one source; the source's id."""
    store.create_collection(name, principals=principals)
    return store.add_source(name, kind="folder", uri=f"/{name}", grant=principals, principals=principals).id


def batch_of(*documents: NewDocument, collection: str = "notes", embedder: str = EMBEDDER) -> Batch:
    return Batch(collection=collection, embedder=embedder, documents=documents)


def nearest_texts(store: Store, text: str, k: int, filter: Filter) -> list[str]:
    """Texts of the chunks nearest to the vector of `text`."""
    hits = store.search_vectors(vector_of(text), k, filter, embedder=EMBEDDER)
    return [c.text for c in store.chunks([h.chunk_id for h in hits], principals=filter.principals)]


def matching_texts(store: Store, words: str, k: int, filter: Filter) -> list[str]:
    """Texts of the chunks that BM25 finds for `words`."""
    hits = store.search_text(words, k, filter)
    return [c.text for c in store.chunks([h.chunk_id for h in hits], principals=filter.principals)]


class StoreContract:
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

    def test_touching_changes_only_the_file_times(self, store: Store) -> None:
        source = collection_of(store)
        [name] = store.write(batch_of(new_document("a", ["x"], source_id=source)), principals=ANA).added
        store.write(
            Batch(collection="notes", touched=[Touched(document_id=name, size=7, mtime_ns=9)]), principals=ANA
        )
        document = store.document(name, principals=ANA)
        assert (document.size, document.mtime_ns, document.version) == (7, 9, 1)

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

    # Who may read

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

    # Collections, sources, embedders, models

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
        store.mark_synced(source)
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
            store.put_vectors("new", [chunk.chunk_id for chunk in left], vectors)
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

    def test_any_order_of_writes_gives_what_a_plain_list_gives(self, tmp_path: Path) -> None:
        from graft.testing.store_model import compare_with_plain_list

        compare_with_plain_list(self.open_store, tmp_path)
