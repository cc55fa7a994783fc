"""The derived indexes: exact filters, recall, files that survive a crash in the middle, words of any script."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from graft.documents import Page
from graft.errors import IndexCorrupt
from graft.store.encoding import decode_boxes, decode_pages, encode_boxes, encode_pages
from graft.store.text_index import MAX_TERMS, TextIndex, TextRow
from graft.store.vector_index import BLOCK, EXACT_ROWS, VectorIndex, VectorRows, _codes, _nearest

DIMENSIONS = 96
ALL_SCOPES = np.arange(100)


def clustered(count: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around 50 centres, as texts about few subjects have."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((50, DIMENSIONS))
    vectors = centres[random.integers(0, 50, count)] + 0.7 * random.standard_normal((count, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def rows_of(vectors: NDArray[np.float32], *, first: int = 0, per_document: int = 10) -> VectorRows:
    """Rows with rising chunk ids, documents of some chunks each, document d in scope d % 100."""
    chunks = np.arange(first, first + len(vectors))
    documents = chunks // per_document
    return VectorRows(chunks, documents, (documents % 100).astype(np.int32), vectors)


def new_index(folder: Path, *, rescore: int = 400) -> VectorIndex:
    index = VectorIndex(folder, dimensions=DIMENSIONS, store="s", rescore=rescore)
    folder.mkdir(parents=True, exist_ok=True)
    index.clear()
    return index


def add(index: VectorIndex, vectors: NDArray[np.float32], *, first: int = 0, sequence: int = 1) -> None:
    rows = rows_of(vectors, first=first)
    index.apply(sequence=sequence, changed=np.unique(rows.documents), rows=[rows])


def found(index: VectorIndex, query: NDArray[np.float32], **limits: NDArray[np.int64] | None) -> list[int]:
    limits = {"scopes": ALL_SCOPES, "documents": None} | limits
    return [hit.chunk_id for hit in index.search(query, 10, **limits)]  # type: ignore[arg-type]


def exact(vectors: NDArray[np.float32], query: NDArray[np.float32], allowed: NDArray[np.intp]) -> set[int]:
    return set(allowed[np.argsort(-(vectors[allowed] @ query))[:10]].tolist())


@pytest.mark.parametrize("count", [1, 9, EXACT_ROWS, EXACT_ROWS + 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 77])
def test_rows_added_in_uneven_parts_are_found_as_numpy_finds_them(tmp_path: Path, count: int) -> None:
    vectors, index = clustered(count), new_index(tmp_path)
    cuts = sorted({0, 10 * (count // 30), 10 * (count // 25), count})
    for sequence, (start, end) in enumerate(pairwise(cuts), 1):
        add(index, vectors[start:end], first=start, sequence=sequence)
    queries = clustered(40, seed=2)
    shares = [len(exact(vectors, q, np.arange(count)) & set(found(index, q))) / min(10, count) for q in queries]
    assert np.mean(shares) == 1.0 if count <= EXACT_ROWS else np.mean(shares) > 0.98


@pytest.mark.parametrize("scopes", [[7], [3, 50], list(range(30)), list(range(99))])
def test_a_filter_is_exact_whichever_way_is_taken(tmp_path: Path, scopes: list[int]) -> None:
    vectors, index = clustered(20_000), new_index(tmp_path)
    add(index, vectors)
    allowed = np.flatnonzero(np.isin(np.arange(20_000) // 10 % 100, scopes))
    assert (len(allowed) > EXACT_ROWS) == (len(scopes) > 20)
    shares = []
    for query in clustered(30, seed=3):
        hits = set(found(index, query, scopes=np.array(scopes)))
        assert len(hits) == 10 and hits <= set(allowed.tolist())
        shares.append(len(hits & exact(vectors, query, allowed)) / 10)
    assert np.mean(shares) == 1.0 if len(allowed) <= EXACT_ROWS else np.mean(shares) > 0.98


def test_scopes_and_documents_that_the_index_does_not_know_find_nothing(tmp_path: Path) -> None:
    index = new_index(tmp_path)
    assert found(index, clustered(1)[0]) == []
    add(index, clustered(100))
    query = clustered(1)[0]
    assert found(index, query, scopes=np.array([5000])) == []
    assert found(index, query, scopes=np.array([], np.int64)) == []
    assert found(index, query, documents=np.array([], np.int64)) == []
    assert set(found(index, query, documents=np.array([4]))) == set(range(40, 50))


def test_equal_scores_come_in_order_of_chunk_id(tmp_path: Path) -> None:
    index = new_index(tmp_path)
    same = np.repeat(clustered(1), 30, axis=0)
    for sequence, first in enumerate((20, 0, 10), 1):
        add(index, same[:10], first=first, sequence=sequence)
    assert found(index, same[0]) == list(range(10))


def test_bytes_left_by_a_process_that_died_while_adding_are_cut_off(tmp_path: Path) -> None:
    vectors, index = clustered(300), new_index(tmp_path)
    add(index, vectors[:100])
    for name in ("chunks", "documents", "scopes", "alive", "vectors"):
        with next(tmp_path.glob(f"{name}.*")).open("ab") as file:
            file.write(b"\x07" * 12_345)
    again = VectorIndex(tmp_path, dimensions=DIMENSIONS, store="s", rescore=400)
    again.load()
    assert sorted(again.chunk_ids().tolist()) == list(range(100))
    add(again, vectors[100:], first=100, sequence=2)
    for query in clustered(10, seed=4):
        assert set(found(again, query)) == exact(vectors, query, np.arange(300))


def test_a_failure_while_adding_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    vectors, index = clustered(200), new_index(tmp_path)
    add(index, vectors[:100])

    def rows() -> Iterator[VectorRows]:
        yield rows_of(vectors[100:150], first=100)
        raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError):
        index.apply(sequence=2, changed=np.arange(20), rows=rows())
    again = VectorIndex(tmp_path, dimensions=DIMENSIONS, store="s", rescore=400)
    again.load()
    assert again.sequence == index.sequence == 1
    assert (
        set(found(again, vectors[3])) == set(found(index, vectors[3])) == exact(vectors, vectors[3], np.arange(100))
    )


def test_replaced_rows_are_compacted_away_while_an_older_view_still_searches(tmp_path: Path) -> None:
    vectors, index = clustered(20_000), new_index(tmp_path)
    add(index, vectors)
    other = VectorIndex(tmp_path, dimensions=DIMENSIONS, store="s", rescore=400)
    other.load()
    add(index, vectors[:12_000], sequence=2)
    size = next(tmp_path.glob("chunks.*")).stat().st_size
    assert size == 20_000 * 8 and len(list(tmp_path.glob("vectors.*"))) == 1
    query = clustered(1, seed=5)[0]
    assert set(found(index, query)) == set(found(other, query)) == exact(vectors, query, np.arange(20_000))
    other.load()
    assert set(found(other, query)) == exact(vectors, query, np.arange(20_000))


def test_removed_rows_are_not_found(tmp_path: Path) -> None:
    vectors, index = clustered(1000), new_index(tmp_path)
    add(index, vectors)
    index.apply(sequence=2, changed=np.arange(0, 100, 2), rows=[])
    allowed = np.flatnonzero(np.arange(1000) // 10 % 2 == 1)
    assert set(found(index, vectors[0])) == exact(vectors, vectors[0], allowed)


def test_a_missing_index_says_that_it_can_be_rebuilt(tmp_path: Path) -> None:
    with pytest.raises(IndexCorrupt) as caught:
        VectorIndex(tmp_path, dimensions=DIMENSIONS, store="s", rescore=1).load()
    assert caught.value.fix == "graft collections rebuild"


@given(arrays(np.uint16, st.integers(1, 400), elements=st.integers(0, 300)), st.integers(1, 500))
def test_the_nearest_are_all_within_a_distance_that_holds_enough(distances: NDArray[np.uint16], wanted: int) -> None:
    near = _nearest(distances, wanted)
    assert len(near) >= min(wanted, len(distances))
    assert set(near) == set(np.flatnonzero(distances <= distances[near].max()))


@given(arrays(np.float32, (3, 70), elements=st.floats(-1, 1, width=32)))
def test_codes_differ_where_signs_do(vectors: NDArray[np.float32]) -> None:
    codes = _codes(vectors, 2)
    different = np.bitwise_count(codes[0] ^ codes[1]).sum()
    assert different == ((vectors[0] > 0) != (vectors[1] > 0)).sum()


# Words


def text_index(folder: Path, *texts: str) -> TextIndex:
    index = TextIndex(folder, store="s")
    folder.mkdir(parents=True, exist_ok=True)
    index.clear()
    rows = [TextRow(i, i, i % 3, "", text) for i, text in enumerate(texts)]
    index.apply(sequence=1, changed=np.arange(len(texts)), rows=rows)
    return index


def words_find(index: TextIndex, question: str) -> list[int]:
    return [hit.chunk_id for hit in index.search(question, 99, scopes=np.arange(3), documents=None)]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("The company is refunding orders", "company refunds an order"),
        ("Überweisung nach München", "uberweisung munchen"),
        ("数据库检索系统", "检索"),
        ("データベースを検索する", "検索"),
        ("ฐานข้อมูล", "ข้อมูล"),
        ("Товар по накладной", "НАКЛАДНОЙ"),
        ("part X-4711/b is missing", "where is 4711"),
    ],
)
def test_words_are_found_in_any_script_and_form(tmp_path: Path, text: str, question: str) -> None:
    assert words_find(text_index(tmp_path, "nothing of it", text), question)[0] == 1


def test_a_long_question_is_cut_to_its_rarest_known_words(tmp_path: Path) -> None:
    index = text_index(tmp_path, *(f"common w{i}" for i in range(300)))
    terms = index.terms("common " + " ".join(f"w{i}" for i in range(300)) + " unknown" * 50)
    assert len(terms) == MAX_TERMS and "common" not in terms and "unknown" not in terms


def test_many_small_additions_do_not_leave_many_segments(tmp_path: Path) -> None:
    index = text_index(tmp_path, "first")
    for number in range(1, 60):
        row = TextRow(number, number, 0, "", f"word {number}")
        index.apply(sequence=number + 1, changed=np.array([number]), rows=[row])
    assert index._loaded().searcher.num_segments <= 16
    assert len(words_find(index, "word")) == 59


def test_a_commit_whose_state_was_not_written_is_repeated_without_doubles(tmp_path: Path) -> None:
    index = text_index(tmp_path, "one here", "two here")
    row = TextRow(7, 1, 1, "", "three here")
    index._commit(index._loaded(), np.array([1]), [row])  # and then the process dies
    again = TextIndex(tmp_path, store="s")
    again.load()
    assert again.sequence == 1
    again.apply(sequence=2, changed=np.array([1]), rows=[row])
    assert sorted(words_find(again, "here")) == [0, 7]


def test_a_first_build_that_died_after_its_commit_is_repeated_without_doubles(tmp_path: Path) -> None:
    index = TextIndex(tmp_path, store="s")
    index.clear()
    rows = [TextRow(1, 1, 0, "", "one here")]
    index._commit(index._loaded(), np.array([1]), rows)
    again = TextIndex(tmp_path, store="s")
    again.load()
    again.apply(sequence=1, changed=np.array([1]), rows=rows)
    assert words_find(again, "here") == [1]


# Columns


@settings(max_examples=60)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(0, 30), st.just(4)),
        elements=st.floats(-200, 14_400, width=32) | st.just(float("nan")),
    )
)
def test_boxes_come_back_within_half_a_step(boxes: NDArray[np.float32]) -> None:
    saved = encode_boxes(boxes)
    assert saved is not None
    again = decode_boxes(saved)
    assert again.shape == boxes.shape and (np.isnan(again) == np.isnan(boxes)).all()
    finite = boxes[np.isfinite(boxes)]
    step = max(0.1, (finite.max(initial=0) - min(0, finite.min(initial=0))) / 65_534)
    np.testing.assert_allclose(again, boxes, atol=step / 2 * 1.01 + 2e-3)


def test_pages_come_back() -> None:
    pages = (Page(1, 0, 10, 612.0, 792.5), Page(2, 11, 11, 595.0, 842.0))
    assert decode_pages(encode_pages(pages)) == pages
