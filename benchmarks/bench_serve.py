"""What the server adds to a search: the client's milliseconds less the library's own, request by request.

    python -m benchmarks.bench_serve

One client, one connection, real documents; both figures are of the same request, so a busy machine slows both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import httpx

from benchmarks.corpora import read_jsonl
from benchmarks.server import served

QUESTIONS = [row["question"] for row in read_jsonl(Path(__file__).parent.parent / "samples" / "questions.jsonl")]


def main() -> None:
    """Ask, subtract, and print the percentiles."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=2000)
    given = parser.parse_args()
    added, whole = [], []
    with (
        served() as server,
        httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.keys['ana']}"}) as client,
    ):
        for number in range(given.requests + 100):
            began = time.perf_counter()
            reply = client.post("/search", json={"query": QUESTIONS[number % len(QUESTIONS)], "k": 10})
            ms = (time.perf_counter() - began) * 1e3
            if number >= 100:  # warm
                whole.append(ms)
                added.append(ms - reply.json()["latency_ms"]["total"])
    for name, values in (("added by the server", added), ("as the client sees it", whole)):
        cuts = statistics.quantiles(values, n=100)
        print(f"{name}: p50 {cuts[49]:.2f} ms, p95 {cuts[94]:.2f} ms, p99 {cuts[98]:.2f} ms")


if __name__ == "__main__":
    main()
