"""C99 for microcontrollers: a LiteRT int8 model becomes one .c and one .h, built and run here by the compiler."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgewright.backends import vendor
from edgewright.backends.litert import LiteRTBackend
from edgewright.backends.signed import SignedSession
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, LayerCost, Support
from edgewright.core.errors import DataError, FormatMismatchError, IntegrityError
from edgewright.core.files import sha256_of, sha256_of_files
from edgewright.core.options import options_record, read_settings
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Arrays, check_arrays
from edgewright.microcontrollers import host, oracle, selftest
from edgewright.microcontrollers.emit import (
    CModel,
    compile_model,
    golden_inputs,
    write_checks,
    write_sources,
)
from edgewright.microcontrollers.folder import MODEL_SUFFIX, labels_file, read_model
from edgewright.microcontrollers.labels import read_labels
from edgewright.microcontrollers.names import check_name, identifier
from edgewright.microcontrollers.projects import write_projects
from edgewright.microcontrollers.proof import prove

_SAME_NOTE = "bit-exact to LiteRT Micro {version} on {runs} generated inputs"
_NEAR_NOTE = "within 1e-5 of LiteRT Micro {version} on {runs} generated inputs: exponentials of float32 round otherwise"
_UNCOMPARED_NOTE = (
    "not compared with LiteRT Micro, which is not installed (edgewright toolchain install tflm): "
    "the self-test expects what this machine computed"
)


@dataclass(frozen=True, kw_only=True)
class COptions:
    """What can be chosen of a C model.

    Attributes:
        name: prefix of every name in the C files; default: made of the model's name.
        labels: a text file with a name for each class, one a line; default: what the model's own metadata has.
        labels_sha256: of that file, filled in.
    """

    name: str = ""
    labels: str = ""
    labels_sha256: str = ""


class CBackend:
    """Dependency-free C made of a LiteRT model; its conversion to int8 is LiteRT's."""

    name = "c"
    environment = ""
    runtime_module = "ctypes"
    consumes: tuple[str, ...] = ("pt2", "tflite")
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.W8A8)

    def __init__(self) -> None:
        self._litert = LiteRTBackend()

    def probe(self) -> Support:
        """Say whether LiteRT's converters and a C compiler are here."""
        support = self._litert.probe()
        if support.is_available and not any(shutil.which(name) for name in host.COMPILERS):
            return replace(
                support,
                is_available=False,
                reason=f"no C compiler ({', '.join(host.COMPILERS)}); run: apt-get install -y gcc",
            )
        return support

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if target.precision not in self.precisions:
            return f"c makes {', '.join(self.precisions)}, not {target.precision}"
        if target.threads != 1:
            return f"a microcontroller has one thread, not {target.threads}"
        return vendor.refuses(program, target, self.consumes)

    def settle_options(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return `texts` as options that are checked and complete, see `COptions`."""
        options = self._settled(read_settings(COptions, texts, what=self.name))
        return tuple(f"{name}={value}" for name, value in options_record(options).items() if value)

    def _settled(self, options: COptions) -> COptions:
        if options.name:
            check_name(options.name)
        if not options.labels:
            return options
        path = Path(options.labels).resolve()
        read_labels(path)
        digest = sha256_of(path)
        if options.labels_sha256 not in ("", digest):
            raise IntegrityError(f"the labels {path} have changed since they were chosen. Build again.")
        return replace(options, labels=str(path), labels_sha256=digest)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes this pair, as for LiteRT."""
        return vendor.quantizer(program, target)

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write NAME.c, NAME.h, their self-test, the projects around them and the LiteRT model that they were made of.

        Where the interpreter is installed, the C model must give its outputs bit by bit.

        Raises:
            ConversionError: operators are not covered (all of them by name), or the outputs differ.
        """
        reason = self.refuses(program, target)
        if reason:
            raise FormatMismatchError(f"c cannot make {target.precision} of {program.path.name}: {reason}.")
        workdir.mkdir(parents=True, exist_ok=True)
        options = self._settled(read_settings(COptions, target.options, what=self.name))
        name = options.name or identifier(_stem(program))
        labels = read_labels(Path(options.labels)) if options.labels else ()
        with tempfile.TemporaryDirectory(prefix=".c-", dir=workdir) as folder:
            lowered = self._litert.convert(
                program,
                replace(target, runtime=self._litert.name, options=()),
                calibration,
                Path(folder),
            )
            model = compile_model(lowered.path, name=name, has_integer_ends=True, labels=labels)
            stored = workdir / f"{name}{MODEL_SUFFIX}"
            lowered.path.replace(stored)
        written, version = _write(model, stored, workdir)
        files = (*written, *_write_labels(labels, name, workdir), stored)
        versions = host.compiler_version() | ({oracle.PACKAGE: version} if version else {})
        same = _SAME_NOTE if model.is_exact else _NEAR_NOTE
        compared = same.format(version=version, runs=selftest.RUNS) if version else _UNCOMPARED_NOTE
        return Artifact(
            files=files,
            target=target,
            inputs=lowered.inputs,
            outputs=lowered.outputs,
            sha256=sha256_of_files(files),
            source_sha256=program.sha256,
            toolchain=dict(lowered.toolchain) | versions,
            notes=(*lowered.notes, compared, _figures(model)),
        )

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> CSession:
        """Build the artifact with this machine's compiler; there is no profile, so `layers` is empty.

        Raises:
            UnavailableError: there is no C compiler.
            IntegrityError: the C files are not what this version makes of the model beside them.
        """
        return CSession(artifact)


class CSession(SignedSession):
    """One model, built as a shared library in a temporary folder."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        source = artifact.path
        # Only code that the emitter itself makes of the model is built and run, never code that came in a folder.
        model = read_model(source)
        self._folder = tempfile.TemporaryDirectory(prefix="edgewright-c-")
        self._model: host.HostModel | None = host.HostModel(
            source, graph=model.graph, folder=Path(self._folder.name)
        )

    def run(self, inputs: Arrays) -> Arrays:
        """Return the outputs for one batch; floats are quantized by the model's own functions.

        Raises:
            DataError: an input is missing or does not fit the signature.
        """
        model = self._model
        if model is None:
            raise DataError("the session is closed. Open the artifact again.")
        check_arrays(inputs, self.inputs, what=f"input of {self._artifact.path.name}")
        given = [
            model.quantized(position, inputs[spec.name])
            if inputs[spec.name].dtype != model.input_types[position]
            else inputs[spec.name]
            for position, spec in enumerate(self.inputs)
        ]
        model.reset()  # every run is a sample of its own, as in the runtimes without hidden state
        results = model.run(given)
        return {
            spec.name: model.dequantized(position, result)
            if spec.dtype == "float32" and result.dtype != np.float32
            else result
            for position, (spec, result) in enumerate(zip(self.outputs, results, strict=True))
        }

    def layers(self, inputs: Arrays) -> Sequence[LayerCost]:
        """Return nothing: the code has no profiler."""
        return ()

    def close(self) -> None:
        """Delete the library; what is loaded of it goes with the process."""
        self._model = None
        self._folder.cleanup()


def _stem(program: Program) -> str:
    origin = Path(program.origin).stem if ":" not in program.origin else program.origin.rpartition(":")[2]
    return origin or "model"


def _write_labels(labels: tuple[str, ...], name: str, workdir: Path) -> tuple[Path, ...]:
    """Return the file that keeps the labels that the user gave, where `read_model` finds them; nothing without any."""
    if not labels:
        return ()
    file = labels_file(workdir, name)
    file.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    return (file,)


def _write(model: CModel, stored: Path, workdir: Path) -> tuple[tuple[Path, ...], str]:
    """Return the files of a model that was written and proven, and the version of the interpreter that agreed."""
    source, _ = write_sources(model, workdir)
    proven = prove(model, source, stored, golden_inputs(model))
    is_theirs = proven.oracle_version and model.is_exact
    by = f"LiteRT Micro {proven.oracle_version}" if is_theirs else "this code where it was made"
    checks = write_checks(model, workdir, proven.outputs, source=by)
    return (source, *checks, *write_projects(model, workdir)), proven.oracle_version


def _figures(model: CModel) -> str:
    return (
        f"arena {model.plan.arena_bytes:,} bytes of RAM, tables {model.table_bytes:,} bytes of flash and the code, "
        f"{model.macs:,} MACs a run"
    )
