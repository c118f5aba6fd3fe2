"""Backends that misbehave as vendor libraries do: each is the one of ONNX Runtime with one real fault."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgewright.backends.onnxruntime import OnnxRuntimeBackend
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, Session
from edgewright.core.errors import UsageError
from edgewright.core.program import Program
from edgewright.core.target import Target
from edgewright.core.tensors import Arrays, TensorSpec


class CrashesInConvert(OnnxRuntimeBackend):
    """Ends with a segmentation fault while it converts."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError("the signal did not end the process")


class Hangs(OnnxRuntimeBackend):
    """Never comes back from a conversion; leaves its process id for the test."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        marker = os.environ.get("EDGEWRIGHT_TEST_MARKER")
        if marker:
            Path(marker).write_text(str(os.getpid()))
        while True:
            time.sleep(60)


class FloodsStdout(OnnxRuntimeBackend):
    """Prints 64 MiB, and then works."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        for _ in range(64):
            os.write(1, b"noise " * (1 << 17))
        print("more noise", file=sys.stderr)
        return super().convert(program, target, calibration, workdir)


class EatsMemory(OnnxRuntimeBackend):
    """Takes memory until somebody ends it."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        taken = []
        while True:
            taken.append(np.ones(1 << 22))  # 32 MiB, touched
            time.sleep(0.02)


class ExitsSilently(OnnxRuntimeBackend):
    """Calls exit(0) in the middle of a conversion, past every `finally`."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        os._exit(0)


class Raises(OnnxRuntimeBackend):
    """Raises an exception of its own with a long text and control characters."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        raise RuntimeError("operator \x1b[31mFancyOp\x1b[0m is not supported\n" + "at frame\n" * 1000)


class WritesHalfAFile(OnnxRuntimeBackend):
    """Reports success with a model file cut in half, its digest taken afterwards."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        from edgewright.core.files import sha256_of

        made = super().convert(program, target, calibration, workdir)
        content = made.path.read_bytes()
        made.path.write_bytes(content[: len(content) // 2])
        return replace(made, sha256=sha256_of(made.path))


class ChangesItsFile(OnnxRuntimeBackend):
    """Reports the digest of a file that it changes afterwards."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        made = super().convert(program, target, calibration, workdir)
        made.path.write_bytes(made.path.read_bytes() + b"\x00")
        return made


class WritesAWrongModel(OnnxRuntimeBackend):
    """Writes a sound file in which one output channel of every matrix is negated."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        import onnx

        from edgewright.core.files import sha256_of

        made = super().convert(program, target, calibration, workdir)
        model = onnx.load(made.path)
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor).copy()
            if values.ndim == 2:
                values[:, 0] *= -1
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(model, made.path)
        return replace(made, sha256=sha256_of(made.path))


class WritesOutside(OnnxRuntimeBackend):
    """Puts its model beside the folder that it was given."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        outside = workdir.parent / "outside"
        outside.mkdir(exist_ok=True)
        return super().convert(program, target, calibration, outside)


class _CrashingSession:
    """Runs nothing: the first inference ends the process."""

    def __init__(self, inner: Session) -> None:
        self._inner = inner

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inner.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._inner.outputs

    def run(self, inputs: Arrays) -> Arrays:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError("the signal did not end the process")

    def layers(self, inputs: Arrays) -> list[object]:
        return []

    def close(self) -> None:
        self._inner.close()


class CrashesInRun(OnnxRuntimeBackend):
    """Converts well, and ends with a segmentation fault at the first inference."""

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        return _CrashingSession(super().open(artifact, target, profile=profile))  # type: ignore[return-value]


class CannotBeMade:
    """Not a backend at all."""

    def __init__(self) -> None:
        raise UsageError("broken on purpose")
