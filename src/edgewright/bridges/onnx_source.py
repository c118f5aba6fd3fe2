"""An ONNX file made ready for planning: data loaded, functions inlined, element types inferred, operators known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.bridges import onnx_control
from edgewright.bridges.onnx_fold import RANDOM
from edgewright.bridges.onnx_ops import handler_of
from edgewright.bridges.onnx_plan import CONTROL
from edgewright.core.errors import ConversionError, first_line
from edgewright.core.tensors import TensorSpec
from edgewright.sources.onnx import external_files, nodes_of, parse_onnx

if TYPE_CHECKING:
    import onnx

_LISTED = 40
_FOLDED = ("Shape", "Size", "Constant")  # computed by the planner itself


def read(path: Path) -> onnx.ModelProto:
    """Return the model with its data, without functions, and with the types of its values.

    A standard operator without a handler is replaced by its definition where ONNX defines it by other operators.

    Raises:
        FormatMismatchError: no ONNX file.
        IntegrityError: its external data is missing or lies elsewhere.
        ConversionError: its functions cannot be inlined.
    """
    import onnx
    import onnx.inliner

    model = parse_onnx(path)
    if external_files(model, path):
        onnx.load_external_data_for_model(model, str(path.resolve().parent))
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        defined = sorted(_defined_by_others(model))
        if defined:
            model = onnx.inliner.inline_selected_functions(model, defined, inline_schema_functions=True)
    except Exception as err:  # the inliner is C++ and raises RuntimeError and ValueError
        raise ConversionError(
            f"{path.name}: its functions cannot be inlined: {first_line(err)}. Export it again without functions."
        ) from err
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception:  # types only tell half precision from float: the model is still understood without them
        return model


def with_empty_dimensions(model: onnx.ModelProto, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Return the specs with the dimensions of size 0 that the file states: a signature has them as dynamic."""
    stated = {
        value.name: [
            0 if dim.HasField("dim_value") and dim.dim_value == 0 else None
            for dim in value.type.tensor_type.shape.dim
        ]
        for value in model.graph.input
    }
    return [
        replace(
            spec,
            shape=tuple(
                zero if size is None and zero == 0 else size
                for size, zero in zip(spec.shape, stated[spec.name], strict=True)
            ),
        )
        for spec in specs
    ]


def _defined_by_others(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    import onnx

    opsets = {entry.domain: entry.version for entry in model.opset_import}
    for domain, kind in {(node.domain, node.op_type) for node in nodes_of(model.graph)}:
        if not _is_known(domain, kind) and kind not in RANDOM:
            try:
                schema = onnx.defs.get_schema(kind, opsets.get(domain, 1), domain)
            except onnx.defs.SchemaError:
                continue
            # Attributes of onnx's C++ class that its type stub does not list.
            if getattr(schema, "has_function", False) or getattr(
                schema, "has_context_dependent_function", False
            ):
                yield domain, kind


def _is_known(domain: str, kind: str) -> bool:
    own = domain in ("", "ai.onnx") and (kind in CONTROL or kind in onnx_control.ALIASES or kind in _FOLDED)
    return own or handler_of(domain, kind) is not None


def require_handlers(model: onnx.ModelProto) -> None:
    """Check that every operator of the model is known.

    Raises:
        ConversionError: with the names of all that are not.
    """
    unknown = {
        f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for node in nodes_of(model.graph)
        if not _is_known(node.domain, node.op_type)
    }
    if unknown:
        names = ", ".join(sorted(unknown)[:_LISTED])
        raise ConversionError(
            f"the ONNX operator{'s' if len(unknown) > 1 else ''} {names} cannot be converted to PyTorch. "
            "Replace them in the model, or choose a runtime that reads ONNX itself."
        )
