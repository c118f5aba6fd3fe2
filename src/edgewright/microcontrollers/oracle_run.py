"""Runs inside the environment `tflm`, as a script: FOLDER ARENA_BYTES FIRST.

The folder holds models.json, a list of `.tflite` paths, and the inputs of model number i in inputs_i.npz. Each model
that was run leaves outputs_i.npz; then a line of JSON on stdout says what became of it. A crash leaves no line.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np


def main() -> None:
    """Run every model from number FIRST on."""
    folder, arena_bytes, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    models = json.loads((folder / "models.json").read_text(encoding="utf-8"))
    for number in range(first, len(models)):
        refusal, activation_bytes = run(Path(models[number]), folder, number, arena_bytes)
        record = {"number": number, "refusal": refusal, "activation_bytes": activation_bytes}
        print(json.dumps(record), flush=True)


def run(model: Path, folder: Path, number: int, arena_bytes: int) -> tuple[str, int]:
    """Write the outputs of one model; return why the interpreter refused it or nothing, and its activations' bytes."""
    from tflite_micro.python.tflite_micro import runtime

    with np.load(folder / f"inputs_{number}.npz", allow_pickle=False) as archive:
        columns = [archive[f"input_{i}"] for i in range(len(archive.files))]
    try:
        interpreter = runtime.Interpreter.from_file(str(model), arena_size=arena_bytes)
        count = 1
        # There is no count of outputs: the last one answers, the next one does not.
        while _has_output(interpreter, count):
            count += 1
        rows = []
        for row in range(len(columns[0])):
            for position, column in enumerate(columns):
                interpreter.set_input(column[row], position)
            interpreter.invoke()
            rows.append([interpreter.get_output(i).copy() for i in range(count)])
    except Exception as err:  # the interpreter's reader raises what it meets in a broken file
        return f"{type(err).__name__}: {err}", 0
    outputs = {f"output_{i}": np.stack([row[i] for row in rows]) for i in range(count)}
    np.savez(folder / f"outputs_{number}.npz", allow_pickle=False, **outputs)
    return "", _activation_bytes(interpreter)


def _activation_bytes(interpreter: object) -> int:
    """Return the head of the arena, which the interpreter prints on stderr."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            interpreter.print_allocations()  # type: ignore[attr-defined]
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        said.seek(0)
        found = re.search(rb"head (\d+) bytes", said.read())
    return int(found[1]) if found else 0


def _has_output(interpreter: object, position: int) -> bool:
    try:
        interpreter.get_output_details(position)  # type: ignore[attr-defined]
    except (RuntimeError, ValueError, IndexError):
        return False
    return True


if __name__ == "__main__":
    main()
