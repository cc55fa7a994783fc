"""What a measured system is to the benchmarks: four steps, each measured on its own by run_one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK_TOKENS = 192
"""Graft's default; every peer's splitter is set to it, in the splitter's own unit."""

OVERLAP_TOKENS = 24

CHARACTERS_PER_TOKEN = 4.5
"""For splitters that count characters: wordpiece tokens of the benchmark corpus, measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What all systems get alike.

    Attributes:
        weights: Folder of all-MiniLM-L6-v2 in the sentence-transformers layout.
        folder: The documents.
        home: An empty folder for whatever the system keeps on disk.
        threads: Of every numeric library.
    """

    weights: Path
    folder: Path
    home: Path
    threads: int = 1


class System(Protocol):
    """A pipeline from files to hits, used as its documentation shows."""

    @property
    def distributions(self) -> tuple[str, ...]:
        """What a user would `pip install`."""
        ...

    @property
    def modules(self) -> tuple[str, ...]:
        """What a program would import."""
        ...

    def load_model(self, task: Task) -> None:
        """Up to and including one embedded text, so that nothing lazy is left for the next step."""
        ...

    def ingest(self, task: Task) -> int:
        """Read, split, embed and index every file; the number of chunks."""
        ...

    def search(self, question: str, k: int) -> list[str]:
        """Texts of the best k chunks."""
        ...
