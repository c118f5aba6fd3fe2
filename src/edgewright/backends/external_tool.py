"""Run a converter that is a program of its own: bounded time, what it prints is kept, and a crash is an error."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgewright.core.errors import ConversionError

TIMEOUT_S = 900
_LOG_BYTES = 1 << 20


def run_tool(
    command: Sequence[str], folder: Path, *, tool: str, what: str, timeout_s: int = TIMEOUT_S
) -> str:
    """Return the first MiB of what `command` printed, run in `folder` without input.

    It runs in the process group of this worker, and so it ends with it.

    Args:
        tool: the name of the program, for messages.
        what: the name of the model, for messages.
    Raises:
        ConversionError: it cannot be started, failed, crashed, or took too long.
    """
    log_path = folder / "log.txt"
    try:
        with log_path.open("wb") as log:
            code = subprocess.run(
                list(command),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            ).returncode
    except subprocess.TimeoutExpired as err:
        raise ConversionError(
            f"{tool} had not converted {what} after {timeout_s} s. Leave this runtime out."
        ) from err
    except OSError as err:
        raise ConversionError(f"{tool} cannot be started: {err}. Install it again.") from err
    with log_path.open("rb") as stream:
        said = stream.read(_LOG_BYTES).decode("utf-8", errors="replace")
    if code != 0:
        ending = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise ConversionError(
            f"{tool} cannot convert {what}: {ending}, its last line is {last_line(said)!r}. "
            "Change the model, or leave this runtime out."
        )
    return said


def last_line(said: str) -> str:
    """Return the last line of `said` that is not empty."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing"
