"""Energy counters, read from a folder that is laid out as the kernel's."""

from __future__ import annotations

from pathlib import Path

from edgewright.measure.energy import EnergyCounter


def domain(root: Path, name: str, energy: str, largest: int = 1000) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(energy)
    (folder / "max_energy_range_uj").write_text(str(largest))
    return folder


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    first = domain(tmp_path, "intel-rapl:0", "100\n")
    domain(tmp_path, "intel-rapl:0:0", "77")
    second = domain(tmp_path, "intel-rapl:1", "900")
    domain(tmp_path, "intel-rapl:2", "no number")
    counter = EnergyCounter.find(tmp_path)
    assert counter is not None
    assert counter.read_uj() == (100, 900)
    (first / "energy_uj").write_text("350")
    (second / "energy_uj").write_text("50")  # wrapped at 1000: 150 more
    assert counter.difference_mj((100, 900), counter.read_uj()) == (250 + 150) / 1000


def test_without_counters_nothing_is_measured(tmp_path: Path) -> None:
    assert EnergyCounter.find(tmp_path) is None
    assert EnergyCounter.find(tmp_path / "missing") is None
