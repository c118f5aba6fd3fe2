"""The registry of ONNX operators: a handler computes a node with plain torch operators.

A handler runs while torch.export traces the model, so that only the torch operators it calls are left in the program.
Shapes are static: `tensor.shape` holds Python ints, and what a handler needs to know (axes, sizes, pads) comes from
attributes or from `OnnxNode.constant`. The modules `onnx_ops_*` import torch at their top; they are loaded by
`load_handlers`, inside a worker, and by nothing else.
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from edgewright.core.errors import ConversionError
from edgewright.core.tensors import Array

if TYPE_CHECKING:
    import onnx
    import torch

    Tensors = torch.Tensor | tuple[torch.Tensor, ...]
    Attribute = (
        int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Array | onnx.GraphProto
    )

Handler = Callable[..., "Tensors"]  # (node: OnnxNode, *inputs: torch.Tensor | None) -> Tensors

MAX_ELEMENTS = 1 << 28  # of one computed tensor: a hostile file must not ask for terabytes
_STANDARD = ("", "ai.onnx")
_HANDLERS: dict[tuple[str, str], Handler] = {}


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxNode:
    """One node: what a handler may know besides the values of its inputs.

    Attributes:
        domain: "" is the standard one.
        attributes: Python values and numpy arrays; only those that the file sets.
        opset: version of `domain` in this model.
        n_outputs: how many outputs the node names; trailing ones that nobody names are not counted.
        constants: for each input its value where it is known at conversion, else None.
        input_types, output_types: ONNX element types, 0 where unknown. Handlers get float16 and bfloat16 as float32,
            and 4-bit integers in 8 bits: these tell what the values are in ONNX.
    """

    op_type: str
    domain: str
    name: str
    attributes: Mapping[str, Attribute]
    opset: int
    n_outputs: int
    constants: tuple[Array | None, ...]
    input_types: tuple[int, ...] = ()
    output_types: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """The operator as messages name it: type, and the node's own name."""
        kind = self.op_type if self.domain in _STANDARD else f"{self.domain}.{self.op_type}"
        return f"{kind} {self.name!r}" if self.name else kind

    def is_constant(self, index: int) -> bool:
        """Return whether input `index` is given and its value is known at conversion."""
        return index < len(self.constants) and self.constants[index] is not None

    def constant(self, index: int) -> Array:
        """Return the value of input `index`.

        Raises:
            ConversionError: it is computed from the model's inputs, or not given.
        """
        value = self.constants[index] if index < len(self.constants) else None
        if value is None:
            raise self.refusal(f"input {index} is computed by the model, but must be a constant")
        return value

    def ints_at(self, index: int) -> list[int]:
        """Return the integers of the constant input `index`, flat."""
        return [int(value) for value in self.constant(index).reshape(-1)]

    def float_at(self, index: int, default: float) -> float:
        """Return the number in the constant input `index`; `default` where the input is left out."""
        if not self.is_constant(index):
            return default
        return float(self.constant(index).reshape(-1)[0])

    def has(self, name: str) -> bool:
        """Return whether the file sets the attribute."""
        return name in self.attributes

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise self.refusal(f"attribute {name} is {value!r}, but must be an integer")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a float attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int | float):
            raise self.refusal(f"attribute {name} is {value!r}, but must be a number")
        return value

    def text(self, name: str, default: str) -> str:
        """Return a string attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, str):
            raise self.refusal(f"attribute {name} is {value!r}, but must be a text")
        return value

    def integers(self, name: str, default: Sequence[int] = ()) -> list[int]:
        """Return an attribute of integers."""
        value = self.attributes.get(name, tuple(default))
        if not isinstance(value, tuple):
            raise self.refusal(f"attribute {name} is {value!r}, but must be integers")
        return [int(item) for item in value]

    def numbers(self, name: str, default: Sequence[float] = ()) -> list[float]:
        """Return an attribute of floats."""
        value = self.attributes.get(name, tuple(default))
        if not isinstance(value, tuple):
            raise self.refusal(f"attribute {name} is {value!r}, but must be numbers")
        return [float(item) for item in value]

    def refusal(self, why: str) -> ConversionError:
        """Return the error to raise: this node cannot be written, and why (no full stop)."""
        return ConversionError(f"operator {self.label}: {why}.")

    def checked_size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return `shape`; to be called before a tensor is made whose shape comes out of the file.

        Raises:
            ConversionError: a negative size, or more than MAX_ELEMENTS elements.
        """
        if any(size < 0 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise self.refusal(
                f"a tensor of shape {list(shape)} is asked for; at most {MAX_ELEMENTS} elements are made"
            )
        return tuple(shape)

    def axis(self, value: int, rank: int) -> int:
        """Return an axis counted from the front.

        Raises:
            ConversionError: it is outside of the rank.
        """
        if not -rank <= value < max(rank, 1):
            raise self.refusal(f"axis {value} is outside of rank {rank}")
        return value + rank if value < 0 else value


def handles(*operators: str, domain: str = "") -> Callable[[Handler], Handler]:
    """Register the decorated function for `operators` of `domain`; each may have one handler only."""

    def register(handler: Handler) -> Handler:
        for operator in operators:
            key = (domain, operator)
            assert key not in _HANDLERS, f"{operator} has two handlers"
            _HANDLERS[key] = handler
        return handler

    return register


def handler_of(domain: str, operator: str) -> Handler | None:
    """Return the handler of an operator, or None; `load_handlers` must have been called."""
    return _HANDLERS.get(("" if domain in _STANDARD else domain, operator))


def load_handlers() -> None:
    """Import every module of handlers: those beside this one whose name begins with `onnx_ops_`."""
    package = __name__.rpartition(".")[0]
    folder = import_module(package).__path__
    for module in pkgutil.iter_modules(folder):
        if module.name.startswith("onnx_ops_"):
            import_module(f"{package}.{module.name}")


def torch_dtype(dtype: np.dtype[np.generic]) -> torch.dtype:
    """Return torch's name of a numpy dtype.

    Raises:
        ConversionError: torch has none, e.g. strings.
    """
    import torch

    found = getattr(torch, dtype.name, None)
    if not isinstance(found, torch.dtype):
        raise ConversionError(f"a tensor has dtype {dtype.name}, which torch does not compute with.")
    return found
