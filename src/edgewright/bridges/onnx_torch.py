"""ONNX -> PyTorch: every node becomes plain torch operators in one exported program with static shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.backends import vendor
from edgewright.bridges import onnx_check, onnx_source, onnx_values
from edgewright.bridges.onnx_ops import load_handlers
from edgewright.bridges.onnx_plan import Planner
from edgewright.core.contracts import Support
from edgewright.core.errors import ConversionError, EdgewrightError, FormatMismatchError, first_line
from edgewright.core.program import Program
from edgewright.core.tensors import TensorSpec

if TYPE_CHECKING:
    from edgewright.bridges.onnx_plan import Plan

_PACKAGES = ("torch", "onnx", "onnxruntime")
_STEP = "onnx -> pt2 (edgewright)"


class OnnxToTorch:
    """Writes an ONNX model as a program of torch.export, and compares the two."""

    name = "onnx-to-torch"
    reads: tuple[str, ...] = ("onnx",)
    writes = "pt2"
    environment = ""

    def probe(self) -> Support:
        """Say whether torch, onnx and onnxruntime are here."""
        return vendor.support(_PACKAGES, extra="default")

    def convert(self, program: Program, workdir: Path) -> Program:
        """Return the program as a `.pt2` in `workdir`; a dynamic batch becomes 1.

        float16, bfloat16 and float64 are computed in float32: inputs and outputs keep their types.

        Raises:
            FormatMismatchError: the program is not ONNX.
            ConversionError: operators have no conversion (all are named), a shape depends on values, or the
                program does not agree with ONNX Runtime.
        """
        import torch

        from edgewright.bridges.onnx_module import PlanModule, without_idle_casts
        from edgewright.sources.torch_digest import digest_exported
        from edgewright.sources.torch_export import save_exported

        if program.format != "onnx":
            raise FormatMismatchError(f"{self.name} reads onnx, but {program.path.name} is {program.format}.")
        load_handlers()
        model = onnx_source.read(program.path)
        shapes = [
            vendor.static_shape(spec) for spec in onnx_source.with_empty_dimensions(model, program.inputs)
        ]
        onnx_source.require_handlers(model)
        samples = onnx_check.samples(program.inputs, shapes)
        examples = {
            spec.name: onnx_values.tensor_of(value)
            for spec, value in zip(program.inputs, samples[1], strict=True)
        }
        plan = Planner({entry.domain: entry.version for entry in model.opset_import}).run(
            model.graph, examples
        )
        module = PlanModule(plan, program)
        with vendor.quiet(), torch.no_grad():
            try:
                exported = torch.export.export(module, tuple(examples.values()), strict=False)
            except EdgewrightError:
                raise
            except Exception as err:  # torch.export raises anything
                raise ConversionError(
                    f"torch.export refuses {program.path.name}: {first_line(err)}. It is not converted."
                ) from err
            exported = without_idle_casts(exported)
            is_half = any(onnx_values.is_half(kind) for kind in plan.types.values())
            onnx_check.compare(program, model, exported, samples, is_half=is_half)
        workdir.mkdir(parents=True, exist_ok=True)
        path = save_exported(exported, workdir / f"{program.path.stem}.pt2")
        return replace(
            program,
            path=path,
            format=self.writes,
            sha256=digest_exported(exported),
            inputs=_static(program.inputs, shapes),
            outputs=_static(program.outputs, [plan.shape(name) for name in plan.outputs]),
            precision="fp32" if program.precision == "fp16" else program.precision,
            history=(*program.history, _STEP),
            notes=(*program.notes, *_notes(program, plan)),
        )


def _static(specs: Sequence[TensorSpec], shapes: Sequence[tuple[int, ...]]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, shape=shape) for spec, shape in zip(specs, shapes, strict=True))


def _notes(program: Program, plan: Plan) -> list[str]:
    notes = ["batch made static: 1"] if any(spec.has_dynamic_batch for spec in program.inputs) else []
    kinds = set(plan.types.values())
    if any(onnx_values.is_half(kind) for kind in kinds):
        notes.append("float16 values of the ONNX model are computed in float32")
    if onnx_values.DOUBLE in kinds:
        notes.append("float64 values of the ONNX model are computed in float32")
    return notes
