"""Runs inside the environment `tflm`, as a script: MODEL FOLDER ARENA_BYTES, with inputs.npz in the folder.

Exit code 3: the interpreter refused the model; why is on stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main() -> int:
    """Run the model on every row and write outputs.npz."""
    from tflite_micro.python.tflite_micro import runtime

    model, folder, arena_bytes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    with np.load(folder / "inputs.npz", allow_pickle=False) as archive:
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
    except (RuntimeError, ValueError) as err:
        print(f"{type(err).__name__}: {err}", file=sys.stderr)
        return 3
    outputs = {f"output_{i}": np.stack([row[i] for row in rows]) for i in range(count)}
    np.savez(folder / "outputs.npz", allow_pickle=False, **outputs)
    return 0


def _has_output(interpreter: object, position: int) -> bool:
    try:
        interpreter.get_output_details(position)  # type: ignore[attr-defined]
    except (RuntimeError, ValueError, IndexError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
