"""What litert-torch has no lowering for, although LiteRT has it: unsigned 16 and 32 bits, bits read as another type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unsigned_types() -> Iterator[None]:
    """Let litert-torch write uint16, uint32 and uint64 as the MLIR types of the same name, and tensor.view(dtype)."""
    import torch
    from litert_converter.mlir import ir  # type: ignore[import-untyped]
    from litert_converter.mlir.dialects import stablehlo  # type: ignore[import-untyped]
    from litert_torch.backend import export_utils
    from litert_torch.backend.lowerings import registry, utils

    widths = {torch.uint16: 16, torch.uint32: 32, torch.uint64: 64}
    plain = utils.torch_dtype_to_ir_element_type

    def element_type(dtype: torch.dtype) -> object:
        return ir.IntegerType.get_unsigned(widths[dtype]) if dtype in widths else plain(dtype)

    def bits(context: object, value: ir.Value, dtype: torch.dtype) -> ir.Value:
        return stablehlo.bitcast_convert(
            ir.RankedTensorType.get(value.type.shape, element_type(dtype)), value
        )

    # Nothing else lowers it, so that it may stay.
    registry.global_registry.register(torch.ops.aten.view.dtype, bits)
    utils.torch_dtype_to_ir_element_type = export_utils.torch_dtype_to_ir_element_type = element_type
    try:
        yield
    finally:
        utils.torch_dtype_to_ir_element_type = export_utils.torch_dtype_to_ir_element_type = plain
