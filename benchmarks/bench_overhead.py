"""A question over 100,000 passages -> what retrieval adds before a model is asked: embedding and search together.

    python -m benchmarks.bench_overhead

In one process, warm, through Workspace.search with the shipped settings; wall milliseconds of one question.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import bench_store, ours, real_vectors
from benchmarks.corpora import data_folder, read_jsonl
from benchmarks.figures import Figure, markdown_table, write_part
from graft.settings import model_cache

COMMON_MS = 100.0
"""The lower end of what practitioners report for embedding a question and searching; see docs/lab-notes.md."""
TARGET_MS = {"p50": 12.0, "p95": 25.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    given = parser.parse_args()
    folder = model_cache().parent / "bench-vectors"
    if not (folder / "vectors.npy").exists():
        real_vectors.make(folder)
    data = bench_store.read_data(folder, real_vectors.ROWS)
    asked = [row["text"] for row in read_jsonl(data_folder() / "retrieval" / "nfcorpus" / "queries.jsonl")]
    with tempfile.TemporaryDirectory() as home:
        workspace = ours.open_workspace(Path(home), precision="int8")
        bench_store.fill(Path(home), data, embedder=workspace.embedder.identity)
        for question in asked[:20]:
            workspace.search(question)
        rows = []
        for question in asked[20 : 20 + given.questions]:
            began, cpu = time.perf_counter(), time.process_time()
            result = workspace.search(question)
            wall, cpu = (time.perf_counter() - began) * 1e3, (time.process_time() - cpu) * 1e3
            rows.append((wall, cpu, result.latency_ms.embed, result.latency_ms.search))
    columns = np.array(rows)
    names = ("wall ms", "CPU ms", "embed ms", "search ms")
    table = markdown_table(
        ["100,000 passages, one question", "p50", "p95"],
        [
            [name, *(round(float(np.percentile(columns[:, i], p)), 2) for p in (50, 95))]
            for i, name in enumerate(names)
        ],
    )
    print(table)
    made = {}
    for name, percent in (("p50", 50), ("p95", 95)):
        ours_ms = round(float(np.percentile(columns[:, 0], percent)), 2)
        halves = [float(np.percentile(half, percent)) for half in np.array_split(columns[:, 0], 4)]
        made[f"search.overhead_100k_{name}_ms"] = Figure(
            ours=ours_ms,
            peer=COMMON_MS,
            peer_name="common practice, lower end",
            ratio=round(ours_ms / COMMON_MS, 3),
            low=round(min(halves) / COMMON_MS, 3),
            high=round(max(halves) / COMMON_MS, 3),
            unit="wall ms",
            better="lower",
            command="make bench",
        )
    write_part("overhead", made, table=table, rows=[{"median_ms": statistics.median(columns[:, 0])}])


if __name__ == "__main__":
    main()
