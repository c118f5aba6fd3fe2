"""The LiteRT Micro interpreter, run in its own environment: what C models are compared with.

It lives in the toolchain environment `tflm`: `edgewright toolchain install tflm`.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.core.errors import ConversionError, IntegrityError
from edgewright.core.tensors import Array
from edgewright.workers import environments

ENVIRONMENT = "tflm"
PACKAGE = "tflite-micro"
ARENA_BYTES = 16 << 20
TIMEOUT_S = 600
_SCRIPT = Path(__file__).parent / "oracle_run.py"


@dataclass(frozen=True, kw_only=True, eq=False)
class OracleRun:
    """What the interpreter gave.

    Attributes:
        outputs: for each run, the outputs in the model's order; empty when it refused the model.
        refusal: the last words of the interpreter when it refused the model.
    """

    outputs: tuple[tuple[Array, ...], ...]
    refusal: str = ""


def is_installed() -> bool:
    """Return whether the interpreter's environment is there."""
    return environments.is_installed(ENVIRONMENT)


def version() -> str:
    """Return the version of the installed interpreter; empty where there is none."""
    return environments.support_versions(ENVIRONMENT).get(PACKAGE, "")


def run(path: Path, rows: Sequence[Sequence[Array]], *, arena_bytes: int = ARENA_BYTES) -> OracleRun:
    """Return the outputs of the `.tflite` at `path` for each row of inputs, from one interpreter in this order.

    Raises:
        UnavailableError: the environment is not installed.
        ConversionError: the interpreter crashed or took too long.
    """
    python = environments.interpreter(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        columns = {f"input_{i}": np.stack([row[i] for row in rows]) for i in range(len(rows[0]))}
        np.savez(folder / "inputs.npz", allow_pickle=False, **columns)
        command = [str(python), "-I", str(_SCRIPT), str(path.resolve()), str(folder), str(arena_bytes)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as err:
            raise ConversionError(
                f"LiteRT Micro had not run {path.name} after {TIMEOUT_S} s. Give it fewer inputs."
            ) from err
        said = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode == 3:
            return OracleRun(outputs=(), refusal=said[-400:])
        if done.returncode != 0:
            raise ConversionError(
                f"LiteRT Micro crashed on {path.name} (code {done.returncode}): {said[-200:]!r}. "
                "Leave the comparison out."
            )
        with np.load(folder / "outputs.npz", allow_pickle=False) as archive:
            found = [archive[f"output_{i}"] for i in range(len(archive.files))]
    if any(len(column) != len(rows) for column in found):
        raise IntegrityError(f"LiteRT Micro gave {len(found[0])} results for {len(rows)} inputs.")
    return OracleRun(outputs=tuple(tuple(column[i] for column in found) for i in range(len(rows))))
