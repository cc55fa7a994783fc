"""Schemathesis against a live server over its own OpenAPI document: no case may be answered with a 5xx.

    pip install -r benchmarks/requirements-server.txt
    python -m benchmarks.fuzz_api --cases 20000

Cases are made from every route's parameters and bodies, right ones and wrong ones, and chained where one route's
answer is another's parameter. Long jobs are queued and not worked off, and answers are eight tokens long: requests
are tried here, not models.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.server import served

SETTINGS = """
[serving]
worker = false
parallel = 2
max_body_mb = 2
max_file_mb = 2
[answering]
answer_tokens = 8
"""


def main() -> None:
    """Fuzz, count, and end with 1 where a case failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with served(SETTINGS) as server, tempfile.TemporaryDirectory() as folder:
        document = f"{server.url.removesuffix('/v1')}/openapi.json"
        statuses: Counter[int] = Counter()
        began, rounds = time.monotonic(), 0
        while sum(statuses.values()) < given.cases:
            report = Path(folder) / f"{rounds}.ndjson"
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "schemathesis.cli", "run", document, "--workers", "4"),
                    *("--max-examples", "60", "--seed", str(given.seed + rounds), "--no-color", "--no-shrink"),
                    *("--checks", "not_a_server_error", "--continue-on-failure", "--request-timeout", "60"),
                    *("--suppress-health-check", "all", "--generation-database", "none"),
                    *("-H", f"Authorization: Bearer {server.keys['admin']}"),
                    *("--report", "ndjson", "--report-ndjson-path", str(report)),
                ],
                capture_output=True,
                text=True,
            )
            found = statuses_in(report)
            statuses += found
            rounds += 1
            wrong = sum(count for status, count in found.items() if status >= 500)
            print(f"round {rounds}: {sum(found.values())} cases, {wrong} of them 5xx, {server.resident_mb():.0f} MB")
            if wrong or not found:
                print(done.stdout[done.stdout.rfind("= FAILURES =") :][:10_000], done.stderr[-2_000:])
                sys.exit(1)
        print(dict(sorted(statuses.items())))
        print(
            f"{sum(statuses.values()):,} cases in {(time.monotonic() - began) / 60:.0f} min, none answered with a 5xx"
        )


def statuses_in(report: Path) -> Counter[int]:
    """The status of every response that a report has."""
    found: Counter[int] = Counter()

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(status := value.get("status_code"), int):
                found[status] += 1
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    for line in report.read_text(encoding="utf-8").splitlines():
        walk(json.loads(line))
    return found


if __name__ == "__main__":
    main()
