"""Texts -> vectors, Graft against sentence-transformers in one process: tokens per CPU-second.

    python -m benchmarks.bench_embed --texts 128 --rounds 5

The embedders take turns on the same texts with one thread; the same rounds measure how fast this processor
multiplies float32 matrices, so that the embedder's share of that ceiling is known.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import ours, peers
from benchmarks.corpora import data_folder, read_jsonl
from benchmarks.figures import Figure, against_best, markdown_table, spread, write_part

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COMMAND = "make bench"
MAX_TOKENS = 256
PEER = "sentence-transformers"
QUERIES = 50

Embed = Callable[[Sequence[str]], "NDArray[np.float32]"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What the cost of a BERT-like encoder depends on."""

    layers: int
    hidden: int
    intermediate: int

    def flops(self, tokens: int) -> int:
        """Floating-point operations for one text of `tokens` tokens, two per multiply-add.

        Per token and layer: 8 h^2 for Q, K, V and output, 4 h i for the feed-forward pair, and
        4 n h for the two products of attention with all n tokens. Norms and softmax are left out.
        """
        per_token = 8 * self.hidden**2 + 4 * self.hidden * self.intermediate + 4 * tokens * self.hidden
        return self.layers * per_token * tokens


def read_shape(weights: Path) -> Shape:
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    return Shape(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])


def read_texts(data: Path, count: int) -> list[str]:
    """Half abstracts (mostly cut at the model's 256 tokens), half shorter paragraphs."""
    abstracts = [
        f"{row['title']}\n{row['text']}"
        for row in islice(read_jsonl(data / "retrieval/scifact/corpus.jsonl"), count // 2)
    ]
    articles = json.loads((data / "qa/xquad/xquad.en.json").read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    return abstracts + paragraphs[: count - len(abstracts)]


def open_embedders(weights: Path, threads: int) -> dict[str, Embed]:
    """Name -> function, each having embedded once."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = peers.sentence_transformers_folder(weights, Path(scratch) / "weights")
        reference = SentenceTransformer(str(folder), device="cpu")
    reference.max_seq_length = MAX_TOKENS
    opened: dict[str, Embed] = {
        "graft-fp32": ours.open_graft_embedder("fp32", threads=threads).embed,
        "graft-int8": ours.open_graft_embedder("int8", threads=threads).embed,
        PEER: lambda texts: reference.encode(list(texts), show_progress_bar=False),
    }
    for embed in opened.values():
        embed([peers.WARM_UP])
    return opened


def sgemm_gflops(size: int = 1024, seconds: float = 0.5) -> float:
    """GFLOP per CPU-second of the better of NumPy and torch on square float32 matrices; the fastest call counts."""
    import numpy as np
    import torch

    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    t = torch.from_numpy(a)
    best = 0.0
    for multiply in (lambda: a @ a, lambda: t @ t):
        began = time.process_time()
        while time.process_time() - began < seconds:
            start = time.process_time()
            multiply()
            best = max(best, 2 * size**3 / (time.process_time() - start) / 1e9)
    return best


def run_rounds(
    embedders: dict[str, Embed], texts: list[str], *, lengths: list[int], shape: Shape, rounds: int
) -> list[dict[str, Any]]:
    """One row for each embedder in each round; `lengths` are the texts' in tokens."""
    queries = [text.split(". ")[0][:120] for text in texts[:QUERIES]]
    flops = sum(map(shape.flops, lengths))
    rows: list[dict[str, Any]] = []
    for number in range(rounds):
        peak = sgemm_gflops()
        vectors = {}
        for name, embed in embedders.items():
            began = time.process_time()
            vectors[name] = embed(texts)
            cpu = time.process_time() - began
            began = time.process_time()
            for query in queries:
                embed([query])
            query_ms = (time.process_time() - began) / len(queries) * 1e3
            row: dict[str, Any] = {"round": number, "system": name, "tokens": sum(lengths), "cpu_s": round(cpu, 3)}
            row |= {"tokens_per_cpu_s": round(sum(lengths) / cpu, 1), "query_cpu_ms": round(query_ms, 3)}
            row |= {"gflops": round(flops / cpu / 1e9, 2), "sgemm_gflops": round(peak, 2)}
            rows.append(row)
        for row in rows[-len(embedders) :]:
            row["cosine_to_peer"] = round(float((vectors[row["system"]] * vectors[PEER]).sum(axis=1).mean()), 5)
            print(json.dumps(row), file=sys.stderr)
    return rows


def figures(rows: list[dict[str, Any]]) -> dict[str, Figure]:
    def column(system: str, name: str) -> list[float]:
        return [row[name] for row in rows if row["system"] == system]

    made = {}
    for system, prefix in (("graft-fp32", "embed"), ("graft-int8", "embed_int8")):
        made[f"{prefix}.tokens_per_cpu_s"] = against_best(
            column(system, "tokens_per_cpu_s"),
            {PEER: column(PEER, "tokens_per_cpu_s")},
            unit="tokens/CPU-s",
            better="higher",
            command=COMMAND,
        )
        made[f"{prefix}.query_cpu_ms"] = against_best(
            column(system, "query_cpu_ms"),
            {PEER: column(PEER, "query_cpu_ms")},
            unit="CPU ms",
            better="lower",
            command=COMMAND,
        )
    made["embed.share_of_sgemm"] = against_best(
        column("graft-fp32", "gflops"),
        {"sgemm, the ceiling": column("graft-fp32", "sgemm_gflops")},
        unit="GFLOP/CPU-s",
        better="higher",
        command=COMMAND,
    )
    return made


def table(rows: list[dict[str, Any]]) -> str:
    columns = ["tokens_per_cpu_s", "query_cpu_ms", "gflops", "sgemm_gflops", "cosine_to_peer"]
    lines = [
        [system, *(spread([row[c] for row in rows if row["system"] == system]) for c in columns)]
        for system in dict.fromkeys(row["system"] for row in rows)
    ]
    return markdown_table(["embedder", *columns], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    peers.pin_threads(given.threads)
    from tokenizers import Tokenizer

    weights = ours.weights_folder()
    texts = read_texts(data_folder(), given.texts)
    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    lengths = [min(MAX_TOKENS, len(encoding.ids)) for encoding in tokenizer.encode_batch(texts)]
    embedders = open_embedders(weights, given.threads)
    rows = run_rounds(embedders, texts, lengths=lengths, shape=read_shape(weights), rounds=given.rounds)
    write_part("embed", figures(rows), table=table(rows), rows=rows)
    print(table(rows))


if __name__ == "__main__":
    main()
