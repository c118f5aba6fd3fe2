"""All toolchains that are installed on request: environments of Python, and packages of npm."""

from __future__ import annotations

from types import ModuleType

from edgewright.core.errors import UnknownNameError
from edgewright.core.progress import Progress, silent
from edgewright.workers import environments, npm_packages
from edgewright.workers.environments import Toolchain


def names() -> list[str]:
    """Return the names of all toolchains that have a lock, sorted."""
    return sorted([*environments.names(), *npm_packages.names()])


def look(name: str) -> Toolchain:
    """Return what is found of the toolchain `name`.

    Raises:
        UnknownNameError: there is no lock of this name.
    """
    found: Toolchain = _kind(name).look(name)
    return found


def install(name: str, *, progress: Progress = silent) -> Toolchain:
    """Bring the toolchain `name`, anew if it is there but not as it should be.

    Args:
        progress: called with (name, step, state).
    Raises:
        UnknownNameError: there is no lock of this name.
        UnavailableError: it cannot be installed, with the installer's last words.
        IntegrityError: what came is not what was locked.
    """
    made: Toolchain = _kind(name).install(name, progress=progress)
    return made


def remove(name: str) -> bool:
    """Delete the toolchain `name`; return False when there was none.

    Raises:
        UnknownNameError: there is no lock of this name.
    """
    return bool(_kind(name).remove(name))


def _kind(name: str) -> ModuleType:
    """Return the module that knows this toolchain."""
    if name not in names():
        raise UnknownNameError.of("toolchain", name, names())
    return npm_packages if name in npm_packages.names() else environments
