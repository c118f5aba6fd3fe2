"""Backends by name, from the entry points of installed packages; built-in and foreign ones register alike."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from edgewright.core.contracts import Backend
from edgewright.core.errors import UnavailableError, UnknownNameError

GROUP = "edgewright.backends"


def names() -> list[str]:
    """Return the names of all registered backends, sorted; nothing is imported."""
    return sorted({point.name for point in entry_points(group=GROUP)})


@cache
def get(name: str) -> Backend:
    """Return the backend called `name`, or the unregistered class `package.module:Class`.

    Raises:
        UnknownNameError: no installed package registers it.
        UnavailableError: it cannot be imported, is not a backend, or two packages claim the name.
    """
    if ":" in name:
        return _load(EntryPoint(name=name, value=name, group=GROUP))
    points = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if not points:
        raise UnknownNameError.of("runtime", name, names())
    if len(points) > 1:
        raise UnavailableError(
            f"runtime {name!r} is registered by {len(points)} packages ({', '.join(sorted(points))}); "
            "one is expected. Uninstall the others."
        )
    return _load(*points.values())


def _load(point: EntryPoint) -> Backend:
    try:
        made = point.load()()
    except Exception as err:
        raise UnavailableError(
            f"runtime {point.name!r} ({point.value}) cannot be loaded: {type(err).__name__}: {err}. "
            "Install its package again."
        ) from err
    if not isinstance(made, Backend) or point.name not in (made.name, point.value):
        raise UnavailableError(
            f"runtime {point.name!r} ({point.value}) is not a Backend of that name. "
            "Run edgewright.testing.check_backend on it."
        )
    return made
