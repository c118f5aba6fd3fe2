"""A backend of another toolchain environment, made to look as if it ran here: for the conformance suite."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Backend, Calibration, LayerCost, Session
from edgewright.core.errors import FormatMismatchError
from edgewright.core.program import Program
from edgewright.core.target import Target
from edgewright.core.tensors import Array, Arrays, TensorSpec
from edgewright.workers.pool import Worker


class RemoteSession:
    """Each run is a request to the worker, which opens the artifact for it."""

    def __init__(self, worker: Worker, artifact: Artifact, target: Target) -> None:
        self._worker = worker
        self._artifact = artifact
        self._folder = tempfile.TemporaryDirectory(prefix="edgewright-test-")
        self._count = 0

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._artifact.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._artifact.outputs

    def run(self, inputs: Arrays) -> Arrays:
        folder = Path(self._folder.name) / str(self._count)
        self._count += 1
        folder.mkdir()
        files = {name: folder / f"in{place}.npy" for place, name in enumerate(inputs)}
        for name, path in files.items():
            np.save(path, inputs[name], allow_pickle=False)
        reply = self._worker.call(
            "edgewright.measure.operations:run_once",
            {
                "artifact": self._artifact.to_json(),
                "inputs": {name: str(path) for name, path in files.items()},
                "out": str(folder / "out"),
            },
        )
        outputs = reply["outputs"]
        assert isinstance(outputs, dict)
        arrays: dict[str, Array] = {name: np.load(path) for name, path in outputs.items()}
        return arrays

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        return ()

    def close(self) -> None:
        self._folder.cleanup()


def in_environment(backend: Backend, worker: Worker) -> Backend:
    """Return `backend`, changed: `worker`, which runs in its environment, does its `convert` and `open`."""

    def convert(program: Program, target: Target, calibration: Calibration | None, workdir: Path) -> Artifact:
        reason = backend.refuses(program, target)
        if reason is not None:  # the operation says the same, but would cost a call
            raise FormatMismatchError(reason)
        arguments = {
            "program": program.to_json(),
            "target": target.to_json(),
            "calibration": None if calibration is None else calibration.to_json(),
            "workdir": str(workdir),
        }
        record = worker.call("edgewright.backends.operations:convert", arguments)["artifact"]
        assert isinstance(record, dict)
        return Artifact.from_json(record)

    def open_(artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        return RemoteSession(worker, artifact, target)

    backend.convert = convert  # type: ignore[method-assign]
    backend.open = open_  # type: ignore[method-assign]
    return backend
