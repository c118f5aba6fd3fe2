"""The conformance suite on every built-in backend, and on backends that break the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs, torchscript_programs

from edgewright.backends import registry
from edgewright.backends.onnxruntime import OnnxRuntimeBackend
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, LayerCost, Session
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Target
from edgewright.core.tensors import Arrays, TensorSpec
from edgewright.testing import CheckedPair, check_backend

NEEDS = {
    "reference": ("torch", "onnx", "onnxruntime", "ai_edge_litert", "litert_torch"),
    "onnxruntime": ("torch", "torchao", "onnx", "onnxruntime", "onnxscript"),
    "litert": ("torch", "torchao", "litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
    "openvino": (
        "torch",
        "torchao",
        "onnx",
        "onnxruntime",
        "openvino",
        "nncf",
        "ai_edge_litert",
        "litert_torch",
    ),
}
SOURCES = {
    "reference": ("cnn_pt2", "mlp_pt2", "mlp_onnx", "cnn_tflite", "cnn_torchscript"),
    "onnxruntime": ("cnn_pt2", "mlp_pt2", "mlp_onnx"),
    "litert": ("cnn_pt2", "mlp_pt2", "cnn_tflite"),
    "openvino": ("cnn_pt2", "mlp_pt2", "mlp_onnx", "cnn_tflite"),
}


PLAIN = (Precision.FP32, Precision.FP16, Precision.W8, *INTEGER_PRECISIONS)
# TensorFlow's formats are tested where TensorFlow is: tests/bridges/test_tensorflow.py and test_openvino.py.
FORMATS = ("pt2", "onnx", "tflite", "torchscript")


def made(name: str, folder: Path) -> Program:
    module = torchscript_programs if name.endswith("torchscript") else programs
    program: Program = getattr(module, name)(folder / name)
    return program


def require(name: str) -> None:
    missing = [package for package in NEEDS[name] if find_spec(package) is None]
    if missing:
        pytest.skip(f"{name} needs {', '.join(missing)}; install it with: pip install 'edgewright[default]'")


@pytest.mark.parametrize("name", ["reference", "onnxruntime", "litert", "openvino"])
def test_built_in_backend_conforms(name: str, tmp_path: Path) -> None:
    require(name)
    sources = [made(source, tmp_path / "sources") for source in SOURCES[name]]
    calibrations = {
        str(source.path): programs.calibration_for(source, source.path.parent) for source in sources
    }
    backend = registry.get(name)
    report = check_backend(
        backend,
        programs=sources,
        calibrations=calibrations,
        workdir=tmp_path / "work",
        precisions=PLAIN,  # w4 needs larger layers than these programs have: test_openvino.py
        formats=[form for form in backend.consumes if form in FORMATS],
    )
    done = {(pair.program, pair.precision) for pair in report.converted}
    if name == "reference":
        assert done == {(source.path.name, Precision.FP32) for source in sources}
    else:
        # What must work whatever else is refused: PyTorch programs in every precision.
        assert set(PLAIN) <= set(backend.precisions)
        assert {("cnn.pt2", precision) for precision in PLAIN} <= done
        assert {("mlp.pt2", precision) for precision in PLAIN} <= done


class Wrapped(OnnxRuntimeBackend):
    """A backend that conforms, for subclasses that break one rule each."""

    name = "onnxruntime"
    consumes = ("onnx",)
    precisions = (Precision.FP32,)

    def refuses(self, program: Program, target: Target) -> str | None:
        if target.precision is not Precision.FP32:
            return "fp32 alone"
        return super().refuses(program, target)


class WrappedSession:
    def __init__(self, inner: Session) -> None:
        self.inner = inner

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.inner.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.inner.outputs

    def run(self, inputs: Arrays) -> Arrays:
        return self.inner.run(inputs)

    def layers(self, inputs: Arrays) -> tuple[LayerCost, ...]:
        return tuple(self.inner.layers(inputs))

    def close(self) -> None:
        self.inner.close()


class SwapsOutputs(Wrapped):
    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        artifact = super().convert(program, target, calibration, workdir)
        return replace(artifact, outputs=artifact.outputs[::-1])


class SilentlyWrong(Wrapped):
    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        class Scaled(WrappedSession):
            def run(self, inputs: Arrays) -> Arrays:
                results = self.inner.run(inputs)
                return {
                    name: (value * np.float32(1.01)).astype(value.dtype) for name, value in results.items()
                }

        return Scaled(super().open(artifact, target, profile=profile))


class AcceptsAnything(Wrapped):
    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        class Casting(WrappedSession):
            def run(self, inputs: Arrays) -> Arrays:
                cast: Mapping[str, np.ndarray] = {
                    name: np.asarray(value, dtype=np.float32) for name, value in inputs.items()
                }
                return self.inner.run(cast)

        return Casting(super().open(artifact, target, profile=profile))


class WritesElsewhere(Wrapped):
    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        (workdir.parent / "leftover.bin").write_bytes(b"x")
        return super().convert(program, target, calibration, workdir)


class NeverTheSame(Wrapped):
    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        artifact = super().convert(program, target, calibration, workdir)
        with artifact.path.open("ab") as stream:
            # Field 6 of ModelProto, a doc string: valid ONNX, and another one each time.
            stream.write(bytes((0x32, 10)) + workdir.name.ljust(10)[:10].encode())
        sha256 = __import__("hashlib").sha256(artifact.path.read_bytes()).hexdigest()
        return replace(artifact, sha256=sha256)


class RefusesWithoutReason(Wrapped):
    def refuses(self, program: Program, target: Target) -> str | None:
        return "" if target.precision is Precision.FP16 else super().refuses(program, target)


@pytest.mark.toolchain("onnx", "onnxruntime")
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (SwapsOutputs, "does not take"),
        (SilentlyWrong, "dB"),
        (AcceptsAnything, "another dtype: no DataError"),
        (WritesElsewhere, "outside its workdir"),
        (NeverTheSame, "two digests"),
        (RefusesWithoutReason, "without a reason"),
    ],
)
def test_suite_finds_a_breach(broken: type[Wrapped], message: str, tmp_path: Path) -> None:
    program = programs.mlp_onnx(tmp_path / "sources")
    with pytest.raises(AssertionError, match=message):
        check_backend(broken(), programs=[program], calibrations={}, workdir=tmp_path / "work")


@pytest.mark.toolchain("onnx", "onnxruntime")
def test_suite_passes_the_backend_that_breaks_nothing(tmp_path: Path) -> None:
    program = programs.mlp_onnx(tmp_path / "sources")
    report = check_backend(Wrapped(), programs=[program], calibrations={}, workdir=tmp_path / "work")
    (pair,) = report.converted
    assert pair == CheckedPair(
        program="mlp.onnx", precision=Precision.FP32, size_bytes=pair.size_bytes, snr_db=pair.snr_db
    )
    assert pair.snr_db >= 80


@pytest.mark.toolchain("onnx", "onnxruntime")
def test_suite_needs_a_program_of_every_format(tmp_path: Path) -> None:
    program = programs.mlp_onnx(tmp_path / "sources")
    with pytest.raises(AssertionError, match="pt2"):
        check_backend("onnxruntime", programs=[program], calibrations={}, workdir=tmp_path / "work")
