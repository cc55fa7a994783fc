"""Vectors and texts -> what the store's searches cost and find, against the bare libraries in the same run.

    python benchmarks/bench_store.py [--vectors V.npy --queries Q.npy --texts T.jsonl] [--rows 100000] > store.json

Real vectors (unit length, one row a text) are best; without them, random ones around 500 centres stand in.
A text is `{"context", "text"}`, one a line; without them, the sentences of the data sets in GRAFT_DATA.
Prints one JSON object in the form of benchmarks/results/latest.json; notes go to stderr. CPU time is of the
whole process, ours and the peer's turn by turn; set OMP_NUM_THREADS=1 for one thread.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numkong
import numpy as np
import tantivy
from numpy.typing import NDArray

from graft.access import OWNER
from graft.chunking import Chunk
from graft.documents import Block, BlockKind, Document
from graft.store import Batch, Filter, NewDocument, SqlStore

WHO, ONE, TEN = frozenset({OWNER}), frozenset({"group:one"}), frozenset({"group:ten"})
EMBEDDER, K, PER_DOCUMENT = "bench", 10, 10
Search = Callable[[int], Any]


@dataclass(frozen=True, slots=True)
class Data:
    """Shapes: vectors (n, d), queries (q, d); texts n pairs of context and text; questions q texts."""

    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]
    texts: Sequence[tuple[str, str]]
    questions: Sequence[str]


def main() -> None:
    args = _arguments()
    data = _data(args)
    with tempfile.TemporaryDirectory() as folder:
        store, results = fill(Path(folder), data)
        results |= _vectors(store, data) | _filters(store, data) | _words_and_hybrid(store, data, Path(folder))
        results |= _freshness(store, data, Path(folder))
        store.close()
    command = "OMP_NUM_THREADS=1 python benchmarks/bench_store.py" + "".join(f" {a}" for a in sys.argv[1:])
    today = datetime.date.today().isoformat()
    print(json.dumps({n: r | {"command": command, "date": today} for n, r in results.items()}, indent=1))


def fill(home: Path, data: Data, *, embedder: str = EMBEDDER) -> tuple[SqlStore, dict[str, Any]]:
    """A store in `home` that holds the data, ten passages a document, and how long its indexes took."""
    store = SqlStore(home)
    store.create_collection("bench", principals=WHO)
    source = store.add_source("bench", kind="folder", uri="/bench", grant=WHO, principals=WHO).id
    starts = range(0, len(data.texts), PER_DOCUMENT)
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(starts), 100):
        documents = [_document(data, start, source) for start in starts[first : first + 100]]
        store.write(Batch(collection="bench", embedder=embedder, documents=documents), principals=WHO)
    rows = len(data.texts)
    _note(f"write {rows} rows: {time.perf_counter() - began:.1f} s, CPU {time.process_time() - cpu:.1f} s")
    began = time.perf_counter()
    store.follow()
    built = time.perf_counter() - began
    size = sum(p.stat().st_size for p in home.rglob("*") if p.is_file()) / 1e6
    _note(f"build both indexes: {built:.1f} s; workspace {size:.0f} MB")
    return store, {"store.build_indexes_100k_s": _result([built], [], "", "s", "lower")}


def _document(data: Data, start: int, source: int, *, mark: str = "") -> NewDocument:
    pairs = data.texts[start : start + PER_DOCUMENT]
    text = "\n".join(mark + t for _, t in pairs)
    chunks, at = [], 0
    for context, part in pairs:
        end = at + len(mark) + len(part)
        chunks.append(Chunk(at, end, text[at:end], context, None))
        at = end + 1
    number = start // PER_DOCUMENT
    groups = ({*ONE} if number % 100 == 0 else set()) | ({*TEN} if number % 10 == 1 else set())
    return NewDocument(
        uri=f"{number}.txt",
        source_id=source,
        title=f"{number}",
        principals=WHO | groups,
        document=Document(text, "text", (Block(0, len(text), BlockKind.PARAGRAPH),)),
        source_sha256=f"{mark}{number}",
        size=len(text),
        mtime_ns=0,
        chunks=chunks,
        vectors=data.vectors[start : start + len(pairs)],
    )


def _vectors(store: SqlStore, data: Data) -> dict[str, Any]:
    floor = _floor(data, K)
    ours = _ours(store, data, Filter(WHO))
    found = [[h.chunk_id for h in ours(i)] for i in range(len(data.queries))]
    recall = _recall(found, data, np.arange(len(data.vectors)))
    peer = _recall(
        [[int(r) + 1 for r in floor(i)] for i in range(len(data.queries))], data, np.arange(len(data.vectors))
    )
    _note(f"recall@10: ours {recall:.4f}, floor with as many rescored {peer:.4f}")
    exact = _paired(ours, lambda i: _best(data.vectors @ data.queries[i]), len(data.queries))
    _note(f"numpy float32 over all rows: {statistics.median(exact[1]):.2f} ms")
    ratio = _result(
        *_paired(ours, floor, len(data.queries)), "numkong hammings_packed + numpy rescore", "CPU ms", "lower"
    )
    return {
        "search.vector_100k": ratio,
        "search.vector_100k_recall10": _result(
            [recall], [peer], "the floor, same number rescored", "recall", "higher"
        ),
    }


def _filters(store: SqlStore, data: Data) -> dict[str, Any]:
    results = {}
    documents = np.arange(len(data.vectors)) // PER_DOCUMENT
    for name, who, rows in (("1pct", ONE, documents % 100 == 0), ("10pct", TEN, documents % 10 == 1)):
        allowed = np.flatnonzero(rows)
        ours = _ours(store, data, Filter(who))

        def floor(i: int, allowed: NDArray[np.intp] = allowed) -> Any:
            return allowed[_best(data.vectors[allowed] @ data.queries[i])]

        found = [[h.chunk_id for h in ours(i)] for i in range(len(data.queries))]
        outside = int((~np.isin(np.concatenate(found) - 1, allowed)).sum())
        _note(f"filter {name}: recall@10 {_recall(found, data, allowed):.4f}, hits outside the filter {outside}")
        paired = _paired(ours, floor, len(data.queries))
        results[f"search.filter_{name}_100k"] = _result(
            *paired, "numpy float32 over the allowed rows, known beforehand", "CPU ms", "lower"
        )
    return results


def _words_and_hybrid(store: SqlStore, data: Data, home: Path) -> dict[str, Any]:
    raw = _raw_tantivy(home, data)
    everyone = Filter(WHO)
    vectors = _ours(store, data, everyone)
    floor = _floor(data, 100)

    def ours(i: int) -> Any:
        return store.search_text(data.questions[i], 100, everyone)

    def both(i: int) -> Any:
        return vectors(i, 100), ours(i)

    def overhead(i: int) -> Any:
        hits = both(i)
        return store.chunks([h.chunk_id for h in hits[0][:K] + hits[1][:K]], principals=WHO)

    count = len(data.questions)
    walls = []
    for i in range(count):
        began = time.perf_counter()
        overhead(i)
        walls.append((time.perf_counter() - began) * 1e3)
    for name, who in (("1%", ONE), ("10%", TEN)):
        filtered = Filter(who)
        cost, _ = _paired(lambda i, f=filtered: store.search_text(data.questions[i], 100, f), raw, count)
        _note(f"BM25 with a {name} filter: {statistics.median(cost):.2f} ms CPU")
    return {
        "search.bm25_100k": _result(*_paired(ours, raw, count), "tantivy itself, same index", "CPU ms", "lower"),
        "search.hybrid_100k": _result(
            *_paired(both, lambda i: (floor(i), raw(i)), count), "numkong floor + tantivy itself", "CPU ms", "lower"
        ),
        "store.search_and_read_100k_ms": _result(walls, [], "", "wall ms: both searches, 20 chunks read", "lower"),
    }


def _freshness(store: SqlStore, data: Data, home: Path) -> dict[str, Any]:
    """Open time; the first search after 1,000 changed rows; one after 10; memory."""
    opens, visible, small = [], [], []
    for _ in range(5):
        began = time.perf_counter()
        other = SqlStore(home)
        _ours(other, data, Filter(WHO))(0)
        other.search_text(data.questions[0], K, Filter(WHO))
        opens.append((time.perf_counter() - began) * 1e3)
        other.close()
    source = store.sources("bench", principals=WHO)[0].id
    for round_ in range(10):
        count = 100 if round_ % 2 == 0 else 1
        starts = [(round_ * 1000 + i * PER_DOCUMENT) % len(data.texts) for i in range(count)]
        documents = [_document(data, start, source, mark=f"round{round_} ") for start in starts]
        store.write(Batch(collection="bench", embedder=EMBEDDER, documents=documents), principals=WHO)
        began = time.perf_counter()
        hits = store.search_text(f"round{round_}", 2000, Filter(WHO))
        _ours(store, data, Filter(WHO))(0)
        (visible if count == 100 else small).append((time.perf_counter() - began) * 1e3)
        assert len(hits) == count * PER_DOCUMENT
    _note(f"first search after 10 changed rows: {statistics.median(small):.0f} ms")
    _note(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    _note(f"sequence check: {_microseconds(store.database.current_sequence):.0f} us")
    return {
        "store.open_100k_ms": _result(opens, [], "", "wall ms: open, first of both searches", "lower"),
        "store.visible_1000_rows_ms": _result(visible, [], "", "wall ms", "lower"),
    }


def _floor(data: Data, k: int) -> Search:
    """As little as this can cost in Python: numkong's scan of the signs packed beforehand, all rows within the
    distance that holds as many candidates as ours (guessed from every eighth), gathered into memory that is
    used again, their float32 scores. No filter, no deletions, no check for changes, rows instead of ids."""
    rows = len(data.vectors)
    wanted = max(400, 10 * k, 10 * math.isqrt(rows))
    packed = numkong.hammings_pack(np.packbits(data.vectors > 0, axis=1))
    codes = np.packbits(data.queries > 0, axis=1)
    gathered = np.empty_like(data.vectors)

    def search(i: int) -> Any:
        distances = np.asarray(numkong.hammings_packed(codes[i : i + 1], packed))[0]
        limit = np.partition(distances[::8], wanted // 8)[wanted // 8]
        while np.count_nonzero(distances <= limit) < wanted:
            limit += 1
        near = np.flatnonzero(distances <= limit)
        few = np.take(data.vectors, near, axis=0, out=gathered[: len(near)], mode="clip")
        return near[_best(few @ data.queries[i], k)]

    return search


def _raw_tantivy(home: Path, data: Data) -> Search:
    from graft.store.text_index import _analyzer, _schema

    folder = next(p for p in (home / "index" / "text").iterdir() if p.is_dir())
    index, analyzer, schema = tantivy.Index.open(str(folder)), _analyzer(), _schema()
    index.register_tokenizer("words", analyzer)
    searcher = index.searcher()

    def search(i: int) -> Any:
        terms = dict.fromkeys(analyzer.analyze(data.questions[i]))
        words = [
            (tantivy.Occur.Should, tantivy.Query.term_query(schema, "body", t, index_option="freq")) for t in terms
        ]
        hits = searcher.search(tantivy.Query.boolean_query(words), 100, count=False).hits
        return searcher.fast_field_values("chunk", [address for _, address in hits])

    return search


def _ours(store: SqlStore, data: Data, filter: Filter) -> Callable[..., Any]:
    return lambda i, k=K: store.search_vectors(data.queries[i], k, filter, embedder=EMBEDDER)


def _best(scores: NDArray[np.float32], k: int = K) -> NDArray[np.intp]:
    best = np.argpartition(scores, len(scores) - k)[-k:]
    return best[np.argsort(-scores[best])]


def _recall(found: Sequence[Sequence[int]], data: Data, allowed: NDArray[np.intp]) -> float:
    """Share of the true best 10 that was found; chunk ids count rows from 1. A tie with the tenth counts."""
    shares = []
    for chunks, query in zip(found, data.queries, strict=True):
        scores = data.vectors @ query
        tenth = np.partition(scores[allowed], len(allowed) - K)[-K] - 1e-6
        shares.append(np.mean(scores[np.array(chunks) - 1] >= tenth))
    return float(np.mean(shares))


def _paired(ours: Search, peer: Search, count: int) -> tuple[list[float], list[float]]:
    """CPU milliseconds of each query, ours and the peer's turn by turn, the better of three rounds."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(count):
        for search, kept in zip((ours, peer), times, strict=True):
            rounds = []
            for _ in range(3):
                began = time.process_time_ns()
                search(i)
                rounds.append((time.process_time_ns() - began) / 1e6)
            kept.append(min(rounds))
    return times


def _result(ours: Sequence[float], peer: Sequence[float], peer_name: str, unit: str, better: str) -> dict[str, Any]:
    """Medians, the ratio of sums, and its 95% interval over queries drawn again 1,000 times."""
    row: dict[str, Any] = {"ours": round(statistics.median(ours), 4), "peer": None, "peer_name": peer_name or None}
    row |= {"ratio": None, "low": None, "high": None, "unit": unit, "better": better}
    if peer:
        a, b = np.array(ours), np.array(peer)
        drawn = np.random.default_rng(0).integers(0, len(a), (1000, len(a)))
        low, high = np.percentile(a[drawn].sum(axis=1) / b[drawn].sum(axis=1), [2.5, 97.5])
        row |= {"peer": round(statistics.median(peer), 4), "ratio": round(float(a.sum() / b.sum()), 4)}
        row |= {"low": round(float(low), 4), "high": round(float(high), 4)}
    return row


def _microseconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    for _ in range(1000):
        call()
    return (time.perf_counter() - began) * 1e3


def read_data(folder: Path, rows: int) -> Data:
    """What `benchmarks.real_vectors` has made."""
    lines = [json.loads(line) for line in (folder / "texts.jsonl").open(encoding="utf-8")][:rows]
    vectors, queries = np.load(folder / "vectors.npy")[:rows], np.load(folder / "queries.npy")
    root = Path(os.environ.get("GRAFT_DATA", Path(__file__).parents[2] / "shared" / "data")) / "retrieval"
    questions = [json.loads(line)["text"] for line in (root / "scifact/queries.jsonl").open(encoding="utf-8")]
    texts = [(line["context"], line["text"]) for line in lines]
    return Data(_unit(vectors), _unit(queries), texts, questions[: len(queries)])


def _data(args: argparse.Namespace) -> Data:
    root = Path(os.environ.get("GRAFT_DATA", Path(__file__).parents[2] / "shared" / "data")) / "retrieval"
    questions = [json.loads(line)["text"] for line in (root / "scifact/queries.jsonl").open(encoding="utf-8")]
    if args.texts:
        lines = [json.loads(line) for line in args.texts.open(encoding="utf-8")]
        texts = [(line["context"], line["text"]) for line in lines]
    else:
        texts = list(_sentences(root))
    random = np.random.default_rng(0)
    if args.vectors:
        vectors, queries = np.load(args.vectors), np.load(args.queries)
    else:
        centres = random.standard_normal((500, 384))
        vectors = centres[random.integers(0, 500, args.rows)] + 0.8 * random.standard_normal((args.rows, 384))
        queries = vectors[random.integers(0, args.rows, 200)] + 0.5 * random.standard_normal((200, 384))
    count = min(args.rows, len(vectors))
    texts = [texts[i % len(texts)] for i in range(count)]
    _note(f"{count} rows of {vectors.shape[1]} dimensions, {'given' if args.vectors else 'random'}")
    return Data(_unit(vectors[:count]), _unit(queries[: args.questions]), texts, questions[: args.questions])


def _sentences(root: Path) -> Any:
    for name in ("scifact", "nfcorpus", "cranfield"):
        for line in (root / name / "corpus.jsonl").open(encoding="utf-8"):
            document = json.loads(line)
            for sentence in re.split(r"(?<=[.!?])\s+", document["text"]):
                if len(sentence) > 30:
                    yield document.get("title", ""), sentence


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--queries", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=300)
    args = parser.parse_args()
    if args.vectors and not args.queries:
        parser.error("--vectors needs --queries of the same embedder")
    return args


if __name__ == "__main__":
    main()
