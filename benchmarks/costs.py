"""A running process -> its CPU seconds, memory and the installed size behind it (Linux).

It does not know what is measured.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import resource
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Moment:
    """CPU and wall clock of this process and its descendants."""

    cpu_s: float
    wall_s: float

    def __sub__(self, earlier: Moment) -> Moment:
        return Moment(self.cpu_s - earlier.cpu_s, self.wall_s - earlier.wall_s)


def now() -> Moment:
    """CPU seconds of this process, of its ended children and of the descendants that still live.

    Workers that stay alive in a pool are not yet in RUSAGE_CHILDREN, so they are read from /proc.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in used) + sum(_cpu_of(pid) for pid in _descendants(os.getpid()))
    return Moment(cpu, time.perf_counter())


def peak_memory_mb() -> float:
    """MB (10^6 bytes) of the resident peaks of this process and of its living descendants, added up."""
    return sum(_peak_of(pid) for pid in (os.getpid(), *_descendants(os.getpid()))) * 1024 / 1e6


def installed_mb(distributions: Iterable[str]) -> float:
    """MB (10^6 bytes) of the named distributions and of all that they require, extras left out."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    waiting, seen, size = list(distributions), set[str](), 0
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            size += path.stat().st_size if path.is_file() else 0
        for line in distribution.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return size / 1e6


def _descendants(parent: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        threads = [t for t in Path(f"/proc/{parent}/task").iterdir() if t.name != str(parent)]
        for thread in threads:
            children += (thread / "children").read_text().split()
    except OSError:  # it has ended meanwhile and is counted among the ended children
        return
    for child in map(int, children):
        yield child
        yield from _descendants(child)


def _cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_SECOND  # own and ended children's, user and system


def _peak_of(pid: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found.group(1)) if found else 0
