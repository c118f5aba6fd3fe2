"""Energy counters of the machine: RAPL, where the kernel lets this user read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")
NOT_MEASURED = "not measured: no readable energy counter (RAPL) on this machine"


@dataclass(frozen=True, kw_only=True)
class EnergyCounter:
    """The package domains of RAPL. Source: Linux powercap sysfs documentation."""

    domains: tuple[Path, ...]

    @staticmethod
    def find(root: Path = _POWERCAP) -> EnergyCounter | None:
        """Return the readable package counters, or None."""
        domains = []
        for folder in sorted(root.glob("intel-rapl:*")) if root.is_dir() else []:
            if folder.name.count(":") != 1:
                continue  # a sub-domain is part of its package
            try:
                int((folder / "energy_uj").read_text())
            except (OSError, ValueError):
                continue
            domains.append(folder)
        return EnergyCounter(domains=tuple(domains)) if domains else None

    def read_uj(self) -> tuple[int, ...]:
        """Return the counters of all packages in microjoules."""
        return tuple(int((folder / "energy_uj").read_text()) for folder in self.domains)

    def difference_mj(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the energy between two readings in millijoules; a counter that wrapped once is unwrapped."""
        total = 0
        for folder, first, last in zip(self.domains, before, after, strict=True):
            span = last - first
            if span < 0:
                span += int((folder / "max_energy_range_uj").read_text())
            total += span
        return total / 1000.0
