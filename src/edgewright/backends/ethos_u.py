"""Arm Ethos-U NPUs: a LiteRT int8 model compiled by Vela, for a microcontroller that has one.

Nothing here runs the result: latency and memory are the compiler's estimates and are called so. A model of which an
operator stays on the CPU is refused, unless the option `cpu_operators=allow` is given.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgewright.backends import device_model, vendor
from edgewright.backends.external_tool import run_tool
from edgewright.backends.litert import LiteRTBackend
from edgewright.backends.vela_report import VelaReport, read_report, shown
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.contracts import Calibration, Session, Support
from edgewright.core.errors import (
    ConversionError,
    FormatMismatchError,
    IntegrityError,
    UnavailableError,
    UsageError,
)
from edgewright.core.files import sha256_of_files
from edgewright.core.options import options_record, read_settings
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.workers import environments

TOOLCHAIN = "vela"
PACKAGE = "ethos-u-vela"
ARM_CONFIG = "Arm/vela.ini"  # comes with the package, under the Apache licence
_MODEL, _COMPILED, _SUMMARY, _PER_LAYER = "model.tflite", "model_vela.tflite", "summary.csv", "per-layer.csv"
_MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class EthosUOptions:
    """How Vela compiles; what is empty has a default by family, see `settled`.

    Attributes:
        system_config: a section System_Config of the configuration: clock, memories and their speed.
        memory_mode: a section Memory_Mode of it: where weights, activations and the cache lie.
        config: a configuration file of your own; empty is Arm's, which comes with Vela.
        config_sha256: of that file, filled in.
        optimise: what the compiler is to favour.
        arena_cache_size: bytes of the arena or cache that it may use; 0 leaves what the memory mode says.
        cpu_operators: whether operators may stay on the CPU.
    """

    system_config: str = ""
    memory_mode: str = ""
    config: str = ""
    config_sha256: str = ""
    optimise: Literal["Performance", "Size"] = "Performance"
    arena_cache_size: int = 0
    cpu_operators: Literal["fail", "allow"] = "fail"

    def __post_init__(self) -> None:
        if not 0 <= self.arena_cache_size <= 1 << 32:
            raise UsageError(f"arena_cache_size is {self.arena_cache_size}; expected 0..{1 << 32} bytes.")
        for name in ("system_config", "memory_mode"):
            value = getattr(self, name)
            if value and not value.replace("_", "").isalnum():
                raise UsageError(f"{name} is {value!r}; expected the name of a section, e.g. Shared_Sram.")


# Families as in Arm's configuration. For the U55, the memories of a fast microcontroller: SRAM for activations, flash
# for weights. The U65 and the U85 sit beside DRAM, with SRAM of their own.
_SYSTEMS = {
    "u55": ("Ethos_U55_Deep_Embedded", "Ethos_U55_High_End_Embedded"),
    "u65": ("Ethos_U65_Embedded", "Ethos_U65_Mid_End", "Ethos_U65_High_End", "Ethos_U65_Client_Server"),
    "u85": (
        "Ethos_U85_SYS_Flash_Low",
        "Ethos_U85_SYS_Flash_High",
        "Ethos_U85_SYS_DRAM_Low",
        "Ethos_U85_SYS_DRAM_Mid",
        "Ethos_U85_SYS_DRAM_High",
    ),
}
_DEDICATED = (
    "Dedicated_Sram",
    "Dedicated_Sram_256KB",
    "Dedicated_Sram_384KB",
    "Dedicated_Sram_512KB",
)
_MODES = {
    "u55": ("Sram_Only", "Shared_Sram"),
    "u65": ("Sram_Only", "Shared_Sram", *_DEDICATED),
    "u85": ("Sram_Only", "Shared_Sram", *_DEDICATED),
}
_DEFAULTS = {
    "u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "u65": ("Ethos_U65_High_End", "Dedicated_Sram"),
    "u85": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB"),
}


class EthosUBackend:
    """One configuration of an Ethos-U; a subclass names it as Vela does."""

    name = ""
    environment = ""  # of the conversion to LiteRT; Vela runs in `vela`, as a program of its own
    runtime_module = ""
    consumes: tuple[str, ...] = ("pt2", "tflite")
    precisions: tuple[Precision, ...] = (Precision.W8A8,)

    def __init__(self) -> None:
        self._litert = LiteRTBackend()

    @property
    def family(self) -> str:
        """u55, u65 or u85."""
        return self.name.split("-")[1]

    def probe(self) -> Support:
        """Say whether LiteRT's converters and Vela are here; the NPU never is."""
        support = self._litert.probe()
        if not support.is_available:
            return support
        version = environments.support_versions(TOOLCHAIN).get(PACKAGE)
        if version is None:
            reason = (
                f"toolchain {TOOLCHAIN!r} is not installed; run: edgewright toolchain install {TOOLCHAIN}"
            )
            return replace(support, is_available=False, reason=reason)
        return Support(
            is_available=True,
            versions=support.versions | {PACKAGE: version},
            reason="models are compiled for this NPU, but not run: there is none here",
            is_installed=False,
        )

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if target.precision not in self.precisions:
            return f"an Ethos-U computes in integers: {self.name} is made in w8a8, not in {target.precision}"
        if target.threads != 1:
            return f"an NPU has no threads to choose, but {target.threads} are asked for"
        return device_model.refuses(program, target, self.consumes)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes this pair, as for LiteRT."""
        return vendor.quantizer(program, target)

    def settle_options(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return `texts` as options that are checked and complete, see `EthosUOptions`."""
        options = self._settled(read_settings(EthosUOptions, texts, what=self.name))
        return tuple(f"{name}={value}" for name, value in options_record(options).items() if value != "")

    def _settled(self, options: EthosUOptions) -> EthosUOptions:
        system, mode = _DEFAULTS[self.family]
        made = replace(
            options,
            system_config=options.system_config or system,
            memory_mode=options.memory_mode or mode,
        )
        if made.config:
            path = Path(made.config).resolve()
            digest = _digest(path)
            if made.config_sha256 not in ("", digest):
                raise IntegrityError(f"{path} has changed since it was chosen. Build again.")
            return replace(made, config=str(path), config_sha256=digest)
        for name, known in (("system_config", _SYSTEMS), ("memory_mode", _MODES)):
            value, names = getattr(made, name), known[self.family]
            if value not in names:
                raise UsageError(
                    f"{self.name}: {name} is {value!r}; Arm's configuration has {', '.join(names)} for it. "
                    "Choose one, or give a configuration file of your own with config=FILE."
                )
        return made

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model_vela.tflite` and the compiler's two CSV files into `workdir`.

        Raises:
            UnavailableError: Vela's environment is not installed.
            ConversionError: operators stay on the CPU (each with Vela's reason), or Vela refuses the model.
        """
        reason = self.refuses(program, target)
        if reason:
            raise FormatMismatchError(
                f"{self.name} cannot make {target.precision} of {program.path.name}: {reason}."
            )
        options = self._settled(read_settings(EthosUOptions, target.options, what=self.name))
        python = environments.interpreter(TOOLCHAIN)
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".vela-", dir=workdir) as name:
            folder = Path(name)
            lowered = device_model.lower(program, target, calibration, folder)
            _check_integers(lowered.path, program)
            lowered.path.replace(folder / _MODEL)
            report = _compile(python, self.name, options, folder, program.path.name)
            files = []
            for made in (_COMPILED, _SUMMARY, _PER_LAYER):
                files.append((folder / "out" / made).replace(workdir / made))
        version = environments.support_versions(TOOLCHAIN)[PACKAGE]
        where = f"{options.system_config}, {options.memory_mode}, {Path(options.config).name or ARM_CONFIG}"
        notes = [
            f"compiled by Vela {version} for {self.name} ({where}), not run here: no number of it is measured",
            f"the compiler's estimate{' of the part on the NPU' if report.cpu_operators else ''}: {report.estimate}",
            f"{report.npu_operators} operators on the NPU, {len(report.cpu_operators)} on the CPU, as Vela lists them",
        ]
        notes += [f"on the CPU: {shown(report.cpu_operators)}"] if report.cpu_operators else []
        return Artifact(
            files=tuple(files),
            target=target,
            inputs=lowered.inputs,
            outputs=lowered.outputs,
            sha256=sha256_of_files(tuple(files)),
            source_sha256=program.sha256,
            toolchain=dict(lowered.toolchain) | {PACKAGE: version},
            notes=(*notes, *lowered.notes),
            proof=Proof.CONVERTED,
        )

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        """Refuse: there is no Ethos-U here.

        Raises:
            UnavailableError: always.
        """
        raise UnavailableError(f"{artifact.path.name} runs on an {self.name}, and there is none here.")


def _check_integers(path: Path, program: Program) -> None:
    """Check that something in the model computes in integers: Vela would leave all of it to the CPU without an error.

    Raises:
        ConversionError: nothing does.
    """
    from edgewright.sources.tflite_file import read_flatbuffer

    tensors = [tensor for graph in read_flatbuffer(path).graphs for tensor in graph.tensors]
    if not any(
        t.dtype in ("int8", "uint8", "int16") and t.is_quantized and not t.data_bytes for t in tensors
    ):
        raise ConversionError(
            f"{program.path.name} has float activations alone, and an Ethos-U computes in integers. Quantize it: "
            "--precision w8a8 with --calibration."
        )


def _compile(python: Path, accelerator: str, options: EthosUOptions, folder: Path, what: str) -> VelaReport:
    """Run Vela on `folder`/model.tflite; its files are in `folder`/out under names that do not change."""
    out, logs = folder / "out", folder / "log"
    logs.mkdir()
    command = [
        str(python),
        *("-I", "-m", "ethosu.vela", str(folder / _MODEL)),
        *("--accelerator-config", accelerator),
        *("--config", options.config or ARM_CONFIG),
        *("--system-config", options.system_config),
        *("--memory-mode", options.memory_mode),
        *("--optimise", options.optimise),
        *("--output-dir", str(out)),
        # It writes the CSV by layers. --show-cpu-operations is left out: Vela 5.2.0 raises KeyError on some models.
        "--verbose-performance",
    ]
    if options.arena_cache_size:
        command += ["--arena-cache-size", str(options.arena_cache_size)]
    run_tool(command, logs, tool="Vela", what=what)
    stem = Path(_MODEL).stem
    for made, kept in (
        (out / f"{stem}_summary_{options.system_config}.csv", out / _SUMMARY),
        (out / f"{stem}_per-layer.csv", out / _PER_LAYER),
    ):
        if made.is_file():
            made.replace(kept)
    report = read_report(out / _COMPILED, out / _SUMMARY, out / _PER_LAYER, logs / "log.txt")
    if report.npu_operators == 0:
        raise ConversionError(
            f"Vela puts no operator of {what} on the NPU: {shown(report.cpu_operators)}. Use --to tflm or --to c."
        )
    if report.cpu_operators and options.cpu_operators == "fail":
        raise ConversionError(
            f"{len(report.cpu_operators)} operators of {what} stay on the CPU: {shown(report.cpu_operators)}. Change "
            f"them, or allow it with --option {accelerator}.cpu_operators=allow."
        )
    return report


def _digest(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise UsageError(
                f"{path} has more than {_MAX_CONFIG_BYTES} bytes; a configuration of Vela is expected."
            )
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as err:
        raise UsageError(f"configuration {path} cannot be read: {err.strerror}. Check the path.") from err


class EthosU55x32(EthosUBackend):
    """32 MACs a cycle."""

    name = "ethos-u55-32"


class EthosU55x64(EthosUBackend):
    """64 MACs a cycle."""

    name = "ethos-u55-64"


class EthosU55x128(EthosUBackend):
    """128 MACs a cycle."""

    name = "ethos-u55-128"


class EthosU55x256(EthosUBackend):
    """256 MACs a cycle."""

    name = "ethos-u55-256"


class EthosU65x256(EthosUBackend):
    """256 MACs a cycle."""

    name = "ethos-u65-256"


class EthosU65x512(EthosUBackend):
    """512 MACs a cycle."""

    name = "ethos-u65-512"


class EthosU85x128(EthosUBackend):
    """128 MACs a cycle."""

    name = "ethos-u85-128"


class EthosU85x256(EthosUBackend):
    """256 MACs a cycle."""

    name = "ethos-u85-256"


class EthosU85x512(EthosUBackend):
    """512 MACs a cycle."""

    name = "ethos-u85-512"


class EthosU85x1024(EthosUBackend):
    """1024 MACs a cycle."""

    name = "ethos-u85-1024"


class EthosU85x2048(EthosUBackend):
    """2048 MACs a cycle."""

    name = "ethos-u85-2048"
