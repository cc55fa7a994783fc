"""This machine -> what a training run may count on: memory, disk, matrix products, a GPU.

It does not know models.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

_FAST_ENOUGH = 0.5
"""bfloat16 at less than this share of float32's speed is emulated; real support is 1.5 to 8 times as fast."""


def memory_mb() -> float:
    """MB (10^6 bytes) of memory that a new process could use, the container's limit included."""
    free = float("inf")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no limit, or no such file system
    return free / 1e6


def disk_mb(folder: Path) -> float:
    """MB (10^6 bytes) free where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e6


def gpu_memory_mb() -> float | None:
    """MB of the first GPU's memory, or None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory / 1e6)


def gpus() -> int:
    """How many GPUs there are."""
    import torch

    return torch.cuda.device_count()


def bfloat16_is_fast() -> bool:
    """Whether this processor computes bfloat16 itself: timed, because its flags do not tell."""
    import torch

    return _seconds(torch.float32) > _FAST_ENOUGH * _seconds(torch.bfloat16)


def gflops(*, size: int = 768, seconds: float = 0.2) -> float:
    """GFLOP per second of float32 matrix products with the present number of threads; the fastest call counts."""
    import torch

    a, best, began = torch.randn(size, size), 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        a @ a
        best = max(best, 2 * size**3 / (time.perf_counter() - start) / 1e9)
    return best


def _seconds(dtype: object) -> float:
    """CPU seconds of a layer's product forward and backward, the better of two."""
    import torch

    x, weight = torch.ones(256, 512, dtype=dtype), torch.ones(1024, 512, dtype=dtype)  # type: ignore[call-overload]
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        y = x @ weight.t()
        y @ weight
        best = min(best, time.process_time() - start)
    return best
