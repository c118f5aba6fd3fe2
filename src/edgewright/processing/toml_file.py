"""Read a TOML file that anybody may have written: its size, its depth and its numbers are bounded."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from edgewright.core.errors import RecipeError

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 16
_MAX_PARTS = 64
_LIMIT = 1 << 63
# A dotted key of many parts: tomllib's time and memory grow with their square. It begins where no word goes on.
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{_MAX_PARTS}}}")


def read_toml(file: Path, *, what: str) -> dict[str, object]:
    """Return the values of the TOML file at `file`.

    Args:
        what: it is, for messages.
    Raises:
        RecipeError: it cannot be read, has more than 1 MiB, is no TOML, is nested deeper than 16 tables and lists, or
            holds an integer beyond 64 bits.
    """
    try:
        if not file.is_file():
            raise RecipeError(f"{what} {file} is no file. Check the path.")
        with file.open("rb") as stream:
            text = stream.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as err:  # a ValueError is of a name that no file can have
        reason = err.strerror if isinstance(err, OSError) else None
        raise RecipeError(f"{what} {str(file)!r} cannot be read: {reason or err}. Check the path.") from err
    if len(text) > _MAX_BYTES:
        raise RecipeError(f"{what} {file} has more than {_MAX_BYTES} bytes.")
    try:
        decoded = text.decode()
        if _LONG_KEY.search(decoded):
            raise RecipeError(f"{what} {file} has a key of more than {_MAX_PARTS} parts.")
        # A ValueError is also what Python makes of integers with thousands of digits.
        record: dict[str, object] = tomllib.loads(decoded)
    except (ValueError, RecursionError) as err:
        raise RecipeError(f"{what} {file} is no TOML: {str(err)[:200].rstrip('.')}.") from err
    _check_bounds(record, f"{what} {file}")
    return record


def _check_bounds(record: dict[str, object], what: str) -> None:
    rows: list[object] = [record]
    for _ in range(_MAX_DEPTH):
        inner: list[object] = []
        for row in rows:
            if isinstance(row, int) and not -_LIMIT <= row < _LIMIT:
                raise RecipeError(f"{what} has an integer beyond 64 bits, which no TOML has.")
            inner += row.values() if isinstance(row, dict) else row if isinstance(row, list) else ()
        rows = inner
    if rows:
        raise RecipeError(f"{what} is nested deeper than {_MAX_DEPTH} tables and lists.")
