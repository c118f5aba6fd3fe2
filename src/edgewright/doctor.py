"""What is here, what is missing, and the command that brings it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from dataclasses import asdict, dataclass

from edgewright import bundle_tools
from edgewright.backends import registry
from edgewright.core.errors import EdgewrightError
from edgewright.ewz.container import PACKAGES, require_packages
from edgewright.measure.energy import NOT_MEASURED, EnergyCounter
from edgewright.microcontrollers import tools
from edgewright.recipe import DEFAULT_RUNTIMES
from edgewright.report.environment import describe_host
from edgewright.workers import toolchains
from edgewright.workers.cache import default_root
from edgewright.workers.environments import State
from edgewright.workers.pool import call_once

_MIN_FREE_BYTES = 2 << 30


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding; `fix` is the command or the advice that mends it."""

    name: str
    is_ok: bool
    found: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All findings, and the machine."""

    checks: tuple[Check, ...]
    host: dict[str, object]

    @property
    def is_ok(self) -> bool:
        """True when nothing that the main job needs is missing."""
        return all(check.is_ok for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {"ok": self.is_ok, "checks": [asdict(check) for check in self.checks], "host": self.host}


def diagnose() -> Diagnosis:
    """Look at Python, backends, toolchains, compilers, emulators, workers, the cache folder and the energy counter.

    Only what the main job needs counts as missing; the rest is told with the command that brings it.
    """
    checks = [
        Check(
            name="python",
            is_ok=sys.version_info >= (3, 11),
            found=platform.python_version(),
            fix="" if sys.version_info >= (3, 11) else "install Python 3.11 or newer",
        ),
        Check(name="edgewright", is_ok=True, found=importlib.metadata.version("edgewright")),
    ]
    checks += [_backend(name) for name in registry.names()]
    checks += [_toolchain(name) for name in toolchains.names()]
    checks += [_tools(wanted) for wanted in (*tools.ALL, *bundle_tools.ALL)]
    checks += [_headers()]
    checks += [_workers(), _cache(), _packing(), _energy()]
    return Diagnosis(checks=tuple(checks), host=describe_host())


def _backend(name: str) -> Check:
    try:
        support = registry.get(name).probe()
    except EdgewrightError as err:
        return Check(name=name, is_ok=False, found="broken", fix=str(err))
    found = (
        ", ".join(f"{package} {version}" for package, version in support.versions.items())
        or "nothing installed"
    )
    if support.is_available and not support.is_installed:
        fix = support.reason or (
            f"{name} itself is not here: what it is built from is made, with the command for a machine that has it"
        )
        return Check(name=name, is_ok=True, found=found, fix=fix)
    is_needed = name in (*DEFAULT_RUNTIMES, "reference")
    return Check(name=name, is_ok=support.is_available or not is_needed, found=found, fix=support.reason)


def _toolchain(name: str) -> Check:
    found = toolchains.look(name)
    size = f", {found.size_bytes / 1e6:,.0f} MB in {found.path}" if found.size_bytes else ""
    detail = f": {found.detail}" if found.detail else ""
    is_ok = found.state in (State.INSTALLED, State.ABSENT)
    return Check(
        name=f"toolchain {name}", is_ok=is_ok, found=f"{found.state.value}{detail}{size}", fix=found.fix
    )


def _tools(wanted: tools.Tools) -> Check:
    """Say which programs are here; they build and prove C models and bundles, and none is for the main job."""
    found = ", ".join(f"{name} {version}" for name, version in wanted.versions().items())
    missing = ", ".join(wanted.missing)
    return Check(
        name=wanted.purpose,
        is_ok=True,
        found=f"{found or 'nothing'}{f'; without {missing}' if missing else ''}",
        fix=wanted.fix if missing else "",
    )


def _headers() -> Check:
    place = bundle_tools.find_headers()
    found = "none" if place is None else str(place)
    return Check(
        name="headers of ONNX Runtime", is_ok=True, found=found, fix="" if place else bundle_tools.HEADERS_FIX
    )


def _workers() -> Check:
    try:
        call_once("edgewright.measure.operations:close_artifact", {})
    except EdgewrightError as err:
        return Check(name="worker processes", is_ok=False, found="do not start", fix=str(err))
    return Check(name="worker processes", is_ok=True, found="start and answer")


def _cache() -> Check:
    root = default_root()
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) if root.is_dir() else 0
    existing = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    enough = free >= _MIN_FREE_BYTES
    return Check(
        name="cache",
        is_ok=enough,
        found=f"{root}: {size / 1e6:,.0f} MB used, {free / 1e9:,.0f} GB free on the disk",
        fix="" if enough else "free space on the disk, or point EDGEWRIGHT_CACHE elsewhere",
    )


def _packing() -> Check:
    try:
        require_packages()
    except EdgewrightError as err:
        return Check(name="pack (.ewz)", is_ok=True, found="not installed", fix=str(err))
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return Check(name="pack (.ewz)", is_ok=True, found=found)


def _energy() -> Check:
    counter = EnergyCounter.find()
    return Check(name="energy", is_ok=True, found="RAPL readable" if counter else NOT_MEASURED)
