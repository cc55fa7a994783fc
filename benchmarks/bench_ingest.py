"""Documents -> searchable, Graft against its peers: CPU seconds, wall clock, memory, search latency.

    python -m benchmarks.bench_ingest --kb 1000 --rounds 3

Every system reads the same files with the same weights and threads in a process of its own, and the
systems take turns (A B C D, A B C D, ...), so that a busy spell of the machine hits all alike; no run is dropped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.corpora import Corpus, build_corpus, data_folder
from benchmarks.figures import Figure, against_best, markdown_table, spread, write_part
from benchmarks.peers import READS_PDF
from benchmarks.run_one import SYSTEMS

COMMAND = "make bench"
OURS = ("graft-fp32", "graft-int8")


def run_rounds(systems: list[str], corpus: Corpus, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each system in each round, in the order run.

    Raises:
        SystemExit: A system failed; figures without it would mislead.
    """
    questions = corpus.folder.parent / "questions.jsonl"
    step = max(1, len(corpus.questions) // given.searches)
    chosen = corpus.questions[::step][: given.searches]
    questions.write_text("\n".join(json.dumps(dataclasses.asdict(q)) for q in chosen), encoding="utf-8")
    rows = []
    for number in range(given.rounds):
        for system in systems:
            command = [sys.executable, "-m", "benchmarks.run_one", system, "--weights", str(given.weights)]
            command += [
                "--corpus",
                str(corpus.folder),
                "--questions",
                str(questions),
                "--threads",
                str(given.threads),
            ]
            ended = subprocess.run(
                command, capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"}
            )
            if ended.returncode != 0:
                raise SystemExit(f"{' '.join(command)}\nexited {ended.returncode}:\n{ended.stderr[-3000:]}")
            row = {"round": number, **json.loads(ended.stdout.splitlines()[-1]), "documents": corpus.documents}
            row |= {"kb": round(corpus.kb, 1), "kb_per_cpu_s": round(corpus.kb / row["ingest_cpu_s"], 2)}
            row["cold_start_cpu_s"] = round(row["import_cpu_s"] + row["load_cpu_s"], 3)
            print(json.dumps(row), file=sys.stderr)
            rows.append(row)
    return rows


def figures(rows: list[dict[str, Any]]) -> dict[str, Figure]:
    """Figures of both precisions, as far as ours and at least one peer were run."""
    systems = list(dict.fromkeys(row["system"] for row in rows))
    rivals = [system for system in systems if system not in OURS]
    made = {}
    for ours in (system for system in OURS if system in systems and rivals):
        suffix = "" if ours == "graft-fp32" else "_int8"
        for name, column, unit, better in (
            (f"ingest{suffix}.kb_per_cpu_s", "kb_per_cpu_s", "KB/CPU-s", "higher"),
            (f"ingest{suffix}.search_cpu_ms_p50", "search_cpu_ms_p50", "CPU ms", "lower"),
            (f"ingest{suffix}.cold_start_cpu_s", "cold_start_cpu_s", "CPU-s", "lower"),
            (f"ingest{suffix}.peak_rss_mb", "peak_rss_mb", "MB", "lower"),
            (f"ingest{suffix}.installed_mb", "installed_mb", "MB", "lower"),
        ):
            made[name] = against_best(
                _column(rows, ours, column),
                {rival: _column(rows, rival, column) for rival in rivals},
                unit=unit,
                better=better,  # type: ignore[arg-type]
                command=COMMAND,
            )
    return made


def table(rows: list[dict[str, Any]]) -> str:
    """One line a system: median over the rounds, least and greatest in brackets."""
    columns = ["kb_per_cpu_s", "chunks", "import_cpu_s", "load_cpu_s", "ingest_cpu_s", "ingest_wall_s"]
    columns += ["search_cpu_ms_p50", "search_cpu_ms_p95", "search_wall_ms_p50", "search_wall_ms_p95"]
    columns += ["answer_in_top_k", "peak_rss_mb", "installed_mb"]
    systems = dict.fromkeys(row["system"] for row in rows)
    lines = [[system, *(spread(_column(rows, system, column)) for column in columns)] for system in systems]
    first = rows[0]
    return f"{first['documents']} documents, {first['kb']:.0f} KB\n\n" + markdown_table(["system", *columns], lines)


def _column(rows: list[dict[str, Any]], system: str, column: str) -> list[float]:
    return [row[column] for row in rows if row["system"] == system]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kb", type=int, default=1000, help="KB of documents")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--searches", type=int, default=60)
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="comma-separated; default all")
    parser.add_argument("--weights", type=Path, help="all-MiniLM-L6-v2; default Graft's model cache")
    parser.add_argument("--pdfs", type=int, default=0, help="add N financial reports; leaves txtai out")
    given = parser.parse_args()
    systems = given.systems.split(",")
    if unknown := [system for system in systems if system not in SYSTEMS]:
        parser.error(f"no system {unknown[0]!r}; have {', '.join(SYSTEMS)}")
    if given.pdfs:
        systems = [system for system in systems if system in (*OURS, *READS_PDF)]
    if given.weights is None:
        # In a process of its own: Graft must not be warm in this one, nor its graphs cold in the first round.
        prepared = subprocess.run(
            [sys.executable, "-m", "benchmarks.ours"], check=True, stdout=subprocess.PIPE, text=True
        )
        given.weights = Path(prepared.stdout.splitlines()[-1])
    with tempfile.TemporaryDirectory() as scratch:
        corpus = build_corpus(Path(scratch) / "documents", kb=given.kb, data=data_folder(), pdfs=given.pdfs)
        rows = run_rounds(systems, corpus, given)
    shown = table(rows)
    write_part("ingest_pdf" if given.pdfs else "ingest", figures(rows), table=shown, rows=rows)
    print(shown)
    for name, figure in figures(rows).items():
        print(
            f"{name}: {figure.ours} {figure.unit}, {figure.ratio} x {figure.peer_name} ({figure.low}-{figure.high})"
        )


if __name__ == "__main__":
    main()
