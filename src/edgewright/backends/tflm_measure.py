"""The arena of a model, measured by the LiteRT Micro interpreter in the toolchain environment `tflm`."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import ConversionError
from edgewright.workers import environments

TOOLCHAIN = "tflm"
PACKAGE = "tflite-micro"
MAX_ARENA_BYTES = 64 << 20
_TIMEOUT_S = 600
_SCRIPT = Path(__file__).parent / "tflm_script.py"


@dataclass(frozen=True, kw_only=True)
class Arena:
    """What a model takes on this machine.

    Attributes:
        total_bytes: the smallest arena, in steps of 16 bytes, in which the model ran.
        activation_bytes: of it the head: tensors between operators, shared over time, and scratch buffers.
        sections: of the rest, which lasts: what the interpreter lists, name -> bytes.
    """

    total_bytes: int
    activation_bytes: int
    sections: Mapping[str, int]


def is_installed() -> bool:
    """Return whether the interpreter's environment is there."""
    return environments.is_installed(TOOLCHAIN)


def version() -> str:
    """Return the version of the installed interpreter; empty where there is none."""
    return environments.support_versions(TOOLCHAIN).get(PACKAGE, "")


def measure_arena(model: bytes, *, what: str) -> Arena:
    """Run the `.tflite` in `model` once in each of several arenas, and return what it takes.

    Args:
        what: the name of the model, for messages.
    Raises:
        UnavailableError: the environment is not installed.
        ConversionError: the interpreter refuses the model, crashes or takes too long.
    """
    python = environments.interpreter(TOOLCHAIN)
    with tempfile.TemporaryDirectory(prefix="edgewright-tflm-") as name:
        source, result = Path(name) / "model.tflite", Path(name) / "result.json"
        source.write_bytes(model)
        command = [str(python), "-I", str(_SCRIPT), str(source), str(result), str(MAX_ARENA_BYTES)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as err:
            raise ConversionError(
                f"LiteRT Micro had not run {what} after {_TIMEOUT_S} s. Use --to litert."
            ) from err
        if not result.is_file():
            ending = _ending(done.returncode, done.stderr.decode("utf-8", "replace"))
            raise ConversionError(f"LiteRT Micro crashed on {what} ({ending}). Use --to litert.")
        record = json.loads(result.read_text(encoding="utf-8"))
    assert isinstance(record, dict)
    if "refusal" in record:
        raise ConversionError(
            f"LiteRT Micro does not take {what}: {str(record['refusal'])[:300]}. Use --to litert, or change the model."
        )
    parts, sections = record["parts"], record["sections"]
    assert isinstance(parts, dict)
    assert isinstance(sections, dict)
    return Arena(
        total_bytes=int(record["arena_bytes"]),
        activation_bytes=int(parts.get("head", 0)),
        sections={str(name): int(count) for name, count in sections.items()},
    )


def _ending(code: int, said: str) -> str:
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"exit code {code}: {lines[-1][:200] if lines else 'it said nothing'}"
