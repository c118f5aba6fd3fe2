"""ONNX Runtime for phones: a model in ORT's own format, and the operators that a reduced build of it needs."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from dataclasses import replace
from pathlib import Path

from edgewright.backends import ort_format, vendor
from edgewright.backends.external_tool import run_tool
from edgewright.backends.onnx_session import OnnxSession
from edgewright.backends.onnxruntime import OnnxRuntimeBackend
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, Session, Support
from edgewright.core.errors import ConversionError, FormatMismatchError, first_line
from edgewright.core.files import copy_files, sha256_of_files, work_folder
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Quantizer, Target

FILE_NAME = "model.ort"
CONFIG_NAME = "required_operators.config"
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_NOTE = (
    f"{CONFIG_NAME} names the operators and types that the app's runtime needs: give it to ONNX Runtime's build.py as "
    "--include_ops_by_config with --enable_reduced_operator_type_support --minimal_build"
)
_W8_NOTE = (
    "weights are made float again at every inference: a file in ORT format is not optimised when it is loaded"
)


class OnnxRuntimeMobileBackend:
    """Makes the ONNX model as the onnxruntime backend does, optimises it once, and writes it as `.ort`."""

    name = "onnxruntime-mobile"
    environment = ""
    runtime_module = "onnxruntime"
    consumes: tuple[str, ...] = OnnxRuntimeBackend.consumes
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.W8, *INTEGER_PRECISIONS)

    def __init__(self) -> None:
        self._full = OnnxRuntimeBackend()

    def probe(self) -> Support:
        """Say whether ONNX Runtime and the exporter's packages are installed."""
        return vendor.support(_PACKAGES, extra="onnxruntime")

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if target.precision is Precision.FP16:
            return (
                f"{self.name} makes no fp16: ONNX Runtime has no float16 kernels for this CPU, and so writes float32 "
                "weights into the .ort file, which gets larger than in fp32."
            )
        if target.precision not in self.precisions:
            return f"{self.name} makes {', '.join(self.precisions)}, not {target.precision}."
        reason = self._full.refuses(program, self._as_full(target))
        return None if reason is None else reason.replace(self._full.name, self.name)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes: as for the onnxruntime backend."""
        return self._full.quantizer(program, self._as_full(target))

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model.ort` and `required_operators.config` into `workdir`.

        Raises:
            FormatMismatchError: `refuses` gives a reason.
            DataError: w8a8 needs a calibration and there is none, or it does not fit.
            ConversionError: the exporter, the quantizer or the writer refused.
        """
        reason = self.refuses(program, target)
        if reason is not None:
            raise FormatMismatchError(reason)
        workdir.mkdir(parents=True, exist_ok=True)
        files = (workdir / FILE_NAME, workdir / CONFIG_NAME)
        with work_folder() as folder:
            made = self._full.convert(program, self._as_full(target), calibration, folder)
            _write_ort(made.path, files[0])
        _write_config(*files)
        is_w8 = target.precision is Precision.W8
        return replace(
            made,
            files=files,
            target=target,
            sha256=sha256_of_files(files),
            notes=(*made.notes, _NOTE, *((_W8_NOTE,) if is_w8 else ())),
        )

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        """Load the `.ort` file with the threads of `target`.

        Raises:
            ConversionError: the runtime refuses the file.
            IntegrityError: the file has other tensors than the artifact.
        """
        return OnnxSession(
            artifact.path, artifact.inputs, artifact.outputs, threads=target.threads, profile=profile
        )

    def _as_full(self, target: Target) -> Target:
        return replace(target, runtime=self._full.name)


def _write_ort(source: Path, path: Path) -> None:
    """Write the model at `source`, optimised for no particular processor, in ORT format.

    Raises:
        ConversionError: ONNX Runtime refuses the model.
    """
    # Names without a folder, and so of one length: the writer's memory, and with it the file, depends on them.
    command = [sys.executable, "-I", ort_format.__file__, source.name, path.name]
    run_tool(command, source.parent, tool="ONNX Runtime's writer of ORT format", what=source.name)
    written = source.parent / path.name
    vendor.require_file(written)
    copy_files({path.name: written}, path.parent)


def _write_config(model: Path, path: Path) -> None:
    from onnxruntime.tools.ort_format_model import create_config_from_models

    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file open
            create_config_from_models([model], path, True)
    except Exception as err:
        raise ConversionError(
            f"ONNX Runtime cannot tell the operators of {model.name}: {first_line(err)}."
        ) from err
    vendor.require_file(path)
    # Its first lines name the folder that the model was in, which must not travel with it.
    lines = path.read_text(encoding="utf-8").splitlines()
    own = f"# Operators that {model.name} needs, with their types"
    kept = sorted(line for line in lines if line and not line.startswith("#"))
    path.write_text("\n".join([own, *kept]) + "\n", encoding="utf-8")
