"""Print a digest of every array that a Linux bundle's C core makes of its golden cases, by numpy and the bundle alone.

The models' outputs are those of the golden files, so that a difference is the core's. The argument names the package.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys

import numpy as np


def main(package: str) -> None:
    """Print the digest of each tensor of the models and of each result, one JSON object."""
    module = importlib.import_module(package)
    core = importlib.import_module(f"{package}.core").Core()
    folder = module.DATA / "golden"
    record = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    digests: dict[str, str] = {}
    for case in record["cases"]:
        raw = {entry["name"]: _read(folder, entry) for entry in case["inputs"]}
        outputs = {entry["name"]: _read(folder, entry) for entry in case["outputs"]}
        core.reset()
        made: dict[str, list[bytes]] = {}
        runs = len(raw[module.INPUTS[0][0]]) // module.HOP if module.HOP else 1
        for turn in range(runs):
            part = slice(turn * module.HOP, (turn + 1) * module.HOP) if module.HOP else slice(None)
            _run(module, core, {name: array[part] for name, array in raw.items()}, outputs, turn, made)
        for name, parts in made.items():
            digests[f"{case['name']}: {name}"] = hashlib.sha256(b"".join(parts)).hexdigest()
    print(json.dumps(digests))


def _run(module, core, raw, outputs, turn, made) -> None:  # type: ignore[no-untyped-def]
    for index, (name, kind, dtype, order) in enumerate(module.INPUTS):
        if kind == "image":
            core.set_image(index, raw[name], pixel_format=order)
        else:
            core.set_numbers(index, raw[name], dtype)
    given = iter(outputs.values())
    for number, (_, inputs, results) in enumerate(module._MODELS):
        core.prepare(number)
        for index, (name, shape, dtype) in enumerate(inputs):
            tensor = core.tensor(number, index, shape, dtype, is_input=True)
            made.setdefault(f"tensor {number} {name}", []).append(tensor.tobytes())
        for index, (_, shape, dtype) in enumerate(results):
            core.tensor(number, index, shape, dtype, is_input=False)[...] = next(given)[turn].reshape(shape)
        core.finish(number)
    for index, (name, _) in enumerate(module.RESULTS):
        made.setdefault(f"result {name}", []).append(core.result(index).tobytes())


def _read(folder, entry) -> np.ndarray:  # type: ignore[no-untyped-def]
    content = (folder / entry["file"]).read_bytes()
    return np.frombuffer(content, dtype=np.dtype(entry["dtype"]).newbyteorder("<")).reshape(entry["shape"])


if __name__ == "__main__":
    main(sys.argv[1])
