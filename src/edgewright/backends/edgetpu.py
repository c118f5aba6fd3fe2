"""Coral's Edge TPU: a LiteRT int8 model, checked against the documented rules, compiled where the compiler is.

The compiler is not to be had everywhere, and nothing here runs what it makes. Without it the artifact is the model
that would be compiled, what the rules say of each operator, and the command: it is never called compiled.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgewright.backends import device_model, vendor
from edgewright.backends.edgetpu_log import CompilerLog, parse_log
from edgewright.backends.edgetpu_rules import RUNTIMES, Readiness, check_model
from edgewright.backends.external_tool import run_tool
from edgewright.backends.litert import LiteRTBackend
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.contracts import Calibration, Session, Support
from edgewright.core.errors import ConversionError, FormatMismatchError, UnavailableError, UsageError
from edgewright.core.files import sha256_of_files, write_json, write_text
from edgewright.core.options import options_record, read_settings
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target

COMPILER = "edgetpu_compiler"
_MODEL, _COMPILED, _LOG, _RULES, _SCRIPT = (
    "model.tflite",
    "model_edgetpu.tflite",
    "model_edgetpu.log",
    "readiness.json",
    "build.sh",
)
_VERSION_TIMEOUT_S = 20
_SHOWN = 6
_ABSENT = f"{COMPILER} is not here: models are checked against the documented rules, not compiled"


@dataclass(frozen=True, kw_only=True)
class EdgeTpuOptions:
    """How the model is compiled.

    Attributes:
        cpu_operators: whether operators may stay on the CPU.
        min_runtime_version: the oldest runtime that shall run the model; it decides which operators may be used.
    """

    cpu_operators: Literal["fail", "allow"] = "fail"
    min_runtime_version: int = RUNTIMES[-1]

    def __post_init__(self) -> None:
        if self.min_runtime_version not in RUNTIMES:
            known = " or ".join(map(str, RUNTIMES))
            raise UsageError(f"min_runtime_version is {self.min_runtime_version}; expected {known}.")


class EdgeTpuBackend:
    """The accelerator on Coral's boards, USB sticks and M.2 cards."""

    name = "edgetpu"
    environment = ""
    runtime_module = ""
    consumes: tuple[str, ...] = ("pt2", "tflite")
    precisions: tuple[Precision, ...] = (Precision.W8A8,)

    def __init__(self) -> None:
        self._litert = LiteRTBackend()

    def probe(self) -> Support:
        """Say whether LiteRT's converters are here, and whether the compiler is; the accelerator is not looked for."""
        support = self._litert.probe()
        version = compiler_version()
        if not support.is_available:
            return support
        reason = "models are compiled, but not run: there is no Edge TPU here" if version else _ABSENT
        versions = support.versions | ({COMPILER: version} if version else {})
        return Support(is_available=True, versions=versions, reason=reason, is_installed=False)

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if target.precision not in self.precisions:
            return f"an Edge TPU computes in 8-bit integers: it is made in w8a8, not in {target.precision}"
        if target.threads != 1:
            return f"an Edge TPU has no threads to choose, but {target.threads} are asked for"
        return device_model.refuses(program, target, self.consumes)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes this pair, as for LiteRT."""
        return vendor.quantizer(program, target)

    def settle_options(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return `texts` as options that are checked and complete, see `EdgeTpuOptions`."""
        options = read_settings(EdgeTpuOptions, texts, what=self.name)
        return tuple(f"{name}={value}" for name, value in options_record(options).items())

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write the compiled model and the compiler's log, or without it the model and `build.sh`, into `workdir`.

        Either way `readiness.json` says of each operator what the documented rules say.

        Raises:
            ConversionError: an operator breaks a rule or is left to the CPU by the compiler (the first one with what
                to do instead), or the compiler refuses the model.
        """
        reason = self.refuses(program, target)
        if reason:
            raise FormatMismatchError(
                f"edgetpu cannot make {target.precision} of {program.path.name}: {reason}."
            )
        options = read_settings(EdgeTpuOptions, target.options, what=self.name)
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".edgetpu-", dir=workdir) as name:
            folder = Path(name)
            lowered = device_model.lower(program, target, calibration, folder)
            lowered.path.replace(folder / _MODEL)
            readiness = _checked(folder / _MODEL, options)
            _judge(readiness, options, program.path.name)
            write_json(folder / _RULES, readiness.to_json())
            compiled = _compile(folder, options, program.path.name)
            made = _SCRIPT if compiled is None else _LOG
            names = (_MODEL, _RULES, _SCRIPT) if compiled is None else (_COMPILED, _RULES, made)
            files = tuple((folder / file).replace(workdir / file) for file in names)
        version = compiler_version()
        return Artifact(
            files=files,
            target=target,
            inputs=lowered.inputs,
            outputs=lowered.outputs,
            sha256=sha256_of_files(files),
            source_sha256=program.sha256,
            toolchain=dict(lowered.toolchain) | ({COMPILER: version} if compiled else {}),
            notes=(*_notes(readiness, compiled, options), *lowered.notes),
            proof=Proof.RECIPE if compiled is None else Proof.CONVERTED,
        )

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        """Refuse: nothing here runs a model on an Edge TPU.

        Raises:
            UnavailableError: always.
        """
        raise UnavailableError(f"{artifact.path.name} runs on an Edge TPU, and there is none here.")


def compiler_version() -> str:
    """Return the version of the installed compiler; empty where there is none."""
    path = shutil.which(COMPILER)
    if path is None:
        return ""
    try:
        said = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"version (\S+)", said)
    return found[1] if found else "unknown"


def build_command(options: EdgeTpuOptions) -> list[str]:
    """Return the command that compiles `model.tflite` in its folder, every operator with its status."""
    return [COMPILER, "--show_operations", "--min_runtime_version", str(options.min_runtime_version), _MODEL]


def _checked(path: Path, options: EdgeTpuOptions) -> Readiness:
    from edgewright.backends import litert_file
    from edgewright.sources.tflite_file import read_flatbuffer

    return check_model(litert_file.read(path), read_flatbuffer(path), runtime=options.min_runtime_version)


def _judge(readiness: Readiness, options: EdgeTpuOptions, what: str) -> None:
    """Refuse a model that breaks the rules, unless that is allowed.

    Raises:
        ConversionError: the first operator that does, with what to do instead.
    """
    if readiness.is_ready or (options.cpu_operators == "allow" and readiness.mapped):
        return
    fatal = [check for check in readiness.offending if check.violation and check.violation.is_fatal]
    first = (*fatal, *readiness.offending)[0]
    assert first.violation is not None
    total = len(readiness.operators)
    rest = [check for check in readiness.offending if check is not first]
    others = ", ".join(map(str, rest[:_SHOWN])) + (", ..." if len(rest) > _SHOWN else "")
    more = f" Others that break a rule: {others}." if others else ""
    way = (
        f" Or let it and what follows run on the CPU: --option {EdgeTpuBackend.name}.cpu_operators=allow."
        if readiness.mapped
        else ""
    )
    raise ConversionError(
        f"{what} is not ready for the Edge TPU: {first} {first.violation.reason}. The compiler stops at the first "
        f"operator that it cannot map, so {readiness.mapped} of {total} would run on the Edge TPU. Instead: "
        f"{first.violation.rewrite}.{way}{more}"
    )


def _compile(folder: Path, options: EdgeTpuOptions, what: str) -> CompilerLog | None:
    """Run the compiler; without it, write the script that does.

    Raises:
        ConversionError: it refuses the model, says that it did and left no file, or leaves operators to the CPU.
    """
    command = build_command(options)
    path = shutil.which(COMPILER)
    if path is None:
        text = f"#!/bin/sh\n# Compiles {_MODEL} beside it for the Edge TPU.\nset -e\n{shlex.join(command)}\n"
        write_text(folder / _SCRIPT, text)
        return None
    said = run_tool([path, *command[1:]], folder, tool="the Edge TPU compiler", what=what)
    log = parse_log(said)
    vendor.require_file(folder / _COMPILED)
    _check_compiled(folder / _COMPILED, log)
    write_text(folder / _LOG, said)
    if log.on_edge_tpu == 0:
        raise ConversionError(
            f"the Edge TPU compiler maps no operator of {what}: {', '.join(map(str, log.on_cpu[:_SHOWN]))}."
        )
    if log.on_cpu and options.cpu_operators == "fail":
        raise ConversionError(
            f"the Edge TPU compiler leaves operators of {what} to the CPU: {', '.join(map(str, log.on_cpu))}. Change "
            f"them, or allow it with --option {EdgeTpuBackend.name}.cpu_operators=allow."
        )
    return log


def _check_compiled(path: Path, log: CompilerLog) -> None:
    """Check that the file holds as many parts for the Edge TPU as the log says, and that they can be read.

    Raises:
        ConversionError: it does not.
        IntegrityError: see `edgetpu_notes`.
    """
    from edgewright.sources.edgetpu_package import OPERATOR, edgetpu_notes
    from edgewright.sources.tflite_file import read_flatbuffer

    parts = sum(o.name == OPERATOR for graph in read_flatbuffer(path).graphs for o in graph.operators)
    if parts != log.subgraphs:
        raise ConversionError(
            f"the Edge TPU compiler says {log.subgraphs} parts, but {path.name} holds {parts} operators {OPERATOR}. "
            "Report it with the log."
        )
    edgetpu_notes(path)


def _notes(readiness: Readiness, log: CompilerLog | None, options: EdgeTpuOptions) -> list[str]:
    total = len(readiness.operators)
    notes = []
    if log is None:
        kept = "all" if readiness.is_ready else f"the first {readiness.mapped} of"
        notes.append(f"not compiled, for {COMPILER} is not here: run {shlex.join(build_command(options))}")
        notes.append(
            f"{kept} {total} operators keep the documented rules, which is no promise of the compiler"
        )
    else:
        notes.append(f"compiled by {COMPILER} {log.version}, not run here: no number of it is measured")
        notes.append(
            f"{log.on_edge_tpu} of {log.operations} operators on the Edge TPU in {log.subgraphs} parts; parameters: "
            f"{log.cached_bytes:,} bytes cached on the chip, {log.streamed_bytes:,} streamed"
        )
        notes += [f"on the CPU: {', '.join(map(str, log.on_cpu))}"] if log.on_cpu else []
    for check in readiness.offending[:1]:
        assert check.violation is not None
        notes.append(f"on the CPU from here on: {check} {check.violation.reason}")
    cautions = [
        f"{check} {check.caution}" for check in readiness.operators[: readiness.mapped] if check.caution
    ]
    if cautions and log is None:
        notes.append(f"{len(cautions)} of them may stay on the CPU even so: {cautions[0]}")
    return notes
