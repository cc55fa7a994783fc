"""100,000 real passages and 300 real questions -> their vectors, made once and kept.

    python -m benchmarks.real_vectors        (prints the folder: vectors.npy, queries.npy, texts.jsonl)

Sentences of the retrieval and chunking sets, each under its title; the embedder is the shipped default.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks import ours
from benchmarks.corpora import data_folder, read_jsonl
from graft.settings import model_cache

ROWS = 100_000
QUESTIONS = 300
_STEP = 5_000
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def passages(data: Path) -> Iterator[tuple[str, str]]:
    """(title, sentence or two neighbours), the single sentences of every set first."""
    documents: list[tuple[str, str]] = []
    for name in ("scifact", "nfcorpus", "cranfield"):
        documents += [
            (row.get("title", ""), row["text"]) for row in read_jsonl(data / "retrieval" / name / "corpus.jsonl")
        ]
    for path in sorted((data / "qa" / "chunking_eval" / "corpora").glob("*")):
        documents.append((path.stem, path.read_text(encoding="utf-8", errors="replace")))
    for joined in (1, 2):
        for title, text in documents:
            parts = [part for part in _SENTENCE.split(text) if len(part) > 30]
            for i in range(len(parts) - joined + 1):
                yield title, " ".join(parts[i : i + joined])[:600]


def make(folder: Path) -> None:
    data = data_folder()
    texts = list(islice(passages(data), ROWS))
    embedder = ours.open_graft_embedder("int8", threads=0)
    began, parts = time.perf_counter(), []
    for start in range(0, len(texts), _STEP):
        parts.append(embedder.embed([f"{title}\n{text}" for title, text in texts[start : start + _STEP]]))
        print(f"{start + _STEP} of {len(texts)}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    questions = [
        row["text"] for row in islice(read_jsonl(data / "retrieval" / "scifact" / "queries.jsonl"), QUESTIONS)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "queries.npy", embedder.embed(questions))
    lines = (json.dumps({"context": title, "text": text}) for title, text in texts)
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "embedder.txt").write_text(embedder.identity, encoding="utf-8")
    np.save(folder / "vectors.npy", np.concatenate(parts))  # last: its presence says that all is there


def main() -> None:
    folder = model_cache().parent / "bench-vectors"
    if not (folder / "vectors.npy").exists():
        make(folder)
    print(folder)


if __name__ == "__main__":
    main()
