"""Three judged collections -> nDCG@10 of Graft's own pipeline: by meaning, by words, and both.

    python -m benchmarks.bench_retrieval                 test parts, once
    python -m benchmarks.bench_retrieval --tune          dense weights on SciFact train and NFCorpus dev

Each document is a Markdown file headed by its title, added like a user's; its score is its best passage's.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import ours, peers
from benchmarks.corpora import data_folder, read_jsonl
from benchmarks.figures import Figure, markdown_table, write_part
from benchmarks.measures import mean_interval, ndcg

COMMAND = "make bench"
TUNING_PARTS = (("scifact", "train"), ("nfcorpus", "dev"))
MODES: dict[str, float | None] = {"dense": 1.0, "bm25": 0.0, "hybrid": None}
"""Name -> weight of the dense score; None is the shipped default."""

PASSAGES = 50
"""Passages asked for, so that ten different documents are among them."""

PUBLISHED = {"scifact": (0.717, "OpenAI vector stores, published"), "nfcorpus": (0.335, "OGX, published")}
"""Best published hybrid nDCG@10 of a comparable product; Cranfield is compared with plain BM25 here."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Queries of one part of a collection, and the grades of its documents for each."""

    queries: dict[str, str]
    grades: dict[str, dict[str, int]]


def read_judged(data: Path, collection: str, part: str) -> Judged:
    folder = data / "retrieval" / collection
    grades: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / f"{part}.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            grades.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    texts = {row["_id"]: row["text"] for row in read_jsonl(folder / "queries.jsonl")}
    return Judged({query: texts[query] for query in grades}, grades)


def write_documents(data: Path, collection: str, folder: Path, limit: int | None) -> int:
    """One Markdown file a document, named by its id; a document without any text is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for row in read_jsonl(data / "retrieval" / collection / "corpus.jsonl"):
        title, text = row["title"].strip(), row["text"].strip()
        text = text.removeprefix(title).strip()  # Cranfield repeats it
        if (title or text) and (limit is None or written < limit):
            (folder / f"{row['_id']}.md").write_text(f"# {title}\n\n{text}\n" if title else text, encoding="utf-8")
            written += 1
    return written


def score(home: Path, judged: Judged, *, precision: str, dense_weight: float | None) -> tuple[list[float], float]:
    """nDCG@10 of each query, and mean CPU ms of a search."""
    workspace = ours.open_workspace(home, precision=precision, dense_weight=dense_weight)
    values, began = [], time.process_time()
    for query, text in judged.queries.items():
        hits = ours.search_documents(workspace, text, PASSAGES)
        ranking = list(dict.fromkeys(document for document, _ in hits))
        values.append(ndcg(ranking, judged.grades[query]))
    return values, (time.process_time() - began) / len(values) * 1e3


def prepare(collection: str, homes: Path, data: Path, given: argparse.Namespace) -> Path:
    """Add the collection to a workspace; one that is kept from before takes seconds."""
    home = homes / f"{collection}-{given.precision}{'' if given.limit is None else f'-{given.limit}'}"
    folder = home / "documents"
    count = write_documents(data, collection, folder, given.limit)
    began = time.perf_counter()
    ours.add_folder(ours.open_workspace(home / "workspace", precision=given.precision, threads=given.threads), folder)
    print(f"{collection}: {count} documents in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return home / "workspace"


def run_tests(homes: Path, data: Path, given: argparse.Namespace) -> None:
    """Score the test part of each collection in each mode and write figures."""
    rows: list[dict[str, Any]] = []
    made: dict[str, Figure] = {}
    suffix = "" if given.precision == "int8" else f"_{given.precision}"
    for collection in given.collections.split(","):
        home = prepare(collection, homes, data, given)
        judged = read_judged(data, collection, "test")
        for mode, weight in MODES.items():
            values, cpu_ms = score(home, judged, precision=given.precision, dense_weight=weight)
            low, high = mean_interval(values)
            row = {"collection": collection, "mode": mode, "queries": len(values)}
            row |= {"ndcg10": round(sum(values) / len(values), 4), "low": round(low, 4), "high": round(high, 4)}
            rows.append(row | {"search_cpu_ms": round(cpu_ms, 2)})
            print(json.dumps(rows[-1]), file=sys.stderr)
        made[f"retrieval{suffix}.{collection}.ndcg10"] = figure(collection, rows[-len(MODES) :])
    columns = ["collection", "mode", "queries", "ndcg10", "low", "high", "search_cpu_ms"]
    shown = markdown_table(columns, [[row[column] for column in columns] for row in rows])
    print(shown)
    if given.limit is None:
        write_part(f"retrieval{suffix}", made, table=shown, rows=rows)


def figure(collection: str, rows: list[dict[str, Any]]) -> Figure:
    """The default mode against the published figure, else against BM25 alone; 95% interval over queries."""
    by_mode = {row["mode"]: row for row in rows}
    mine = by_mode["hybrid"]
    peer, name = PUBLISHED.get(collection, (by_mode["bm25"]["ndcg10"], "BM25 alone"))
    ratio, low, high = (round(mine[key] / peer, 3) for key in ("ndcg10", "low", "high"))
    return Figure(
        ours=mine["ndcg10"],
        peer=peer,
        peer_name=name,
        ratio=ratio,
        low=low,
        high=high,
        unit="nDCG@10",
        better="higher",
        command=COMMAND,
    )


def tune(homes: Path, data: Path, given: argparse.Namespace) -> None:
    """Score dense weights from 0 to 1 on parts that are not reported; the best mean over the collections wins."""
    weights = [step / given.steps for step in range(given.steps + 1)]
    scores: dict[tuple[str, float], float] = {}
    for collection, part in TUNING_PARTS:
        home = prepare(collection, homes, data, given)
        judged = read_judged(data, collection, part)
        for weight in weights:
            values, _ = score(home, judged, precision=given.precision, dense_weight=weight)
            scores[collection, weight] = sum(values) / len(values)
            print(f"{collection} {part} {weight:.2f} {scores[collection, weight]:.4f}", file=sys.stderr)
    means = {weight: sum(scores[c, weight] for c, _ in TUNING_PARTS) / len(TUNING_PARTS) for weight in weights}
    columns = ["dense_weight", *(f"{c} {p}" for c, p in TUNING_PARTS), "mean"]
    lines = [[w, *(round(scores[c, w], 4) for c, _ in TUNING_PARTS), round(means[w], 4)] for w in weights]
    print(markdown_table(columns, lines))
    print(f"best dense_weight: {max(means, key=lambda weight: means[weight])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="choose the dense weight on train and dev parts")
    parser.add_argument("--steps", type=int, default=10, help="weights tried between 0 and 1")
    parser.add_argument("--collections", default="scifact,nfcorpus,cranfield")
    parser.add_argument("--precision", default="int8", choices=["fp32", "int8"])
    parser.add_argument("--threads", type=int, default=2, help="for adding only; searches are one text each")
    parser.add_argument("--limit", type=int, help="only the first N documents: a smoke test, not written down")
    parser.add_argument("--homes", type=Path, help="keep the workspaces here for the next run")
    given = parser.parse_args()
    peers.pin_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        (tune if given.tune else run_tests)(given.homes or Path(scratch), data_folder(), given)


if __name__ == "__main__":
    main()
