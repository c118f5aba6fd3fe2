"""Backends by name, from the entry points of installed packages; built-in and foreign ones register alike."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from edgewright.core.contracts import Backend
from edgewright.core.errors import UnavailableError, UnknownNameError

GROUP = "edgewright.backends"


def names() -> list[str]:
    """Return the names of all registered backends, sorted; nothing is imported."""
    return sorted({point.name for point in entry_points(group=GROUP)} | set(_handed_over()))


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
    if not points and name in _handed_over():
        value = _handed_over()[name]
        points[value] = EntryPoint(name=name, value=value, group=GROUP)
    if not points:
        raise UnknownNameError.of("runtime", name, names())
    if len(points) > 1:
        raise UnavailableError(
            f"runtime {name!r} is registered by {len(points)} packages ({', '.join(sorted(points))}); "
            "one is expected. Uninstall the others."
        )
    return _load(*points.values())


@cache
def _handed_over() -> Mapping[str, str]:
    """Return name -> "package.module:Class" of the parent's backends, in a worker of a toolchain's environment.

    Nothing is installed there that could register them.
    """
    record = json.loads(os.environ.get("EDGEWRIGHT_BACKENDS", "{}"))
    assert isinstance(record, dict)
    return {str(name): str(value) for name, value in record.items()}


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
