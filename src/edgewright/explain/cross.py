"""What our bridge from ONNX writes, without writing it: the traced program alone, neither saved nor compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgewright.backends.vendor import quiet, static_shape
from edgewright.bridges import onnx_check, onnx_source, onnx_values
from edgewright.bridges.onnx_ops import load_handlers
from edgewright.bridges.onnx_plan import Planner
from edgewright.core.errors import ConversionError, EdgewrightError, first_line
from edgewright.core.program import Program

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def traced_onnx(program: Program) -> ExportedProgram:
    """Return the torch program that `bridges.onnx_torch` makes of an ONNX file.

    The bridge itself also runs both programs and compares them, which takes longer than all the rest.

    Raises:
        ConversionError: operators have no conversion (all are named), or a shape depends on values.
    """
    import torch

    from edgewright.bridges.onnx_module import PlanModule, without_idle_casts

    load_handlers()
    model = onnx_source.read(program.path)
    shapes = [static_shape(spec) for spec in onnx_source.with_empty_dimensions(model, program.inputs)]
    onnx_source.require_handlers(model)
    values = onnx_check.samples(program.inputs, shapes)[1]
    examples = {
        spec.name: onnx_values.tensor_of(value) for spec, value in zip(program.inputs, values, strict=True)
    }
    plan = Planner({entry.domain: entry.version for entry in model.opset_import}).run(model.graph, examples)
    module = PlanModule(plan, program)
    with quiet(), torch.no_grad():
        try:
            return without_idle_casts(torch.export.export(module, tuple(examples.values()), strict=False))
        except EdgewrightError:
            raise
        except Exception as err:  # torch.export raises anything
            raise ConversionError(f"torch.export refuses {program.path.name}: {first_line(err)}.") from err
