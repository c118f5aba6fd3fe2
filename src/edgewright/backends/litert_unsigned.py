"""Unsigned 16 and 32 bit tensors in litert-torch, whose table of types stops at 8 bits; LiteRT itself has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unsigned_types() -> Iterator[None]:
    """Let litert-torch write torch's uint16, uint32 and uint64 as the MLIR types of the same name."""
    import torch
    from litert_converter.mlir import ir  # type: ignore[import-untyped]
    from litert_torch.backend import export_utils
    from litert_torch.backend.lowerings import utils

    widths = {torch.uint16: 16, torch.uint32: 32, torch.uint64: 64}
    plain = utils.torch_dtype_to_ir_element_type

    def element_type(dtype: torch.dtype) -> object:
        return ir.IntegerType.get_unsigned(widths[dtype]) if dtype in widths else plain(dtype)

    utils.torch_dtype_to_ir_element_type = export_utils.torch_dtype_to_ir_element_type = element_type
    try:
        yield
    finally:
        utils.torch_dtype_to_ir_element_type = export_utils.torch_dtype_to_ir_element_type = plain
