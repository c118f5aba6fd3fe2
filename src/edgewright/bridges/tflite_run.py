"""Runs of a `.tflite` in LiteRT's own kernels, with every tensor kept: the bridge's source of shapes and truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgewright.backends.vendor import quiet
from edgewright.core.errors import ConversionError, first_line
from edgewright.core.tensors import Array

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

_SEED = 20261121


class Run:
    """One inference; `shapes` has the shape of each tensor of the main graph that LiteRT allocated."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        self.shapes: dict[int, tuple[int, ...]] = {}
        with quiet():
            for detail in interpreter.get_tensor_details():
                self.shapes[int(detail["index"])] = tuple(int(size) for size in detail["shape"])

    def value(self, index: int) -> Array | None:
        """Return a copy of tensor `index`, or None where LiteRT keeps none."""
        try:
            return np.array(self._interpreter.get_tensor(index))
        except ValueError:
            return None


class Reference:
    """LiteRT's reference kernels, or those without delegates where the reference has none for an operator.

    Args:
        is_plain: False takes the kernels that users get (XNNPACK).
        is_fast: those without delegates first.
    """

    def __init__(self, path: Path, *, name: str, is_plain: bool = True, is_fast: bool = False) -> None:
        self._name = name
        self._interpreter = _load(path, name, is_plain=is_plain, is_fast=is_fast)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs for `inputs`, both in the order of the graph; variables start at zero.

        Raises:
            ConversionError: LiteRT does not run the model with these shapes.
        """
        invoke(self._interpreter, inputs, name=self._name)
        return [
            np.array(self._interpreter.get_tensor(detail["index"]))
            for detail in self._interpreter.get_output_details()
        ]

    def tensor(self, index: int) -> Array | None:
        """Return a copy of tensor `index` of the last run, or None where LiteRT keeps none."""
        try:
            return np.array(self._interpreter.get_tensor(index))
        except ValueError:
            return None


def run_once(path: Path, shapes: Sequence[tuple[int, ...]], *, name: str) -> Run:
    """Return the run of the model at `path` on random inputs of `shapes`.

    Raises:
        ConversionError: LiteRT refuses the model or the shapes.
    """
    # Shapes are the same in all kernels, and these are several times faster than the reference.
    interpreter = _load(path, name, is_plain=True, is_fast=True)
    random = np.random.default_rng(_SEED)
    inputs = [
        random_array(random, np.dtype(detail["dtype"]), shape)
        for detail, shape in zip(interpreter.get_input_details(), shapes, strict=True)
    ]
    invoke(interpreter, inputs, name=name)
    return Run(interpreter)


def random_array(
    random: np.random.Generator,
    dtype: np.dtype[np.generic],
    shape: tuple[int, ...],
    *,
    is_positive: bool = False,
) -> Array:
    """Return random values: normal or [0, 1) for floats, the whole range for 8 and 16 bits, 0 and 1 for wide integers.

    Raises:
        ConversionError: the dtype holds no numbers.
    """
    if dtype.kind == "f":
        values = random.random(shape) if is_positive else random.standard_normal(shape)
        return np.asarray(values).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        limits = np.iinfo(dtype.name)
        return random.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)
    if dtype.kind in "iub":
        return np.asarray(random.integers(0, 2, shape)).astype(dtype)
    raise ConversionError(f"an input has dtype {dtype}, which no tensor program takes.")


def invoke(interpreter: Interpreter, inputs: Sequence[Array], *, name: str) -> None:
    """Run the model on `inputs`, resized where their shapes differ; variables start at zero.

    Raises:
        ConversionError: LiteRT does not run it.
    """
    try:
        details = interpreter.get_input_details()
        is_resized = False
        for detail, array in zip(details, inputs, strict=True):
            if tuple(detail["shape"]) != array.shape:
                interpreter.resize_tensor_input(detail["index"], array.shape)
                is_resized = True
        if is_resized:
            interpreter.allocate_tensors()
        interpreter.reset_all_variables()
        for detail, array in zip(details, inputs, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
    except Exception as err:  # the runtime raises ValueError and RuntimeError, and whatever pybind11 makes
        raise ConversionError(f"LiteRT cannot run {name}: {first_line(err)}.") from err


def _load(path: Path, name: str, *, is_plain: bool, is_fast: bool = False) -> Interpreter:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    failure: Exception | None = None
    plain = (OpResolverType.BUILTIN_REF, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    plain = plain[::-1] if is_fast else plain
    for resolver in plain if is_plain else (OpResolverType.AUTO,):
        try:
            with quiet():
                interpreter = Interpreter(
                    model_path=str(path),
                    num_threads=1,
                    experimental_op_resolver_type=resolver,
                    experimental_preserve_all_tensors=is_plain,
                )
                interpreter.allocate_tensors()
        except Exception as err:
            failure = err
        else:
            return interpreter
    assert failure is not None
    raise ConversionError(f"LiteRT cannot load {name}: {first_line(failure)}.") from failure
