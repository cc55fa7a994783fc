"""This machine's energy counters -> what a stretch of work took, where they can be read.

Linux shows the processor packages' counters (RAPL) under /sys/class/powercap, mostly to root alone; virtual machines
have none. All that runs on the machine is counted, and memory, disks and GPUs are not. It does not know trainers.
"""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules since it was made."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._powercap = powercap
        self._began = self._read()

    def joules(self) -> float | None:
        """None where no counter can be read; a counter that began anew once is allowed for."""
        now = self._read()
        if not now or now.keys() != self._began.keys():
            return None
        spent = [
            value - self._began[zone][0] + (limit if value < self._began[zone][0] else 0)
            for zone, (value, limit) in now.items()
        ]
        return sum(spent) / 1e6

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
