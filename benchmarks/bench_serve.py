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
from benchmarks.figures import Figure, markdown_table, spread, write_part
from benchmarks.server import served

QUESTIONS = [row["question"] for row in read_jsonl(Path(__file__).parent.parent / "samples" / "questions.jsonl")]


COMMAND = "python -m benchmarks.bench_serve"


def main() -> None:
    """Ask, subtract, and print the percentiles."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1000, help="In each round.")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rounds = []
    with (
        served() as server,
        httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.keys['ana']}"}) as client,
    ):
        _asked(client, 100)  # warm
        for _ in range(given.rounds):
            rounds.append([statistics.quantiles(values, n=100) for values in _asked(client, given.requests)])
    rows = [
        [name, *(spread([one[column][cut - 1] for one in rounds]) for cut in (50, 95, 99))]
        for column, name in enumerate(("added by the server", "as the client sees it"))
    ]
    table = markdown_table(["a search, wall ms (low-high of the rounds)", "p50", "p95", "p99"], rows)
    print(table)
    medians = [one[0][49] for one in rounds]
    figure = Figure(
        ours=round(statistics.median(medians), 3),
        peer=None,
        peer_name=None,
        ratio=None,
        low=round(min(medians), 3),
        high=round(max(medians), 3),
        unit="ms that the server adds to a search, p50 (target 3); low and high are its range",
        better="lower",
        command=COMMAND,
    )
    write_part("serve", {"serve.search_added_ms": figure}, table=table, rows=[{"p50": medians}])


def _asked(client: httpx.Client, requests: int) -> tuple[list[float], list[float]]:
    """Milliseconds that the server added, and that the client waited, request by request."""
    added, whole = [], []
    for number in range(requests):
        began = time.perf_counter()
        reply = client.post("/search", json={"query": QUESTIONS[number % len(QUESTIONS)], "k": 10})
        ms = (time.perf_counter() - began) * 1e3
        whole.append(ms)
        added.append(ms - reply.json()["latency_ms"]["total"])
    return added, whole


if __name__ == "__main__":
    main()
