"""ExecuTorch: PyTorch's runtime for phones and boards, with XNNPACK on CPUs, Core ML and Vulkan where those are."""

from __future__ import annotations

import hashlib
import re
import uuid
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path

from edgewright.backends import executorch_lower, vendor
from edgewright.backends.executorch_session import ExecutorchSession
from edgewright.core.artifact import Artifact, Proof
from edgewright.core.contracts import Calibration, Session, Support
from edgewright.core.errors import ConversionError, FormatMismatchError
from edgewright.core.files import sha256_of_files, write_aside
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Precision, Quantizer, Target
from edgewright.core.tensors import TensorSpec

FILE_NAME = "model.pte"
_UUID = re.compile(rb"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_ITEM = re.compile(rb'"' + _UUID.pattern + rb'": \{[^{}]{0,4096}\}')
_ITEMS = re.compile(rb'"itemInfoEntries": \{(?:\s*,?\s*"[^"{}]{36}": \{[^{}]{0,4096}\})+')
_BATCH_NOTE = "batch made static: 1"


class _Executorch(ABC):
    """What the delegates share: a static program is lowered to one file."""

    name: str
    environment = ""
    runtime_module = "executorch.runtime"
    consumes: tuple[str, ...] = ("pt2",)
    precisions: tuple[Precision, ...]
    packages: tuple[str, ...] = ("executorch", "torch", "torchao")
    extra = "executorch"
    delegate: str

    def probe(self) -> Support:
        """Say whether ExecuTorch and what the delegate needs are installed."""
        return vendor.support(self.packages, extra=self.extra)

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if target.precision not in self.precisions:
            known = ", ".join(self.precisions)
            return f"{self.name} makes {known}, not {target.precision}"
        for spec in (*program.inputs, *program.outputs):
            if spec.dtype in ("string", "uint16", "uint32", "uint64"):
                return f"{self.name} takes no tensors of {spec.dtype}, but there is {spec}"
        return vendor.refuses(program, target, self.consumes)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return who quantizes: PT2E for w8a8, unless the target says otherwise."""
        return vendor.quantizer(program, target)

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model.pte` into `workdir`; a dynamic batch becomes 1.

        Raises:
            FormatMismatchError: `refuses` gives a reason.
            ConversionError: ExecuTorch refuses the program, or lacks a kernel, all of them by name.
            DataError: the calibration does not fit the inputs.
        """
        reason = self.refuses(program, target)
        if reason is not None:
            raise FormatMismatchError(f"{reason}.")
        workdir.mkdir(parents=True, exist_ok=True)
        with vendor.quiet():  # importing ExecuTorch warns, too
            content, notes = self._lowered(program, target, calibration)
        path = workdir / FILE_NAME
        with write_aside(path) as aside:
            aside.write_bytes(content)
        if any(not spec.is_static for spec in program.inputs):
            notes = (_BATCH_NOTE, *notes)
        return Artifact(
            files=(path,),
            target=target,
            inputs=_static(program.inputs),
            outputs=_static(program.outputs),
            sha256=sha256_of_files((path,)),
            source_sha256=program.sha256,
            toolchain=vendor.versions(self.packages),
            notes=notes,
        )

    @abstractmethod
    def _lowered(
        self, program: Program, target: Target, calibration: Calibration | None
    ) -> tuple[bytes, tuple[str, ...]]:
        """Return the file's bytes, and notes."""


class ExecutorchBackend(_Executorch):
    """Lowers to XNNPACK, and runs with the runtime of the Python package."""

    name = "executorch"
    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.FP16, Precision.W8, *INTEGER_PRECISIONS)
    delegate = "XNNPACK"

    def _lowered(
        self, program: Program, target: Target, calibration: Calibration | None
    ) -> tuple[bytes, tuple[str, ...]]:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        notes: tuple[str, ...] = ()
        is_float = program.precision == Precision.FP32
        if target.precision is Precision.W8 and is_float:
            exported, notes = executorch_lower.quantize_weights(program)
        elif target.precision is Precision.W8A8 and is_float:
            exported = executorch_lower.quantize_native(
                program, vendor.calibration_samples(program, calibration)
            )
        else:
            is_half = target.precision is Precision.FP16 and is_float
            exported = executorch_lower.static_program(program, is_half=is_half)
        content, delegation = executorch_lower.lower(exported, XnnpackPartitioner(), program)
        if target.precision is Precision.W4A8:
            notes = (*notes, vendor.LOW_BITS_NOTE)
        if target.precision in (Precision.W8, *INTEGER_PRECISIONS) and not delegation.int8:
            raise ConversionError(
                f"{program.path.name} in {target.precision} leaves XNNPACK no layer with int8 weights, so that it "
                "would be slower and no smaller than in fp32. Use fp32 or fp16."
            )
        return content, (*delegation.notes(self.delegate), *notes)

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        """Load the artifact with the threads of `target`.

        Raises:
            ConversionError: the runtime refuses the file.
            IntegrityError: the file has another signature than the artifact.
        """
        return ExecutorchSession(artifact, threads=target.threads, profile=profile)


class _ElsewhereBackend(_Executorch):
    """A delegate of devices that are not this machine: the file is complete, and nothing here runs it."""

    precisions: tuple[Precision, ...] = (Precision.FP32, Precision.FP16)
    device: str

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model.pte` into `workdir`, see `ExecutorchBackend`; a note says where it runs."""
        made = super().convert(program, target, calibration, workdir)
        note = f"it needs {self.device}: nothing on this machine runs it, so its numbers are not compared"
        return replace(made, proof=Proof.CONVERTED, notes=(note, *made.notes))

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        """Refuse: see the class.

        Raises:
            ConversionError: always.
        """
        raise ConversionError(
            f"{artifact.path.name} needs {self.device}; it cannot be run on this machine. Run it on the device."
        )


class ExecutorchCoremlBackend(_ElsewhereBackend):
    """Lowers to Core ML, which runs on Apple's CPUs, GPUs and neural engines."""

    name = "executorch-coreml"
    packages = ("executorch", "torch", "torchao", "coremltools")
    extra = "executorch,coreml"
    delegate = "Core ML"
    device = "an Apple device (iOS 15, macOS 12 or newer) with ExecuTorch's Core ML delegate"

    def _lowered(
        self, program: Program, target: Target, calibration: Calibration | None
    ) -> tuple[bytes, tuple[str, ...]]:
        import coremltools as ct
        from executorch.backends.apple.coreml.compiler import CoreMLBackend
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner

        is_half = target.precision is Precision.FP16
        specs = CoreMLBackend.generate_compile_specs(
            compute_precision=ct.precision.FLOAT16 if is_half else ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS15,
        )
        exported = executorch_lower.static_program(program)
        executorch_lower.spell_out_strides(exported)
        content, delegation = executorch_lower.lower(
            exported, CoreMLPartitioner(compile_specs=specs), program
        )
        return _with_own_identifiers(content), delegation.notes(self.delegate)


class ExecutorchVulkanBackend(_ElsewhereBackend):
    """Lowers to Vulkan, which runs on the GPUs of Android devices."""

    name = "executorch-vulkan"
    delegate = "Vulkan"
    device = "a device with Vulkan 1.1 (Android 10 or newer) with ExecuTorch's Vulkan delegate"

    def _lowered(
        self, program: Program, target: Target, calibration: Calibration | None
    ) -> tuple[bytes, tuple[str, ...]]:
        from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

        options = {"force_fp16": True} if target.precision is Precision.FP16 else {}
        exported = executorch_lower.static_program(program)
        content, delegation = executorch_lower.lower(exported, VulkanPartitioner(options), program)
        return content, delegation.notes(self.delegate)


def _with_own_identifiers(content: bytes) -> bytes:
    """Return the program with identifiers made of its content, where coremltools and ExecuTorch draw them at random.

    A device keeps compiled models by these identifiers, so two models must not share one.
    """
    content = _ITEMS.sub(_sorted_items, content)
    digest = hashlib.sha256(_UUID.sub(b"", content)).hexdigest()
    drawn = dict.fromkeys(_UUID.findall(content))
    for number, old in enumerate(drawn):
        new = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{digest}/{number}")).encode()
        content = content.replace(old, new.upper() if old.isupper() else new)
    return content


def _sorted_items(match: re.Match[bytes]) -> bytes:
    """Return the items of a package's manifest, which are sorted by their random identifiers, sorted by their text."""
    items = [found.group() for found in _ITEM.finditer(match.group())]
    gaps = _ITEM.split(match.group())
    items.sort(key=lambda item: _UUID.sub(b"", item))
    return b"".join(part for pair in zip(gaps, [*items, b""], strict=True) for part in pair)


def _static(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, shape=vendor.static_shape(spec)) for spec in specs)
