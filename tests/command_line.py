"""The command line in a process of its own, and what it may leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[1]


def assert_nothing_half_written(out: Path) -> None:
    """No artifact, no result, and no part of a file."""
    names = [path.name for path in out.rglob("*") if path.is_file()]
    assert "results.json" not in names
    assert not [name for name in names if name.endswith((".part", ".onnx", ".tflite", ".xml"))]


def left_in(temporary: Path) -> list[str]:
    """Return what stayed in a folder for temporary files, a file apart that ONNX Runtime leaves there itself."""
    return [path.name for path in temporary.iterdir() if path.name != ".ses"]


def cli(
    *arguments: object, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start the command line as a user does, in a process and a session of its own."""
    # A background job starts with interrupts ignored, and hands that down: the tests that send one would wait for ever.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from edgewright.cli.main import run_and_exit; run_and_exit()"
    )
    command = [*prefix, sys.executable, "-c", code]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO_ROOT), **(env or {})},
        start_new_session=True,
    )
