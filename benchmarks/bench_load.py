"""64 clients at once for ten minutes: search, ask, upload; errors, latency, memory.

    pip install -r benchmarks/requirements-server.txt
    python -m benchmarks.bench_load

A client searches, or seldom asks, uploads and puts what it uploaded into a vector store, then thinks for one to three
seconds. 429 is an answer ("come again in N s") and counted apart; everything else over 399 is an error. Clients and
server share the machine. Locust is the client (gevent), the server a process of its own.
"""

from __future__ import annotations

import gevent.monkey

gevent.monkey.patch_all()

import argparse  # noqa: E402
import random  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from locust import HttpUser, between, task  # noqa: E402
from locust.env import Environment  # noqa: E402

from benchmarks.corpora import read_jsonl  # noqa: E402
from benchmarks.figures import Figure, markdown_table, write_part  # noqa: E402
from benchmarks.server import served  # noqa: E402

QUESTIONS = [row["question"] for row in read_jsonl(Path(__file__).parent.parent / "samples" / "questions.jsonl")]
MODEL = "smollm2-135m"


class Client(HttpUser):
    """Somebody at work."""

    wait_time = between(1, 3)

    def on_start(self) -> None:
        """A vector store of one's own."""
        self.client.headers["Authorization"] = f"Bearer {self.environment.parsed_options.key}"
        self.store = self._call("vector_stores", json={"name": "load"}).json()["id"]

    @task(30)
    def search(self) -> None:
        """The passages for a question."""
        self._call("search", json={"query": random.choice(QUESTIONS), "k": 10})

    @task(2)
    def ask(self) -> None:
        """An answer with citations."""
        turns = [{"role": "user", "content": random.choice(QUESTIONS)}]
        self._call("chat/completions", json={"model": MODEL, "messages": turns, "max_tokens": 64})

    @task(1)
    def upload(self) -> None:
        """A file into the vector store, and out again."""
        text = f"# Note {random.random()}\n\n" + " ".join(random.choices(QUESTIONS, k=20))
        reply = self._call("files", data={"purpose": "assistants"}, files={"file": ("note.md", text.encode())})
        if reply.ok:
            file = reply.json()["id"]
            self._call(f"vector_stores/{self.store}/files", named="attach", json={"file_id": file})
            self._call(f"files/{file}", named="delete file", method="DELETE")

    def _call(self, path: str, *, named: str = "", method: str = "POST", **given: Any) -> Any:
        name = named or path
        with self.client.request(
            method, f"/v1/{path}", name=name, catch_response=True, timeout=120, **given
        ) as reply:
            if reply.status_code == 429:
                reply.request_meta["name"] = f"{name}: 429"
                reply.success()
        return reply


def main() -> None:
    """Load, and print what was seen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    with served() as server:
        given.key = server.keys["ana"]
        environment = Environment(user_classes=[Client], host=server.url.removesuffix("/v1"), parsed_options=given)
        runner = environment.create_local_runner()
        runner.start(given.clients, spawn_rate=8)
        gevent.sleep(30)  # everything is warm, and every client is there
        environment.stats.reset_all()
        memory = []
        for _ in range(max(2, round(given.minutes * 60 / 5))):
            gevent.sleep(5)
            memory.append(server.resident_mb())
        runner.stop()
        shown(environment, memory)


def shown(environment: Environment, memory: list[float]) -> None:
    """A table of what was asked, and the first minute's memory beside the last's."""
    entries = sorted(environment.stats.entries.values(), key=lambda one: one.name)
    header = ["", "calls", "errors", "p50 ms", "p95 ms", "p99 ms"]
    times = {one.name: [one.get_response_time_percentile(part) or 0 for part in (0.5, 0.95, 0.99)] for one in entries}
    rows = [[one.name, one.num_requests, one.num_failures, *times[one.name]] for one in entries]
    table = markdown_table(header, rows)
    print(table)
    for error in environment.stats.errors.values():
        print(error.to_dict())
    minute = min(12, len(memory) // 2)
    first, last = sum(memory[:minute]) / minute, sum(memory[-minute:]) / minute
    grown = last / first - 1
    print(f"memory: {first:.0f} MB in the first minute, {last:.0f} MB in the last ({grown:+.1%})")
    figures = {
        "load.search_p95_ms": _figure(times["search"][1], "wall ms, p95 of a search (target 150)"),
        "load.errors": _figure(sum(one.num_failures for one in entries), "errors other than 429 (target 0)"),
        "load.memory_growth": _figure(round(grown, 4), "share, first minute to last (target .05)"),
    }
    write_part("load", figures, table=table, rows=[{"memory_mb": memory}])


def _figure(ours: float, unit: str) -> Figure:
    none: dict[str, Any] = dict.fromkeys(("peer", "peer_name", "ratio", "low", "high"))
    return Figure(ours=ours, unit=unit, better="lower", command="python -m benchmarks.bench_load", **none)


if __name__ == "__main__":
    main()
