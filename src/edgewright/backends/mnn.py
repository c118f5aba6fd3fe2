"""MNN on the CPU, in an environment of its own: ONNX becomes one `.mnn` file.

MNN's command-line converter sends usage statistics and installs packages for that while it runs. The module that does
so is kept from being imported, and the converter's compiled part is called directly, in a process of its own.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from edgewright.backends import mnn_file, vendor
from edgewright.backends.external_tool import last_line, run_tool
from edgewright.backends.signed import SignedSession
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, LayerCost, Support
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError, IntegrityError, first_line
from edgewright.core.files import sha256_of_files
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array, Arrays, TensorSpec, check_arrays
from edgewright.workers import environments

_TOOLCHAIN = "mnn"
_FILE_NAME = "model.mnn"
_CONVERT = """
import sys
sys.modules["MNN.tools.utils.log"] = None
import _tools
_tools.mnnconvert(["MNNConvert", *sys.argv[1:]])
"""
_OPTIONS: dict[Precision, tuple[str, ...]] = {
    Precision.FP32: (),
    Precision.FP16: ("--fp16",),
    Precision.W8: ("--weightQuantBits", "8"),
    # Half-quadratic quantization: 3 to 6 dB less error than plain rounding on the models of the tests.
    Precision.W4: ("--weightQuantBits", "4", "--weightQuantBlock", "32", "--hqq"),
}
_NOTES = {
    Precision.FP32: "computed in float32 (precision high)",
    Precision.FP16: "weights are float16; computed in float16 where the CPU has it (precision low)",
    Precision.W8: "weights are int8 per channel, dequantized at load; activations and arithmetic are float32",
    Precision.W4: "weights are 4-bit in blocks of 32 (half-quadratic quantization), dequantized at load; "
    "activations and arithmetic are float32",
}
_DTYPES = ("float32", "int32", "int64", "bool")
_UNSUPPORTED = re.compile(r"Op Not Support:\s*([^\n]+)")


class Variable(Protocol):
    """A tensor of MNN."""

    data_format: object

    def read(self) -> Array: ...


class Module(Protocol):
    """A loaded model."""

    def forward(self, inputs: list[Variable]) -> Sequence[Variable] | None: ...


class MnnBackend:
    """Alibaba's runtime for phones, run by its Python wheel in the toolchain environment `mnn`."""

    name = "mnn"
    environment = _TOOLCHAIN
    runtime_module = "MNN"
    consumes: tuple[str, ...] = ("onnx",)
    precisions: tuple[Precision, ...] = tuple(_OPTIONS)

    def probe(self) -> Support:
        """Say whether the environment is installed (or is this one)."""
        found = vendor.versions(["mnn"]) or environments.support_versions(_TOOLCHAIN)
        reason = f"toolchain {_TOOLCHAIN!r} is not installed; run: edgewright toolchain install {_TOOLCHAIN}"
        return Support(is_available="mnn" in found, versions=found, reason="" if "mnn" in found else reason)

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if target.precision is Precision.W8A8:
            return "MNN's quantizer of activations (mnnquant) crashes on the version that is locked: w8 and w4 work"
        if target.precision not in self.precisions:
            return f"mnn makes {', '.join(self.precisions)}, not {target.precision}"
        if program.precision != Precision.FP32:
            return f"mnn is made from float models here, but the source is already {program.precision}"
        for spec in (*program.inputs, *program.outputs):
            if spec.dtype not in _DTYPES:
                return f"mnn takes and gives {', '.join(_DTYPES)}, but {spec} is {spec.dtype}"
        return vendor.refuses(program, target, self.consumes)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return MNN's own for weights, which is all it quantizes here."""
        return Quantizer.NATIVE if target.precision in (Precision.W8, Precision.W4) else None

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model.mnn` into `workdir`; a dynamic batch stays dynamic.

        Raises:
            FormatMismatchError: `refuses` gives a reason.
            ConversionError: the converter refused, with every unsupported operator by name.
        """
        reason = self.refuses(program, target)
        if reason is not None:
            raise FormatMismatchError(f"{reason}.")
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / _FILE_NAME
        with tempfile.TemporaryDirectory(prefix=".mnn-", dir=workdir) as name:
            made = Path(name) / _FILE_NAME
            arguments = ["-f", "ONNX", "--modelFile", str(program.path.resolve()), "--MNNModel", str(made)]
            arguments += ["--bizCode", "edgewright", "--keepInputFormat", *_OPTIONS[target.precision]]
            said = run_tool(
                [sys.executable, "-I", "-c", _CONVERT, *arguments],
                made.parent,
                tool="MNN's converter",
                what=program.path.name,
            )
            _check_made(made, said, program)
            mnn_file.settle_uuid(made)
            made.replace(path)
        artifact = Artifact(
            files=(path,),
            target=target,
            inputs=program.inputs,
            outputs=program.outputs,
            sha256=sha256_of_files((path,)),
            source_sha256=program.sha256,
            toolchain=vendor.versions(["mnn"]),
            notes=(_NOTES[target.precision],),
            environment=_TOOLCHAIN,
        )
        MnnSession(artifact, target).close()
        return artifact

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> MnnSession:
        """Load the artifact with the threads of `target`; there is no profile, so `layers` is empty.

        Raises:
            IntegrityError: the file is damaged or has other inputs and outputs than the artifact.
            ConversionError: MNN refuses the file.
        """
        return MnnSession(artifact, target)


class MnnSession(SignedSession):
    """One loaded model of MNN."""

    def __init__(self, artifact: Artifact, target: Target) -> None:
        self._artifact = artifact
        _check_signature(mnn_file.read_net(artifact.path), artifact)
        self._module: Module | None = _load(artifact, target)

    def run(self, inputs: Arrays) -> Arrays:
        """Return copies of the outputs for one batch.

        Raises:
            DataError: the arrays do not fit the signature, or an int64 is beyond the int32 that MNN computes with.
            ConversionError: MNN failed, or gave outputs of another size.
        """
        from MNN import expr

        assert self._module is not None, "the session is closed"
        check_arrays(inputs, self.inputs, what=f"input of {self._artifact.path.name}")
        made = self._module.forward([_variable(spec, inputs[spec.name]) for spec in self.inputs])
        if made is None or len(made) != len(self.outputs):
            raise ConversionError(
                f"MNN gave {len(made or ())} outputs of {self._artifact.path.name}, but {len(self.outputs)} are "
                "expected. Leave this runtime out."
            )
        results = {}
        for spec, variable in zip(self.outputs, made, strict=True):
            if variable.data_format == expr.NC4HW4:  # channels in groups of four, as the kernels have them
                variable = cast(Variable, expr.convert(variable, expr.NCHW))
            array = np.array(variable.read(), copy=True)
            results[spec.name] = _fitted(array, spec, self._artifact.path.name)
        return results

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return nothing: MNN's Python API tells no times."""
        return ()

    def close(self) -> None:
        """Free the model."""
        self._module = None


def _variable(spec: TensorSpec, array: Array) -> Variable:
    from MNN import expr

    dtype = expr.float if spec.dtype == "float32" else expr.int
    if spec.dtype == "int64" and array.size:
        limits = np.iinfo(np.int32)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise DataError(
                f"input {spec.name!r} holds values beyond int32, which is what MNN computes with."
            )
    native = np.ascontiguousarray(array, dtype=np.float32 if spec.dtype == "float32" else np.int32)
    return cast(Variable, expr.const(native, list(native.shape), expr.NCHW, dtype))


def _fitted(array: Array, spec: TensorSpec, name: str) -> Array:
    """Return `array` with the dtype of `spec`, after a look at its shape.

    Raises:
        ConversionError: it is not the output that `spec` says.
    """
    fits = array.ndim == len(spec.shape) and all(
        want is None or want == got for want, got in zip(spec.shape, array.shape, strict=True)
    )
    is_exact = (array.dtype == np.float32) == (spec.dtype == "float32")
    if not fits or not is_exact:
        raise ConversionError(
            f"MNN gives output {spec.name!r} of {name} as {array.dtype}{list(array.shape)}, but {spec} is expected. "
            "Leave this runtime out."
        )
    return array.astype(spec.dtype)


def _load(artifact: Artifact, target: Target) -> Module:
    import MNN.nn

    config = {
        "backend": "CPU",
        "precision": "low" if target.precision is Precision.FP16 else "high",
        "memory": "normal",  # low memory would quantize activations of w8 while it runs
        "power": "normal",
        "numThread": target.threads,
    }
    try:
        manager = MNN.nn.create_runtime_manager((config,))
        module = MNN.nn.load_module_from_file(
            str(artifact.path),
            [spec.name for spec in artifact.inputs],
            [spec.name for spec in artifact.outputs],
            runtime_manager=manager,
        )
    except Exception as err:  # the binding raises RuntimeError and SystemError
        raise ConversionError(
            f"MNN cannot load {artifact.path.name}: {first_line(err)}. Build it again."
        ) from err
    if module is None:
        raise ConversionError(f"MNN cannot load {artifact.path.name}, and does not say why. Build it again.")
    return cast(Module, module)


def _check_made(path: Path, said: str, program: Program) -> None:
    """Check what the converter left, as it reports failures by words alone.

    Raises:
        ConversionError: there is no file, with every unsupported operator by name; or it lost inputs or outputs.
    """
    found = {name for part in _UNSUPPORTED.findall(said) for name in re.findall(r"[\w.]+::[\w.]+", part)}
    if found:
        names = ", ".join(sorted(name.removeprefix("ONNX::") for name in found))
        raise ConversionError(
            f"{program.path.name} cannot become MNN: there is no operator for {names}. "
            "Replace it in the model, or leave this runtime out."
        )
    if not path.is_file() or path.stat().st_size == 0:
        telling = [line.strip() for line in said.splitlines() if "fail" in line.lower() or "ERROR" in line]
        why = telling[0][:300] if telling else last_line(said)
        raise ConversionError(
            f"MNN cannot convert {program.path.name}: {why}. Change the model, or leave this runtime out."
        )
    lost = _lost(mnn_file.read_net(path), program.inputs, program.outputs)
    if lost:
        raise ConversionError(
            f"MNN lost {', '.join(lost)} of {program.path.name}. Remove unused inputs, and outputs that are inputs."
        )


def _check_signature(net: mnn_file.Table, artifact: Artifact) -> None:
    lost = _lost(net, artifact.inputs, artifact.outputs)
    if lost:
        raise IntegrityError(
            f"{artifact.path.name} has no {', '.join(lost)}. It is not the file that was recorded: build it again."
        )


def _lost(net: mnn_file.Table, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> list[str]:
    """Return what `net` lacks, e.g. "input 'image'"."""
    operators = net.tables(mnn_file.NET_OPERATORS)
    given = {op.text(mnn_file.OP_NAME) for op in operators if mnn_file.operator_name(op) == "Input"}
    made = set(net.texts(mnn_file.NET_OUTPUTS))
    lost = [f"input {spec.name!r}" for spec in inputs if spec.name not in given]
    return lost + [f"output {spec.name!r}" for spec in outputs if spec.name not in made]
