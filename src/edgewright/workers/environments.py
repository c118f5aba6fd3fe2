"""Toolchain environments: locked, hash-checked Python environments for toolchains whose pins clash with others'.

Each is a virtual environment of its own, made on request and never behind the user's back. The lock is the file
`locks/NAME.txt`: every package with its version and digests. What was installed is recorded when it is complete, and
compared before and after every run: a toolchain that changes its own packages is stopped, and touches no other.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from edgewright.core.errors import EdgewrightError, UnavailableError, UnknownNameError, WorkerError
from edgewright.core.files import read_json, write_json
from edgewright.core.progress import Progress, silent

LOCKS = Path(__file__).parent / "locks"
_RECORD = "edgewright.json"
_PIP_TIMEOUT_S = 3600
_DIST_INFO = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)\.(dist|egg)-info")
# The installer's own packages are not in the lock, and a venv may bring any version of them.
_INSTALLER = frozenset({"pip", "setuptools", "wheel"})


class State(Enum):
    """What has become of an environment."""

    ABSENT = "not installed"
    INSTALLED = "installed"
    INCOMPLETE = "incomplete"
    OUTDATED = "made from another lock"
    CHANGED = "changed since it was installed"


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """One environment as it is found.

    Attributes:
        versions: package -> version as installed.
        size_bytes: on disk; 0 when absent.
        detail: what differs, for CHANGED.
    """

    name: str
    state: State
    path: Path
    versions: Mapping[str, str]
    size_bytes: int
    locked: int
    detail: str = ""

    @property
    def fix(self) -> str:
        """The command that brings it, or nothing."""
        return "" if self.state is State.INSTALLED else f"edgewright toolchain install {self.name}"

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "name": self.name,
            "state": self.state.value,
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "locked_packages": self.locked,
            "versions": dict(self.versions),
            "detail": self.detail,
            "fix": self.fix,
        }


def default_root() -> Path:
    """Return the folder of the environments: $EDGEWRIGHT_TOOLCHAINS, or one in the user's cache folder."""
    override = os.environ.get("EDGEWRIGHT_TOOLCHAINS")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgewright-toolchains"))


def names() -> list[str]:
    """Return the names of the toolchains that have a lock, sorted."""
    return sorted(lock.stem for lock in LOCKS.glob("*.txt"))


def is_installed(name: str) -> bool:
    """Return True when the environment is there, complete and unchanged."""
    return _state(name)[0] is State.INSTALLED


def look(name: str) -> Toolchain:
    """Return what is found of the toolchain `name`; the sizes of its files are summed up.

    Raises:
        UnknownNameError: there is no lock of this name.
    """
    state, detail = _state(name)
    folder = default_root() / name
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return Toolchain(
        name=name,
        state=state,
        path=folder,
        versions=installed_versions(folder),
        size_bytes=sum(file.stat().st_size for file in files) if folder.is_dir() else 0,
        locked=len(_locked(name)),
        detail=detail,
    )


def interpreter(name: str) -> Path:
    """Return the Python of the environment `name`.

    Raises:
        UnavailableError: it is not installed, or no longer what was installed; with the command that mends it.
    """
    state, detail = _state(name)
    if state is State.INSTALLED:
        return _python(default_root() / name)
    why = f" ({detail})" if detail else ""
    raise UnavailableError(
        f"toolchain {name!r} is {state.value}{why}. Run: edgewright toolchain install {name}"
    )


def support_versions(name: str) -> dict[str, str]:
    """Return package -> version of the installed environment `name`, without running it; nothing if it is absent."""
    return installed_versions(default_root() / name) if is_installed(name) else {}


def variables() -> dict[str, str]:
    """Return the environment variables of a worker in an environment: the parent's registered backends."""
    from importlib.metadata import entry_points

    points = {point.name: point.value for point in entry_points(group="edgewright.backends")}
    return {"EDGEWRIGHT_BACKENDS": json.dumps(points)}


def install(name: str, *, progress: Progress = silent) -> Toolchain:
    """Make the environment `name` from its lock, anew if it is there but not as it should be.

    Args:
        progress: called with (name, step, state).
    Raises:
        UnknownNameError: there is no lock of this name.
        UnavailableError: it cannot be installed, with pip's last words.
    """
    if _state(name)[0] is State.INSTALLED:
        return look(name)
    folder = default_root() / name
    remove(name)
    progress(name, "environment", "running")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UnavailableError(
            f"{folder.parent} cannot be made: {err.strerror}. Point EDGEWRIGHT_TOOLCHAINS elsewhere."
        ) from err
    try:
        _run([sys.executable, "-m", "venv", str(folder)], name)
        progress(name, "environment", "done")
        progress(name, f"install {len(_locked(name))} packages", "running")
        requirements = ["--require-hashes", "--no-deps", "--only-binary=:all:", "-r", str(_lock(name))]
        flags = ["--quiet", "--no-input", "--disable-pip-version-check"]
        # A lock was made for this Python; what a package's metadata claims of others does not matter.
        _run([str(_python(folder)), "-I", "-m", "pip", "install", *flags, *requirements], name)
        found = installed_versions(folder)
        missing = [package for package in _locked(name) if package not in found]
        if missing:
            raise UnavailableError(
                f"toolchain {name!r}: pip reported success, but {', '.join(missing)} is missing."
            )
        record = {"lock": _lock_digest(name), "python": _python_version(), "versions": found}
        write_json(folder / _RECORD, record)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        progress(name, "install", "failed")
        raise
    _forget()
    progress(name, f"install {len(_locked(name))} packages", "done")
    return look(name)


def remove(name: str) -> bool:
    """Delete the environment `name`; return False when there was none.

    Raises:
        UnknownNameError: there is no lock of this name.
    """
    _lock(name)
    folder = default_root() / name
    if not folder.is_dir():
        return False
    # The record goes first: an environment that is half deleted must not look installed.
    (folder / _RECORD).unlink(missing_ok=True)
    shutil.rmtree(folder)
    _forget()
    return True


def installed_versions(folder: Path) -> dict[str, str]:
    """Return package -> version from the metadata folders of the environment in `folder`; nothing is run."""
    found = {}
    for site in folder.glob("lib/python*/site-packages"):
        with os.scandir(site) as entries:
            for entry in entries:
                match = _DIST_INFO.fullmatch(entry.name)
                if match and _canonical(match["name"]) not in _INSTALLER:
                    found[_canonical(match["name"])] = match["version"]
    return dict(sorted(found.items()))


def _state(name: str) -> tuple[State, str]:
    folder = default_root() / name
    lock = _lock_digest(name)
    if not folder.is_dir():
        return State.ABSENT, ""
    try:
        record = read_json(folder / _RECORD)
    except EdgewrightError:
        return State.INCOMPLETE, ""
    if record.get("lock") != lock or record.get("python") != _python_version():
        return State.OUTDATED, ""
    recorded, found = record.get("versions"), installed_versions(folder)
    assert isinstance(recorded, dict)
    if recorded == found and _python(folder).exists():
        return State.INSTALLED, ""
    changes = [
        f"{package} {recorded.get(package, 'absent')} -> {found.get(package, 'absent')}"
        for package in sorted({*recorded, *found})
        if recorded.get(package) != found.get(package)
    ]
    return State.CHANGED, ", ".join(changes) or "its interpreter is gone"


def _lock(name: str) -> Path:
    if name not in names():
        raise UnknownNameError.of("toolchain", name, names())
    return LOCKS / f"{name}.txt"


@functools.cache
def _lock_digest(name: str) -> str:
    return hashlib.sha256(_lock(name).read_bytes()).hexdigest()


@functools.cache
def _locked(name: str) -> tuple[str, ...]:
    lines = _lock(name).read_text(encoding="utf-8").splitlines()
    return tuple(
        _canonical(match[1])
        for line in lines
        if (match := re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(\[[^]]*\])?==", line))
    )


def _forget() -> None:
    _lock_digest.cache_clear()


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(command: list[str], name: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_PIP_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as err:
        raise WorkerError(f"toolchain {name!r}: {command[-1]} took over {_PIP_TIMEOUT_S} s.") from err
    except OSError as err:
        raise UnavailableError(f"toolchain {name!r}: {command[0]} cannot be run: {err.strerror}.") from err
    if done.returncode != 0:
        words = [line for line in done.stdout.splitlines() if line.strip()][-3:]
        raise UnavailableError(
            f"toolchain {name!r} cannot be installed: {' '.join(words)[:600] or 'pip said nothing'}. "
            "Check the network or the package index, and run it again."
        )
