"""TensorFlow's formats end to end, in TensorFlow's environment: read, run, converted, compared.

Skipped where that environment is not installed: `edgewright toolchain install tensorflow`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import tensorflow_models

from edgewright.backends import registry as backends
from edgewright.backends.tensorflow_session import sample_inputs
from edgewright.bridges import registry
from edgewright.core.artifact import Artifact
from edgewright.core.errors import ConversionError, IntegrityError, UnavailableError, UsageError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array, Arrays
from edgewright.sources.load import load
from edgewright.workers import environments
from edgewright.workers.pool import Limits, Worker

_TARGET = Target(runtime="reference", precision=Precision.FP32, threads=1)


@pytest.fixture(scope="module")
def tensorflow() -> Iterator[Worker]:
    """Return a worker in TensorFlow's environment."""
    if not environments.is_installed("tensorflow"):
        pytest.skip(
            "needs TensorFlow's environment; install it with: edgewright toolchain install tensorflow"
        )
    with Worker("tensorflow-tests", environment="tensorflow", limits=Limits(timeout_s=800)) as worker:
        yield worker


@pytest.fixture(scope="module")
def models(tensorflow: Worker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the models that TensorFlow itself has written."""
    folder = tmp_path_factory.mktemp("tensorflow")
    command = [str(environments.interpreter("tensorflow")), tensorflow_models.__file__, str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=800)
    return folder


def _cross(worker: Worker, program: Program, folder: Path) -> Program:
    """Return `program` as a `.tflite`, over as many bridges as that takes."""
    for bridge in registry.route(program.format, ("tflite",), runtime="test"):
        arguments: dict[str, object] = {
            "bridge": bridge.name,
            "program": program.to_json(),
            "workdir": str(folder / bridge.name),
        }
        record = worker.call("edgewright.bridges.operations:cross", arguments)["program"]
        assert isinstance(record, dict)
        program = Program.from_json(record)
    return program


def _reference(worker: Worker, program: Program, inputs: Arrays, folder: Path) -> dict[str, Array]:
    """Return the program's outputs as the reference backend gives them in the environment."""
    request: dict[str, object] = {
        "program": program.to_json(),
        "target": _TARGET.to_json(),
        "calibration": None,
        "workdir": str(folder / "reference"),
    }
    artifact = worker.call("edgewright.backends.operations:convert", request)["artifact"]
    files = {}
    for place, (name, value) in enumerate(inputs.items()):
        files[name] = str(folder / f"in{place}.npy")
        np.save(files[name], value)
    request = {"artifact": artifact, "inputs": files, "out": str(folder / "out")}
    outputs = worker.call("edgewright.measure.operations:run_once", request)["outputs"]
    assert isinstance(outputs, dict)
    return {name: np.load(path) for name, path in outputs.items()}


def _agrees(worker: Worker, source: Program, folder: Path) -> tuple[Program, float]:
    """Return the `.tflite` and its largest difference from the source, run here by our own LiteRT session."""
    folder.mkdir(parents=True, exist_ok=True)
    made = _cross(worker, source, folder)
    assert [spec.name for spec in made.inputs] == [spec.name for spec in source.inputs]
    assert [spec.name for spec in made.outputs] == [spec.name for spec in source.outputs]
    inputs = sample_inputs(made.inputs, batch=1, free=1, seed=3)
    wanted = _reference(worker, source, inputs, folder)
    backend = backends.get("reference")
    artifact: Artifact = backend.convert(made, _TARGET, None, folder)
    got = backend.open(artifact, _TARGET).run(inputs)
    assert list(wanted) == [spec.name for spec in source.outputs]
    differences = [float(np.abs(got[name] - wanted[name]).max()) for name in wanted]
    assert all(got[name].shape == wanted[name].shape for name in wanted)
    return made, max(differences)


@pytest.mark.slow
@pytest.mark.toolchain("h5py", "ai_edge_litert")
@pytest.mark.parametrize(
    "name",
    [
        "mlperf-tiny/ic_resnet8.h5",
        "mlperf-tiny/vww_mobilenet_96.h5",
        "mlperf-tiny/kws_dscnn_savedmodel",
        "hand-gesture/keypoint_classifier.hdf5",
    ],
)
def test_real_models_reach_litert(tensorflow: Worker, assets: Path, name: str, tmp_path: Path) -> None:
    source = load(str(assets / "models" / name), workdir=tmp_path)
    made, difference = _agrees(tensorflow, source, tmp_path / "crossed")
    print(f"{name}: max abs difference {difference:.3g}")
    assert difference <= 1e-4
    assert made.notes == source.notes


@pytest.mark.slow
@pytest.mark.toolchain("h5py", "ai_edge_litert")
@pytest.mark.parametrize("name", ["cnn.keras", "recurrent.keras", "frozen.pb", "order"])
def test_made_models_reach_litert(tensorflow: Worker, models: Path, name: str, tmp_path: Path) -> None:
    source = load(str(models / name), workdir=tmp_path)
    made, difference = _agrees(tensorflow, source, tmp_path / "crossed")
    print(f"{name}: max abs difference {difference:.3g}")
    assert difference <= 1e-4
    assert any("batch made static" in note for note in made.notes) == (name == "recurrent.keras")


@pytest.mark.slow
@pytest.mark.toolchain("h5py", "ai_edge_litert")
def test_dynamic_sizes_must_be_given(tensorflow: Worker, models: Path, tmp_path: Path) -> None:
    source = load(str(models / "sizes"), workdir=tmp_path)
    with pytest.raises(
        ConversionError, match=r"dimension 1 of 'steps' is dynamic.*--input-shape steps=1x16x4"
    ):
        _cross(tensorflow, source, tmp_path / "a")
    fixed = load(str(models / "sizes"), workdir=tmp_path, input_shapes=["steps=1x5x4"])
    assert [str(spec) for spec in (*fixed.inputs, *fixed.outputs)] == [
        "steps: float32[1, 5, 4]",
        "output_0: float32[1, 4]",
    ]
    made, difference = _agrees(tensorflow, fixed, tmp_path / "b")
    assert difference <= 1e-4
    assert made.inputs[0].shape == (1, 5, 4)


@pytest.mark.slow
@pytest.mark.toolchain("h5py", "ai_edge_litert")
def test_what_litert_lacks_is_named(tensorflow: Worker, models: Path, tmp_path: Path) -> None:
    source = load(str(models / "flex"), workdir=tmp_path)
    with pytest.raises(ConversionError, match="no built-in operator for Betainc"):
        _cross(tensorflow, source, tmp_path)


@pytest.mark.slow
@pytest.mark.toolchain("h5py", "ai_edge_litert")
def test_a_lambda_runs_only_when_trusted(tensorflow: Worker, models: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Lambda layer"):
        load(str(models / "lambda.keras"), workdir=tmp_path)
    source = load(str(models / "lambda.keras"), workdir=tmp_path, trust=True)
    assert [str(spec) for spec in source.outputs] == ["lambda: float32[?, 4]"]
    inputs = sample_inputs(source.inputs, batch=3, free=1)
    results = _reference(tensorflow, source, inputs, tmp_path)
    np.testing.assert_array_equal(results["lambda"], 2 * next(iter(inputs.values())))
    with pytest.raises(ConversionError, match="Keras 3 cannot load"):
        _reference(tensorflow, replace(source, is_trusted=False), inputs, tmp_path)


@pytest.mark.slow
@pytest.mark.toolchain("h5py")
def test_a_source_that_changed_meanwhile_is_not_run(tensorflow: Worker, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.pb"
    path.write_bytes((models / "frozen.pb").read_bytes())
    source = load(str(path), workdir=tmp_path)
    with path.open("ab") as stream:
        stream.write(b"\x0a\x00")
    with pytest.raises(IntegrityError, match="changed after it was read"):
        _reference(tensorflow, source, sample_inputs(source.inputs, batch=1, free=1), tmp_path)


def test_without_the_environment_the_route_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TOOLCHAINS", str(tmp_path))
    for source in ("keras", "saved_model", "graph_def"):
        with pytest.raises(UnavailableError, match="edgewright toolchain install tensorflow"):
            registry.route(source, ("tflite",), runtime="litert")
