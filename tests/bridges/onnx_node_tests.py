"""ONNX's own operator tests, from the installed onnx wheel, run through the bridge's plan without exporting it."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from edgewright.bridges import onnx_source, onnx_values
from edgewright.bridges.onnx_module import PlanModule
from edgewright.bridges.onnx_ops import load_handlers
from edgewright.bridges.onnx_plan import Planner
from edgewright.core.errors import EdgewrightError
from edgewright.core.program import Program
from edgewright.sources.onnx import read_onnx

MAX_OPSET = 26


@cache
def _tests() -> dict[str, Any]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, while the suite computes its expected values
        return {test.name: test for test in load_model_tests(kind="node")}


def names(pattern: str) -> list[str]:
    """Return the tests up to opset 26 whose name matches; those of operators written out by others are left out."""
    return [
        name
        for name, test in sorted(_tests().items())
        if re.match(f"test_({pattern})", name)
        and "_expanded" not in name
        and test.model is not None
        and max(entry.version for entry in test.model.opset_import) <= MAX_OPSET
    ]


def check(name: str, *, operands: Sequence[str] = ()) -> None:
    """Compare the bridge's outputs with the expected ones, by the suite's own tolerances.

    Args:
        operands: inputs that deployed models hold as constants, such as shapes; so they are here.
    """
    load_handlers()
    test = _tests()[name]
    for inputs, wanted in test.data_sets:
        arrays = [np.asarray(value) for value in inputs]
        results = _run(test.model, arrays, operands)
        assert len(results) == len(wanted)
        for result, expected in zip(results, wanted, strict=True):
            expected = np.asarray(expected)
            assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
            np.testing.assert_allclose(
                result.astype(np.float64), expected.astype(np.float64), test.rtol, test.atol
            )


def refusal(name: str, *, operands: Sequence[str] = ()) -> str:
    """Return with which message the bridge refuses the model of a test."""
    load_handlers()
    test = _tests()[name]
    try:
        _run(test.model, [np.asarray(value) for value in test.data_sets[0][0]], operands)
    except EdgewrightError as error:
        return str(error)
    raise AssertionError(f"{name} is not refused")


def example(
    name: str, folder: Path, *, operands: Sequence[str] = ()
) -> tuple[Program, dict[str, np.ndarray], list[np.ndarray], float, float]:
    """Return a test as a program, its inputs, its expected outputs, and the relative and absolute tolerance."""
    test = _tests()[name]
    inputs, wanted = test.data_sets[0]
    model, feeds = _held(test.model, [np.asarray(value) for value in inputs], operands)
    onnx.save(model, folder / "model.onnx")
    program = read_onnx(folder / "model.onnx", spec="model.onnx")
    return program, feeds, [np.asarray(value) for value in wanted], test.rtol, test.atol


def _run(model: onnx.ModelProto, arrays: Sequence[np.ndarray], operands: Sequence[str]) -> list[np.ndarray]:
    held, feeds = _held(model, arrays, operands)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(held, path)
        program = read_onnx(path, spec="model.onnx")
        source = onnx_source.read(path)
    onnx_source.require_handlers(source)
    examples = {name: onnx_values.tensor_of(onnx_values.carried(array)) for name, array in feeds.items()}
    plan = Planner({entry.domain: entry.version for entry in source.opset_import}).run(source.graph, examples)
    with torch.no_grad():
        return [result.numpy() for result in PlanModule(plan, program)(*examples.values())]


def _held(
    model: onnx.ModelProto, arrays: Sequence[np.ndarray], operands: Sequence[str]
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return the model with its operands as initializers, and the values of the inputs that are left."""
    held = onnx.ModelProto()
    held.CopyFrom(model)
    feeds: dict[str, np.ndarray] = {}
    del held.graph.input[:]
    for value, array in zip(model.graph.input, arrays, strict=True):
        if value.name in operands:
            held.graph.initializer.append(numpy_helper.from_array(array, value.name))
        else:
            held.graph.input.append(value)
            feeds[value.name] = array
    return held, feeds
