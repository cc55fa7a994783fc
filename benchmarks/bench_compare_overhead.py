"""What an experiment takes above its model calls and its searches, on the sample handbook with the embedded model.

    python -m benchmarks.bench_compare_overhead

The same experiment is run anew each round; the share is (wall time - time inside the arms) / time inside the arms,
from the request to the written report, with documents read and models loaded before.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, markdown_table, spread, write_part

COMMAND = "python -m benchmarks.bench_compare_overhead"
SAMPLES = Path(__file__).parents[1] / "samples"
ARMS = ("base", "rag", "best-sentence", "always-first")
TARGET = 0.05


def shares(rounds: int, questions: int) -> list[float]:
    """The share of each round."""
    from graft import Workspace
    from graft.comparing.request import CompareRequest

    found = []
    with tempfile.TemporaryDirectory() as scratch, Workspace(Path(scratch) / "home") as workspace:
        workspace.pull_model("smollm2-135m")
        workspace.add([str(SAMPLES / "handbook")])
        for number in range(-1, rounds):  # the first loads the models
            request = CompareRequest(
                questions=str(SAMPLES / "questions.jsonl"),
                model="smollm2-135m",
                arms=ARMS,
                limit=2 if number < 0 else questions,
                into=str(Path(scratch) / f"round{number}"),
            )
            began = time.perf_counter()
            made = workspace.compare(request)
            wall = time.perf_counter() - began
            inside = sum(reply.total_ms or 0.0 for one in made.records for reply in one.replies.values()) / 1000
            found.append(wall / inside - 1)
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=12)
    given = parser.parse_args()
    measured = shares(given.rounds, given.questions)
    figure = Figure(
        ours=round(statistics.median(measured), 4),
        peer=None,
        peer_name=None,
        ratio=None,
        low=round(min(measured), 4),
        high=round(max(measured), 4),
        unit=f"share above the arms' own time (target {TARGET}); low and high are its range",
        better="lower",
        command=COMMAND,
    )
    table = markdown_table(["an experiment's time above its arms'"], [[spread(measured)]])
    print(table)
    write_part("compare-overhead", {"compare.overhead": figure}, table=table, rows=[{"shares": measured}])


if __name__ == "__main__":
    main()
