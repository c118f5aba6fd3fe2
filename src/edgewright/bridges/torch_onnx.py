"""PyTorch -> ONNX: torch's own exporter, as the ONNX Runtime backend uses it, and a comparison of the two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgewright.backends import onnx_graph, onnx_qdq, vendor
from edgewright.backends.onnxruntime import export
from edgewright.backends.reference import ReferenceBackend
from edgewright.bridges import onnx_check
from edgewright.core.contracts import Support
from edgewright.core.errors import ConversionError, FormatMismatchError
from edgewright.core.files import sha256_of
from edgewright.core.program import Program
from edgewright.core.target import INTEGER_PRECISIONS, Target

_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")
# By how much the export may differ, as a share of the largest value: float32 sums in another order, for integers a few
# activations that round to the next step and are carried on.
_LARGEST_SHARE = {"fp32": 1e-4, "fp16": 2e-2, "w8a8": 5e-2, "w4a8": 5e-2}
_STEP = "pt2 -> onnx (torch.onnx.export)"


class TorchToOnnx:
    """Writes a program of torch.export as ONNX; dynamic dimensions stay dynamic."""

    name = "torch-to-onnx"
    reads: tuple[str, ...] = ("pt2",)
    writes = "onnx"
    environment = ""

    def probe(self) -> Support:
        """Say whether torch, onnx, onnxscript and onnxruntime are here."""
        return vendor.support(_PACKAGES, extra="default")

    def convert(self, program: Program, workdir: Path) -> Program:
        """Return the program as an `.onnx` in `workdir`; a program that PT2E quantized becomes Q/DQ.

        Raises:
            FormatMismatchError: the program is not a `.pt2`.
            ConversionError: operators have no ONNX translation (all are named), the names of inputs and outputs
                cannot be kept, or ONNX Runtime gives other numbers than torch.
        """
        if program.format != "pt2":
            raise FormatMismatchError(f"{self.name} reads pt2, but {program.path.name} is {program.format}.")
        model = export(program)
        if program.precision in INTEGER_PRECISIONS:
            onnx_qdq.lower_pt2e(model)
        inputs, outputs = onnx_graph.signature(model)
        have = [spec.name for spec in (*inputs, *outputs)]
        want = [spec.name for spec in (*program.inputs, *program.outputs)]
        if have != want:
            raise ConversionError(
                f"{program.path.name} has the inputs and outputs {', '.join(want)}, but ONNX can only call them "
                f"{', '.join(have)}: an input that is unused, or a tensor that is both. Change the model."
            )
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / f"{program.path.stem}.onnx"
        onnx_graph.save(model, path)
        made = replace(
            program,
            path=path,
            format=self.writes,
            sha256=sha256_of(path),
            history=(*program.history, _STEP),
        )
        _compare(program, made)
        return made


def _compare(program: Program, made: Program) -> None:
    """Check that `made` gives in unoptimised ONNX Runtime what `program` gives in torch, on random inputs.

    Raises:
        ConversionError: it does not.
    """
    shapes = [vendor.static_shape(spec) for spec in program.inputs]
    plain = Target(runtime="reference")
    backend = ReferenceBackend()
    sessions = [
        backend.open(backend.convert(one, plain, None, made.path.parent), plain) for one in (program, made)
    ]
    share = _LARGEST_SHARE.get(program.precision, _LARGEST_SHARE["fp32"])
    for row in onnx_check.samples(program.inputs, shapes):
        inputs = {spec.name: array for spec, array in zip(program.inputs, row, strict=True)}
        expected, got = (session.run(inputs) for session in sessions)
        for spec in program.outputs:
            want, have = (np.asarray(results[spec.name], dtype=np.float64) for results in (expected, got))
            if have.shape != want.shape:
                raise ConversionError(
                    f"output {spec.name!r} of the ONNX export has shape {list(have.shape)}, torch gives "
                    f"{list(want.shape)}."
                )
            finite = np.isfinite(want)
            error = np.abs(have - want)[finite].max(initial=0.0)
            limit = share * np.abs(want[finite]).max(initial=0.0)
            if not np.array_equal(finite, np.isfinite(have)) or error > limit:
                raise ConversionError(
                    f"output {spec.name!r} of the ONNX export differs from torch by {error:.3g} on random inputs; "
                    f"at most {limit:.3g} is expected. It is not converted."
                )
    for session in sessions:
        session.close()
