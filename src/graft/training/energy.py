"""This machine's energy counters -> what a stretch of work took, where they can be read.

Linux shows the processor packages' counters (RAPL) under /sys/class/powercap, mostly to root alone; virtual machines
have none. All that runs on the machine is counted, and memory, disks and GPUs are not. It does not know trainers.
"""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules since it was made. A counter begins anew after minutes to hours: `sample` more often than that."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._powercap = powercap
        self._last = self._read()
        self._microjoules: int | None = 0 if self._last else None

    def sample(self) -> None:
        """Take up what was spent since the last time."""
        now = self._read()
        if self._microjoules is None or now.keys() != self._last.keys():
            self._microjoules = None
            return
        for zone, (value, limit) in now.items():
            before = self._last[zone][0]
            self._microjoules += value - before + (limit if value < before else 0)
        self._last = now

    def joules(self) -> float | None:
        """None where a counter could not be read."""
        self.sample()
        return None if self._microjoules is None else self._microjoules / 1e6

    def _read(self) -> dict[str, tuple[int, int]]:
        """Package -> microjoules, and where its counter begins anew."""
        try:
            return {
                zone.name: (_number(zone / "energy_uj"), _number(zone / "max_energy_range_uj"))
                for zone in self._powercap.glob("intel-rapl:*")
                if zone.name.count(":") == 1  # deeper ones are parts of a package
            }
        except (OSError, ValueError):
            return {}


def _number(path: Path) -> int:
    return int(path.read_text())
