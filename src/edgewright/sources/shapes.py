"""Input shapes as the user writes them: `1x3x32x32`, `name=1x3x32x32`, `ids=1x16:int64`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.core.errors import UsageError
from edgewright.core.tensors import DTYPES, MAX_RANK

MAX_ELEMENTS = 1 << 28
_PATTERN = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<dims>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?")


@dataclass(frozen=True, kw_only=True)
class InputShape:
    """One input of a PyTorch factory: `name` is None for the next positional input; the batch is shape[0]."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    name: str | None = None


def parse_input_shapes(texts: Sequence[str]) -> tuple[InputShape, ...]:
    """Return the shapes that `texts` say, one input a text.

    Raises:
        UsageError: a text is not `[name=]NxCxHxW[:dtype]`, or the tensor would be larger than 2**28 elements.
    """
    shapes = tuple(_parse(text) for text in texts)
    named = [shape.name for shape in shapes if shape.name]
    if named and len(named) != len(shapes):
        raise UsageError("some input shapes have a name and some have none. Name all of them, or none.")
    if len(set(named)) != len(named):
        raise UsageError(f"an input is named twice in {list(texts)}. Give each input one shape.")
    return shapes


def _parse(text: str) -> InputShape:
    match = _PATTERN.fullmatch(text.strip().replace("X", "x"))
    if match is None:
        raise UsageError(
            f"input shape {text!r} is not understood; write 1x3x32x32, or name=1x3x32x32, or ids=1x16:int64."
        )
    shape = tuple(int(dim) for dim in match["dims"].split("x"))
    dtype = match["dtype"] or "float32"
    if dtype not in DTYPES or dtype in ("string", "uint16", "uint32", "uint64"):
        raise UsageError(f"input shape {text!r} has dtype {dtype!r}, which a PyTorch input cannot have.")
    elements = 1
    for dim in shape:
        elements *= dim
    if 0 in shape or len(shape) > MAX_RANK or elements > MAX_ELEMENTS:
        raise UsageError(
            f"input shape {text!r} has {elements} elements in {len(shape)} dimensions; "
            f"expected 1..{MAX_ELEMENTS} elements in at most {MAX_RANK} dimensions."
        )
    return InputShape(shape=shape, dtype=dtype, name=match["name"])
