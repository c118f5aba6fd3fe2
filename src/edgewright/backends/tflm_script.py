"""Runs inside the environment `tflm`, as a script: MODEL RESULT LIMIT.

RESULT becomes a file of JSON: what the interpreter said when it refused the model, or the smallest arena in bytes, up
to LIMIT, in which it ran once, with the sections that it prints.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

STEP = 16
_SLACK_BYTES = 1 << 14
_COUNTED = "Input index"  # how it answers to the number behind its last input
_SECTION = re.compile(r"'([^']+)' used (\d+) bytes")
_PART = re.compile(r"Arena allocation (\w+) (\d+) bytes")


def main() -> None:
    """Measure one model."""
    content, result, limit = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), int(sys.argv[3])
    result.write_text(json.dumps(measure(content, limit)), encoding="utf-8")


def measure(content: bytes, limit: int) -> dict[str, object]:
    """Return {"refusal": text} or {"arena_bytes": n, "parts": {...}, "sections": {...}}."""
    with _listening() as words:
        failure = _failure(content, limit)
    if failure:
        return {"refusal": f"{failure}: {' '.join(words)}" if words else failure}
    parts = {name: int(count) for line in words for name, count in _PART.findall(line)}
    sections = {name: int(count) for line in words for name, count in _SECTION.findall(line)}
    # What the recording interpreter counts is not all that it needs, so the smallest arena is found by trying.
    low, high = 0, min(limit, (parts.get("total", limit) + _SLACK_BYTES) // STEP * STEP)
    while high - low > STEP:
        middle = (low + high) // 2 // STEP * STEP
        low, high = (low, middle) if _loads_and_runs(content, middle) else (middle, high)
    if not _loads_and_runs(content, high):
        return {"refusal": f"it ran in {limit} bytes, but not in {high}, which it said would do"}
    return {"arena_bytes": high, "parts": parts, "sections": sections}


def _loads_and_runs(content: bytes, arena_bytes: int) -> bool:
    """Try in a process of its own, for an arena that is far too small crashes the interpreter."""
    child = os.fork()
    if child == 0:
        with _listening():
            failure = _failure(content, arena_bytes)
        os._exit(1 if failure else 0)
    return os.waitpid(child, 0)[1] == 0


def _failure(content: bytes, arena_bytes: int) -> str:
    from tflite_micro.python.tflite_micro import runtime

    try:
        interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)
        for position in range(_input_count(interpreter)):
            details = interpreter.get_input_details(position)
            interpreter.set_input(np.zeros(details["shape"], details["dtype"]), position)
        interpreter.invoke()
        interpreter.print_allocations()
    except (RuntimeError, ValueError, IndexError) as err:
        return f"{type(err).__name__}: {err}"
    return ""


def _input_count(interpreter: object) -> int:
    count = 0
    while True:
        try:
            interpreter.get_input_details(count)  # type: ignore[attr-defined]
        except (RuntimeError, ValueError, IndexError):
            return count
        count += 1


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Yield a list that holds, afterwards, the lines that the interpreter printed on stderr."""
    words: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield words
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            text = said.read(1 << 16).decode("utf-8", "replace")
            lines = [line.strip() for line in text.splitlines()]
            words.extend(line for line in lines if line and _COUNTED not in line)


if __name__ == "__main__":
    main()
