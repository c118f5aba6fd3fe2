"""PyTorch Mobile: TorchScript with the bytecode of the lite interpreter, for apps that still have that runtime."""

from __future__ import annotations

from pathlib import Path

from edgewright.backends import vendor
from edgewright.backends.torchscript_session import TorchScriptSession, load_lite, load_script, run_script
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Calibration, Session, Support
from edgewright.core.errors import ConversionError, FormatMismatchError, first_line
from edgewright.core.files import sha256_of_files
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target

FILE_NAME = "model.ptl"
_PACKAGES = ("torch",)
_NOTE = "deprecated upstream: PyTorch Mobile is no longer maintained; ExecuTorch replaces it"
_PACKED = "its quantized layers are packed for the CPU that converts, and their tools are deprecated"
_REASONS = {
    Precision.FP16: "PyTorch Mobile's last releases have no float16 convolutions on CPUs",
    Precision.W8: _PACKED,
    Precision.W8A8: _PACKED,
}


class PytorchMobileBackend:
    """Writes `.ptl` files and runs them in torch's own lite interpreter, in float32."""

    name = "pytorch-mobile"
    environment = ""
    runtime_module = "torch"
    consumes: tuple[str, ...] = ("torchscript",)
    precisions: tuple[Precision, ...] = (Precision.FP32,)

    def probe(self) -> Support:
        """Say whether torch is installed."""
        return vendor.support(_PACKAGES, extra="torch")

    def refuses(self, program: Program, target: Target) -> str | None:
        """Return why this pair cannot be done, or None."""
        if target.precision not in self.precisions:
            why = _REASONS.get(target.precision, "the lite interpreter has no such weights")
            return f"pytorch-mobile makes fp32 alone, not {target.precision}: {why}"
        return vendor.refuses(program, target, self.consumes)

    def quantizer(self, program: Program, target: Target) -> Quantizer | None:
        """Return None: nothing is quantized."""
        return None

    def convert(
        self, program: Program, target: Target, calibration: Calibration | None, workdir: Path
    ) -> Artifact:
        """Write `model.ptl` into `workdir`; a dynamic batch stays dynamic.

        Raises:
            FormatMismatchError: `refuses` gives a reason, or the archive cannot be read.
            ConversionError: the lite interpreter does not take or run it.
        """
        import torch

        reason = self.refuses(program, target)
        if reason is not None:
            raise FormatMismatchError(f"{reason}.")
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / FILE_NAME
        module = load_script(program.path)
        try:
            with vendor.quiet():
                # torch.utils.mobile_optimizer needs a torch that is built with XNNPACK, which the wheels are not.
                frozen = torch.jit.freeze(module)
                frozen._save_for_lite_interpreter(str(path))
        except Exception as err:
            raise ConversionError(
                f"{program.path.name} cannot be written for the lite interpreter: {first_line(err)}. "
                "Use executorch."
            ) from err
        vendor.require_file(path)
        zeros = [
            torch.zeros(vendor.static_shape(spec), dtype=getattr(torch, spec.dtype))
            for spec in program.inputs
        ]
        run_script(load_lite(path), zeros, path.name)
        return Artifact(
            files=(path,),
            target=target,
            inputs=program.inputs,
            outputs=program.outputs,
            sha256=sha256_of_files((path,)),
            source_sha256=program.sha256,
            toolchain=vendor.versions(_PACKAGES),
            notes=(_NOTE,),
        )

    def open(self, artifact: Artifact, target: Target, *, profile: bool = False) -> Session:
        """Load the artifact with the threads of `target`; there is no profiler.

        Raises:
            ConversionError: the lite interpreter refuses the file.
        """
        return TorchScriptSession(artifact, threads=target.threads, is_lite=True)
