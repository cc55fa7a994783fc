"""Graft as the benchmarks use it: the only file here that knows its API.

`python -m benchmarks.ours` pulls the embedder, builds both graphs and prints the folder of the weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.system import System, Task

if TYPE_CHECKING:
    from graft import Workspace
    from graft.embedding import Embedder

MODEL = "all-minilm-l6-v2"

_NOWHERE = Path(tempfile.gettempdir()) / "graft-bench-nowhere"
"""A home that is never made: a workspace makes its own when something is added."""


def open_workspace(
    home: Path, *, precision: str = "int8", threads: int = 1, dense_weight: float | None = None
) -> Workspace:
    """A workspace with default settings but for those given."""
    from graft import Workspace
    from graft.settings import resolve

    given: dict[str, dict[str, Any]] = {"embedding": {"model": MODEL, "precision": precision, "threads": threads}}
    if dense_weight is not None:
        given["retrieval"] = {"dense_weight": dense_weight}
    return Workspace(home, settings=resolve(given))


def add_folder(workspace: Workspace, folder: Path) -> int:
    """Add every file below `folder`; the number of chunks.

    Raises:
        SystemExit: A file failed, so that the figures would be about less than the peers read.
    """
    result = workspace.add([str(folder)])
    if result.failed:
        raise SystemExit(f"{len(result.failed)} files failed, first {result.failed[0]}")
    return int(result.chunks)


def search_texts(workspace: Workspace, question: str, k: int) -> list[str]:
    return [hit.text for hit in workspace.search(question, k=k).hits]


def search_documents(workspace: Workspace, question: str, k: int) -> list[tuple[str, float]]:
    """(file name without suffix, score) of each hit, best first."""
    return [(Path(hit.document).stem, hit.score) for hit in workspace.search(question, k=k).hits]


def open_graft_embedder(precision: str, *, threads: int = 1) -> Embedder:
    """The embedder of a workspace that holds nothing; its weights are pulled if they are not here."""
    return open_workspace(_NOWHERE, precision=precision, threads=threads).embedder


def weights_folder() -> Path:
    """Where the pulled safetensors and tokenizer are."""
    return open_workspace(_NOWHERE).pull_model(MODEL)


def graft_system(precision: str) -> Callable[[], System]:
    """A class of System for one precision."""
    return lambda: _Graft(precision)


class _Graft:
    """Workspace.add -> Workspace.search: a database on disk, BM25 and vectors."""

    distributions = ("graft-llm",)
    modules = ("graft.workspace",)

    def __init__(self, precision: str) -> None:
        self._precision = precision

    def load_model(self, task: Task) -> None:
        self._workspace = open_workspace(task.home, precision=self._precision, threads=task.threads)
        self._workspace.embedder.embed(["a first text"])

    def ingest(self, task: Task) -> int:
        return add_folder(self._workspace, task.folder)

    def search(self, question: str, k: int) -> list[str]:
        return search_texts(self._workspace, question, k)


if __name__ == "__main__":
    for each in ("fp32", "int8"):
        open_graft_embedder(each)
    print(weights_folder())
