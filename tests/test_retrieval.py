"""Hits: as many as asked for, best first, neighbours joined, fused as documented."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft import Workspace
from graft.errors import NotFound, UsageError
from graft.retrieval import MOST_JOINED, fuse_scores

scores = st.dictionaries(st.integers(0, 20), st.integers(-500, 5000).map(lambda n: n / 100), max_size=12)


@given(scores, scores, st.floats(0, 1))
def test_fused_scores_lie_between_0_and_1_best_first(
    dense: dict[int, float], sparse: dict[int, float], weight: float
) -> None:
    fused = fuse_scores(dense, sparse, dense_weight=weight)
    assert {key for key, _ in fused} == dense.keys() | sparse.keys()
    values = [value for _, value in fused]
    assert values == sorted(values, reverse=True) and all(0 <= v <= 1 for v in values)


@given(scores)
def test_with_all_weight_on_one_search_its_order_stands(dense: dict[int, float]) -> None:
    fused = [key for key, _ in fuse_scores(dense, {}, dense_weight=1.0)]
    assert [dense[key] for key in fused] == sorted(dense.values(), reverse=True)


@pytest.mark.parametrize("k", [1, 3, 10, 40])
def test_as_many_hits_come_as_were_asked_for(handbook: Workspace, k: int) -> None:
    hits = handbook.search("How long is the warranty on the battery?", k=k).hits
    assert len(hits) == k
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


def test_a_hit_is_exactly_its_range(handbook: Workspace) -> None:
    for question in ("warranty on the frame", "hotel limit", "annual leave in Port Lindley"):
        for hit in handbook.search(question).hits:
            assert handbook.resolve(hit.document_id, hit.version, hit.start, hit.end).text == hit.text


def test_neighbouring_chunks_come_as_one_hit(workspace: Workspace, tmp_path: Path) -> None:
    parts = [f"Paragraph {i} tells of the warranty on part {i}. " + "It is long. " * 40 for i in range(6)]
    (tmp_path / "long.txt").write_text("\n\n".join(parts))
    added = workspace.add([str(tmp_path / "long.txt")])
    hits = workspace.search("warranty on part", k=10).hits
    assert added.chunks >= 6 and len(hits) < added.chunks
    assert all(hit.text.count("Paragraph") <= MOST_JOINED for hit in hits)


def test_a_collection_that_is_not_there_is_named(handbook: Workspace) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        handbook.search("anything", collection="nowhere")


@pytest.mark.parametrize("k", [0, -1, 1_001])
def test_k_has_limits(handbook: Workspace, k: int) -> None:
    with pytest.raises(UsageError, match=f"k = {k}"):
        handbook.search("anything", k=k)


def test_the_latency_of_each_part_is_told(handbook: Workspace) -> None:
    parts = handbook.search("hotel limit").latency_ms
    assert parts.total >= parts.embed + parts.search - 0.01 > 0 and parts.rerank == 0
