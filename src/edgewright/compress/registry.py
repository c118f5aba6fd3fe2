"""The passes by name. A row names the pass's object; its module is imported when the pass is first used."""

from __future__ import annotations

import importlib
from functools import cache

from edgewright.compress.names import PASSES
from edgewright.compress.passes import Pass
from edgewright.core.errors import UnavailableError, UnknownNameError


def names() -> list[str]:
    """Return the names of all passes, in the order in which they are usually chained."""
    return list(PASSES)


@cache
def get(name: str) -> Pass[object]:
    """Return the pass called `name`, or the unregistered object `package.module:OBJECT`.

    Raises:
        UnknownNameError: there is none.
        UnavailableError: it cannot be imported, or is no pass.
    """
    if name not in PASSES and ":" not in name:
        raise UnknownNameError.of("pass", name, PASSES)
    place = PASSES.get(name, name)
    module, _, made = place.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), made)
    except (ImportError, AttributeError) as err:
        raise UnavailableError(f"pass {name!r} ({place}) cannot be loaded: {err}.") from err
    missing = [
        part for part in ("name", "summary", "precisions", "Options", "run") if not hasattr(found, part)
    ]
    if missing:
        raise UnavailableError(f"pass {name!r} ({place}) has no {', '.join(missing)}: it is no pass.")
    chosen: Pass[object] = found  # type: ignore[assignment]
    return chosen
