"""One system on one corpus, in a process of its own -> one line of JSON on stdout.

    python -m benchmarks.run_one txtai --weights DIR --corpus DIR --questions FILE.jsonl

It does not know the other systems' results; bench_ingest.py does.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks import costs, peers
from benchmarks.corpora import read_jsonl
from benchmarks.ours import graft_system
from benchmarks.system import System, Task

SYSTEMS: dict[str, Callable[[], System]] = {
    "graft-fp32": graft_system("fp32"),
    "graft-int8": graft_system("int8"),
    **peers.PEERS,
}

WARM_UPS = 3
"""First searches, which fill caches; the very first is reported on its own."""


def measure(system: System, task: Task, questions: list[dict[str, str]], *, k: int) -> dict[str, Any]:
    """Run the four steps in order.

    Returns: Seconds of CPU (with all child processes) and wall clock per step, and of the searches
        percentiles and the share whose best k chunks hold the answer.
    """
    start = costs.now()
    for name in system.modules:
        importlib.import_module(name)
    imported = costs.now()
    system.load_model(task)
    loaded = costs.now()
    chunks = system.ingest(task)
    ingested = costs.now()
    began = time.perf_counter()
    system.search(questions[0]["text"], k)
    first_ms = (time.perf_counter() - began) * 1e3
    for question in questions[1:WARM_UPS]:
        system.search(question["text"], k)
    cpu_ms, wall_ms, answered = [], [], 0
    for question in questions:
        cpu, wall = time.process_time(), time.perf_counter()
        texts = system.search(question["text"], k)
        cpu_ms.append((time.process_time() - cpu) * 1e3)
        wall_ms.append((time.perf_counter() - wall) * 1e3)
        answered += any(_plain(question["answer"]) in _plain(text) for text in texts)
    steps = {"import": imported - start, "load": loaded - imported, "ingest": ingested - loaded}
    row: dict[str, Any] = {f"{name}_cpu_s": round(step.cpu_s, 3) for name, step in steps.items()}
    row |= {f"{name}_wall_s": round(step.wall_s, 3) for name, step in steps.items()}
    for name, values in (("cpu", cpu_ms), ("wall", wall_ms)):
        row |= {f"search_{name}_ms_p{p}": round(_percentile(values, p), 2) for p in (50, 95)}
    return row | {
        "first_search_wall_ms": round(first_ms, 1),
        "chunks": chunks,
        "answer_in_top_k": round(answered / len(questions), 3),
        "peak_rss_mb": round(costs.peak_memory_mb(), 1),
        "installed_mb": round(costs.installed_mb(system.distributions), 1),
    }


def _plain(text: str) -> str:
    """Splitters change white space and case."""
    return "".join(text.lower().split())


def _percentile(values: list[float], percent: int) -> float:
    """The least value that at least `percent` per cent of the values do not exceed.

    >>> _percentile([1.0, 2.0, 3.0, 4.0], 50)
    2.0
    """
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-k", type=int, default=10)
    given = parser.parse_args()
    peers.pin_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
        task = Task(
            weights=peers.sentence_transformers_folder(given.weights, Path(scratch) / "weights"),
            folder=given.corpus,
            home=Path(scratch) / "home",
            threads=given.threads,
        )
        row = measure(SYSTEMS[given.system](), task, list(read_jsonl(given.questions)), k=given.k)
    print(json.dumps({"system": given.system, **row}))


if __name__ == "__main__":
    main()
