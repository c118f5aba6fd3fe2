"""Tensor signatures, and the check of arrays against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import DataError, UnknownNameError

DTYPES = frozenset(
    "float16 float32 float64 int8 uint8 int16 uint16 int32 uint32 int64 uint64 bool string".split()
)

Array = npt.NDArray[np.generic]
Arrays = Mapping[str, Array]
Layout = Literal["nchw", "nhwc"]
MAX_RANK = 16
MAX_NAME_LENGTH = 4096


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name, shape and dtype of one input or output; None in `shape` is a dynamic dimension."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    layout: Layout | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise DataError(
                f"tensor {self.name!r} has dtype {self.dtype!r}; supported: {', '.join(sorted(DTYPES))}."
            )
        if len(self.shape) > MAX_RANK or len(self.name) > MAX_NAME_LENGTH:
            raise DataError(
                f"tensor {self.name[:64]!r} has rank {len(self.shape)}; at most {MAX_RANK} is supported."
            )

    @property
    def has_dynamic_batch(self) -> bool:
        """True when the first dimension is dynamic."""
        return bool(self.shape) and self.shape[0] is None

    @property
    def is_static(self) -> bool:
        """True when every dimension is known."""
        return None not in self.shape

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        record: dict[str, object] = {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}
        if self.layout:
            record["layout"] = self.layout
        return record

    @staticmethod
    def from_json(record: Mapping[str, object]) -> TensorSpec:
        """Return the spec that `to_json` wrote."""
        shape = record["shape"]
        assert isinstance(shape, list)
        layout = record.get("layout")
        return TensorSpec(
            name=str(record["name"]),
            shape=tuple(None if d is None else int(d) for d in shape),
            dtype=str(record["dtype"]),
            layout=layout if layout in ("nchw", "nhwc") else None,
        )

    def __str__(self) -> str:
        dims = ", ".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"


def check_arrays(arrays: Arrays, specs: Sequence[TensorSpec], *, what: str) -> None:
    """Check that `arrays` holds exactly the tensors of `specs`.

    Args:
        arrays: name -> array with the full shape, batch dimension included.
        specs: the signature.
        what: who gave the arrays, for the message ("input of model.tflite").
    Raises:
        DataError: a name is missing or extra, or a shape or a dtype differs.
    """
    names = [spec.name for spec in specs]
    if set(arrays) != set(names):
        raise DataError(
            f"{what} has tensors {sorted(arrays)}, but {sorted(names)} are expected. Rename them."
        )
    for spec in specs:
        array = arrays[spec.name]
        if str(array.dtype) != spec.dtype:
            raise DataError(
                f"{what}: {spec.name!r} has dtype {array.dtype}, but {spec.dtype} is expected. Cast it first."
            )
        fits = array.ndim == len(spec.shape) and all(
            want is None or want == got for want, got in zip(spec.shape, array.shape, strict=True)
        )
        if not fits:
            raise DataError(
                f"{what}: {spec.name!r} has shape {list(array.shape)}, but the model takes {spec}."
            )


def parse_layout(text: str) -> Layout | None:
    """Return the layout called `text`; empty is None, the source's own.

    Raises:
        UnknownNameError: neither nchw nor nhwc.
    """
    if text == "nchw":
        return "nchw"
    if text == "nhwc":
        return "nhwc"
    if text:
        raise UnknownNameError.of("layout", text, ("nchw", "nhwc"))
    return None


def to_layout(array: Array, have: Layout | None, want: Layout | None) -> Array:
    """Return the rank-4 `array` moved from layout `have` to `want`; any other array unchanged."""
    if array.ndim != 4 or have is None or want is None or have == want:
        return array
    axes = (0, 2, 3, 1) if want == "nhwc" else (0, 3, 1, 2)
    return np.ascontiguousarray(array.transpose(axes))
