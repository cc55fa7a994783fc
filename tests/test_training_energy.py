"""Energy is what the counters say, and nothing where they say nothing."""

from __future__ import annotations

from pathlib import Path

from graft.training.energy import EnergyMeter


def counter(folder: Path, zone: str, microjoules: int) -> None:
    (folder / zone).mkdir(exist_ok=True)
    (folder / zone / "energy_uj").write_text(f"{microjoules}\n")
    (folder / zone / "max_energy_range_uj").write_text("10000000\n")


def test_packages_are_added_up_and_a_counter_may_begin_anew(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 9_000_000)
    counter(tmp_path, "intel-rapl:1", 1_000_000)
    counter(tmp_path, "intel-rapl:0:0", 5_000_000)
    meter = EnergyMeter(tmp_path)
    counter(tmp_path, "intel-rapl:0", 2_000_000)
    counter(tmp_path, "intel-rapl:1", 1_500_000)
    counter(tmp_path, "intel-rapl:0:0", 6_000_000)
    assert meter.joules() == 3.5
    counter(tmp_path, "intel-rapl:0", 9_000_000)
    meter.sample()
    counter(tmp_path, "intel-rapl:0", 1_000_000)
    assert meter.joules() == 3.5 + 7 + 2


def test_without_readable_counters_the_energy_is_unknown(tmp_path: Path) -> None:
    assert EnergyMeter(tmp_path / "none").joules() is None
    counter(tmp_path, "intel-rapl:0", 1)
    meter = EnergyMeter(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("?")
    assert meter.joules() is None
