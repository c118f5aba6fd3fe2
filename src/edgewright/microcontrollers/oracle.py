"""The LiteRT Micro interpreter, run in its own environment: what C models are compared with.

It lives in the toolchain environment `tflm`: `edgewright toolchain install tflm`.
"""

from __future__ import annotations

import json
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
        activation_bytes: what its tensors took of the arena.
    """

    outputs: tuple[tuple[Array, ...], ...]
    refusal: str = ""
    activation_bytes: int = 0


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
        ConversionError: the interpreter took too long.
    """
    return run_many([(path, rows)], arena_bytes=arena_bytes)[0]


def run_many(
    jobs: Sequence[tuple[Path, Sequence[Sequence[Array]]]], *, arena_bytes: int = ARENA_BYTES
) -> list[OracleRun]:
    """Return what the interpreter gives for each model and its rows; see `run`. A crash is a refusal."""
    python = environments.interpreter(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, (_, rows) in enumerate(jobs):
            columns = {f"input_{i}": np.stack([row[i] for row in rows]) for i in range(len(rows[0]))}
            np.savez(folder / f"inputs_{number}.npz", allow_pickle=False, **columns)
        models = [str(path.resolve()) for path, _ in jobs]
        (folder / "models.json").write_text(json.dumps(models), encoding="utf-8")
        records: dict[int, tuple[str, int]] = {}
        while len(records) < len(jobs):
            first = len(records)
            records.update(_start(python, folder, arena_bytes, first))
            if len(records) < len(jobs):
                records[len(records)] = ("the interpreter crashed", 0)
        return [
            _collect(folder, number, len(rows), *records[number]) for number, (_, rows) in enumerate(jobs)
        ]


def _start(python: Path, folder: Path, arena_bytes: int, first: int) -> dict[int, tuple[str, int]]:
    """Return number -> refusal and activations of the models that one process dealt with."""
    command = [str(python), "-I", str(_SCRIPT), str(folder), str(arena_bytes), str(first)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise ConversionError(
            f"LiteRT Micro was not ready after {TIMEOUT_S} s. Give it fewer inputs."
        ) from err
    found = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
            found[int(record["number"])] = (str(record["refusal"]), int(record["activation_bytes"]))
        except (ValueError, KeyError, TypeError):
            continue  # the interpreter prints on stdout, too
    if not found and done.returncode == 1:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise ConversionError(f"LiteRT Micro cannot be started: {said[-300:]!r}. Install it again.")
    return found


def _collect(folder: Path, number: int, count: int, refusal: str, activation_bytes: int) -> OracleRun:
    if refusal:
        return OracleRun(outputs=(), refusal=refusal)
    with np.load(folder / f"outputs_{number}.npz", allow_pickle=False) as archive:
        columns = [archive[f"output_{i}"] for i in range(len(archive.files))]
    if any(len(column) != count for column in columns):
        raise IntegrityError(f"LiteRT Micro gave {len(columns[0])} results for {count} inputs.")
    rows = tuple(tuple(column[i] for column in columns) for i in range(count))
    return OracleRun(outputs=rows, activation_bytes=activation_bytes)
