"""Backends whose artifacts are proven otherwise than by their own runtime: the one of ONNX Runtime, but for that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgewright.backends.onnxruntime import OnnxRuntimeBackend
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.contracts import Calibration, Support
from edgewright.core.errors import ConversionError
from edgewright.core.program import Program
from edgewright.core.target import Target

NOT_HERE = "tests.proving_backends:NotHere"


class Interpreted(OnnxRuntimeBackend):
    """Says that what it opens is an interpreter."""

    proof = Proof.INTERPRETED

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        made = super().convert(program, target, calibration, workdir)
        return replace(made, proof=self.proof, notes=("it would run on a phone",))


class Converted(Interpreted):
    """Says that nothing here runs what it writes."""

    proof = Proof.CONVERTED


class Recipe(Interpreted):
    """Says that the files are for another machine to build from."""

    proof = Proof.RECIPE


class Package(OnnxRuntimeBackend):
    """Writes its file into a package folder, as Core ML does."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        made = super().convert(program, target, calibration, workdir)
        inside = workdir / "model.mlpackage" / "Data" / "model.onnx"
        inside.parent.mkdir(parents=True)
        made.path.rename(inside)
        return made.moved((inside,))


class NotHere(OnnxRuntimeBackend):
    """Is not installed."""

    def probe(self) -> Support:
        return Support(is_available=False, versions={}, reason="no onnx toolchain; run: pip install it")


class ReadsTorchBetter(OnnxRuntimeBackend):
    """Reads ONNX first, and cannot convert it."""

    consumes = ("onnx", "pt2")

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        if program.format == "onnx":
            raise ConversionError("the reader of ONNX has no operator Conv")
        return super().convert(program, target, calibration, workdir)


class ReadsNothing(ReadsTorchBetter):
    """Cannot convert what it reads."""

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        raise ConversionError(f"the reader of {program.format} has no operator Conv")
