"""Names in generated C and C++."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgewright.core.errors import UsageError

MAX_NAME_LENGTH = 48
# Words of C99 and C++, functions that the files use, and headers before which NAME.h would be found.
_RESERVED = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if inline int long "
    "register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while "
    "class delete this template typename namespace using private public protected virtual friend operator try "
    "catch throw bool true false and or not xor main memcpy memset memcmp "
    "arduino assert complex ctype errno fenv inttypes iso646 limits locale math memory new pthread sched setjmp signal "
    "stdarg stdbool stddef stdint stdio stdlib string strings tgmath time unistd wchar wctype zephyr".split()
)


def check_name(name: str) -> None:
    """Check that `name` can prefix the names of a C file.

    Raises:
        UsageError: it cannot; the message proposes one that can.
    """
    if (
        re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name)
        and name.lower() not in _RESERVED
        and len(name) <= MAX_NAME_LENGTH
    ):
        return
    raise UsageError(
        f"{name!r} cannot be the name of a C model: a letter, then letters, digits and underscores, at most "
        f"{MAX_NAME_LENGTH}, and no word or header of C are expected. Call it {identifier(name)!r}."
    )


def identifier(text: str) -> str:
    """Return an identifier of C that is as near to `text` as can be."""
    made = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")[:MAX_NAME_LENGTH].lower()
    if not made or not made[0].isalpha():
        made = f"model_{made}".rstrip("_")[:MAX_NAME_LENGTH]
    return f"{made}_model" if made in _RESERVED else made


def numbered(kind: str, positions: Sequence[int]) -> str:
    """Return operators of one kind as messages name them: "CONV_2D (operator 0 and 14 more)"."""
    more = f" and {len(positions) - 1} more" if len(positions) > 1 else ""
    return f"{kind} (operator {positions[0]}{more})"
