"""Broken and mutated artifacts end in one of our errors, or in numbers; the parent process lives on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends.litert import LiteRTBackend
from edgewright.backends.openvino import OpenVINOBackend
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Backend
from edgewright.core.errors import EdgewrightError
from edgewright.core.target import Target
from edgewright.workers.pool import Limits, Worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.toolchain("torch", "openvino", "nncf", "litert_torch", "ai_edge_litert"),
]

MUTATIONS = 24


def open_and_run(arguments: dict[str, object]) -> dict[str, object]:
    """Worker operation: load an artifact and run zeros through it."""
    record = arguments["artifact"]
    assert isinstance(record, dict)
    artifact = Artifact.from_json(record)
    backend: Backend = {"litert": LiteRTBackend, "openvino": OpenVINOBackend}[artifact.target.runtime]()
    session = backend.open(artifact, artifact.target)
    inputs = {s.name: np.zeros([d or 1 for d in s.shape], s.dtype) for s in session.inputs}
    return {"outputs": [list(value.shape) for value in session.run(inputs).values()]}


@pytest.mark.parametrize("runtime", ["litert", "openvino"])
def test_mutated_artifacts_do_not_take_the_parent_down(
    runtime: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    backend: Backend = LiteRTBackend() if runtime == "litert" else OpenVINOBackend()
    source = programs.cnn_pt2(tmp_path)
    artifact = backend.convert(source, Target(runtime=runtime), None, tmp_path / "whole")
    whole = [file.read_bytes() for file in artifact.files]
    outcomes = []
    operation = f"{__name__}:open_and_run"
    root = str(Path(__file__).parents[2])
    with Worker("hostile", limits=Limits(timeout_s=60), env={"PYTHONPATH": root}) as worker:
        for number in range(MUTATIONS):
            content = bytearray(whole[0])
            if number % 4 == 0:
                del content[int(rng.integers(1, len(content))) :]
            else:
                for position in rng.integers(0, len(content), 1 + 8 * (number % 3)):
                    content[position] = int(rng.integers(0, 256))
            folder = tmp_path / str(number)
            folder.mkdir()
            files = tuple(folder / file.name for file in artifact.files)
            for file, data in zip(files, [bytes(content), *whole[1:]], strict=True):
                file.write_bytes(data)
            try:
                worker.call(operation, {"artifact": replace(artifact, files=files).to_json()})
                outcomes.append("ran")
            except EdgewrightError as err:
                outcomes.append(type(err).__name__)
        # The untouched file still runs in the same place: the errors above were not about the worker.
        assert worker.call(operation, {"artifact": artifact.to_json()}) == {"outputs": [[1, 10]]}
    assert len(outcomes) == MUTATIONS
    assert {"ConversionError", "IntegrityError", "FormatMismatchError"} & set(outcomes), outcomes
