"""What the emitter knows of a model: tensors with their quantization and constants, operators with their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt

from edgewright.core.tensors import Array

ITEM_BYTES: Mapping[str, int] = {
    "int8": 1, "uint8": 1, "bool": 1, "int16": 2, "int32": 4, "float32": 4, "int64": 8
}  # fmt: skip
C_TYPES: Mapping[str, str] = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "bool": "uint8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "float32": "float",
}
LIMITS: Mapping[str, tuple[int, int]] = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "int32": (-(2**31), 2**31 - 1),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """One tensor; real = scale * (q - zero_point).

    Attributes:
        scales: float32 [n]: n = 0 without quantization, 1 for the whole tensor, else the size of `axis`.
        zero_points: int64 [n].
        value: of a constant, with the tensor's shape; else None.
        is_variable: it keeps its value from one run to the next.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.int64]
    axis: int
    value: Array | None
    is_variable: bool

    @property
    def count(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return self.count * ITEM_BYTES[self.dtype]

    @property
    def c_type(self) -> str:
        """The type of one value in C."""
        return C_TYPES[self.dtype]

    @property
    def is_quantized(self) -> bool:
        """True when it has at least one scale."""
        return len(self.scales) > 0

    @property
    def scale(self) -> float:
        """The float32 scale of the whole tensor, exact as a double."""
        return float(self.scales[0])

    @property
    def zero_point(self) -> int:
        """The zero point of the whole tensor."""
        return int(self.zero_points[0])


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator: `inputs` and `outputs` are tensor indices, -1 an optional input that is left out."""

    position: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, float] = field(default_factory=dict)
    intermediates: tuple[int, ...] = ()

    def integer(self, name: str) -> int:
        """Return the option `name`, 0 where the file leaves it out."""
        return int(self.options.get(name, 0))

    def real(self, name: str) -> float:
        """Return the option `name` as a float, 0.0 where the file leaves it out."""
        return float(self.options.get(name, 0.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A model: operators in the order of execution, every shape known.

    Attributes:
        input_names, output_names: as the file's signature or its tensors spell them.
        labels: of the classes that an output tells apart; empty where they are not known.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    sha256: str
    labels: tuple[str, ...] = ()

    def tensor(self, index: int) -> Tensor:
        """Return the tensor at `index`."""
        return self.tensors[index]

    @property
    def weight_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(tensor.size_bytes for tensor in self.tensors if tensor.value is not None)
