"""Run a platform's tool on a bundle."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from edgewright.core.errors import ConversionError


def run_tool(
    command: Sequence[str],
    *,
    failure: str,
    quoted: slice,
    most_characters: int,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Return the ended `command`, with what it printed.

    Args:
        failure: what is said when it fails: "the C++ bundle does not build".
        quoted: which of the printed lines say why: the first of a compiler that lists its errors, the last of others.
        most_characters: of what is quoted.
        env: added to the environment.
    Raises:
        ConversionError: it does not start, takes too long, or fails.
    """
    try:
        done = subprocess.run(
            list(command),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise ConversionError(f"{failure}: {err}.") from err
    if done.returncode:
        said = " | ".join((done.stdout + done.stderr).strip().splitlines()[quoted])
        raise ConversionError(f"{failure}: {said[:most_characters]}")
    return done
