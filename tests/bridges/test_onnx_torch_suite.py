"""ONNX's own operator tests through the planner: right, or refused by a message; never wrong."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from edgewright.bridges import onnx_source, onnx_values
from edgewright.bridges.onnx_module import PlanModule
from edgewright.bridges.onnx_ops import load_handlers
from edgewright.bridges.onnx_plan import Planner
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError, IntegrityError
from edgewright.sources.onnx import read_onnx

MAX_OPSET = 26
REFUSALS = (ConversionError, DataError, FormatMismatchError, IntegrityError)
# Operators of this half of the bridge; the layers of neural networks have tests of their own.
FAMILIES = (
    "abs|acos|add|and|argmax|argmin|asin|atan|bitshift|bitwise|castlike_DOUBLE|ceil|celu|clip|compress|concat|constant|"
    "cos|cumsum|cumprod|det|div|einsum|elu|equal|erf|exp|expand|eye|flatten|floor|gather|gelu|gemm|greater|hardsigmoid|"
    "hardswish|identity|if|isinf|isnan|leakyrelu|less|log|loop|matmul|max|mean|min|mish|mod|mul|neg|not|onehot|or|pad|"
    "pow|prelu|range|reciprocal|reduce|relu|reshape|reversesequence|round|scan|scatter|selu|shape|shrink|sigmoid|sign|"
    "sin|size|slice|softplus|softsign|split|sqrt|squeeze|sub|sum|swish|tan|tanh|tensorscatter|thresholdedrelu|tile|top|"
    "transpose|tril|triu|unsqueeze|where|xor"
)


class Case(NamedTuple):
    name: str
    model: onnx.ModelProto
    inputs: Sequence[np.ndarray]
    outputs: Sequence[np.ndarray]
    rtol: float
    atol: float


@cache
def cases() -> list[Case]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_model_tests(kind="node")
    chosen = []
    for test in found:
        model = test.model
        if model is None or not re.match(rf"test_({FAMILIES})(_|\d|$)", test.name):
            continue
        versions = [entry.version for entry in model.opset_import if entry.domain == ""]
        if max(versions, default=0) <= MAX_OPSET:
            inputs, outputs = test.data_sets[0]
            chosen.append(Case(test.name, model, inputs, outputs, test.rtol, test.atol))
    return chosen


def run(model: onnx.ModelProto, inputs: Sequence[np.ndarray], folder: Path) -> list[np.ndarray]:
    path = folder / "model.onnx"
    onnx.save(model, path)
    program = read_onnx(path, spec="model.onnx")
    ready = onnx_source.read(path)
    onnx_source.require_handlers(ready)
    held = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input]
    fed = {n: np.asarray(v) for n, v in zip(names, inputs, strict=False) if n not in held}
    tensors = {n: onnx_values.tensor_of(v) for n, v in fed.items()}
    opsets = {entry.domain: entry.version for entry in ready.opset_import}
    module = PlanModule(Planner(opsets).run(ready.graph, tensors), program)
    with torch.no_grad():
        return [value.numpy() for value in module(*tensors.values())]


def with_operands(case: Case) -> onnx.ModelProto | None:
    """Return the model with shapes, axes and limits as constants, as exporters write them."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(case.model)
    for index, (value, given) in enumerate(zip(case.model.graph.input, case.inputs, strict=True)):
        array = np.asarray(given)
        if array.dtype.kind not in "biuf":
            continue
        is_operand = array.ndim == 0 or (array.ndim == 1 and (index > 0 or len(case.inputs) == 1))
        if is_operand and (array.ndim == 0 or array.dtype.kind in "iub"):
            fixed.graph.initializer.append(numpy_helper.from_array(array, value.name))
    return fixed if fixed.graph.initializer else None


def outcome(case: Case, folder: Path) -> str:
    """Return "right", the refusal, or what is wrong."""
    try:
        got = run(case.model, case.inputs, folder)
    except REFUSALS as err:
        fixed = with_operands(case)
        if fixed is None:
            return f"refused: {err}"
        try:
            got = run(fixed, case.inputs, folder)
        except REFUSALS as second:
            return f"refused: {second}"
    for have, want in zip(got, map(np.asarray, case.outputs), strict=True):
        if have.shape != want.shape or have.dtype != want.dtype:
            return f"WRONG: {have.dtype}{have.shape} instead of {want.dtype}{want.shape}"
        if not np.allclose(have.astype(float), want.astype(float), case.rtol, case.atol, equal_nan=True):
            return f"WRONG: differs by {np.nanmax(np.abs(have.astype(float) - want.astype(float)))}"
    return "right"


def test_the_suite_is_right_or_refused(tmp_path: Path) -> None:
    load_handlers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        outcomes = {case.name: outcome(case, tmp_path) for case in cases()}
    wrong = {name: text for name, text in outcomes.items() if text.startswith("WRONG")}
    assert not wrong
    refused = {name: text for name, text in outcomes.items() if text.startswith("refused")}
    unexplained = {
        name: text
        for name, text in refused.items()
        if not re.search(
            r"uint64|sequence_type|optional_type|strings|tensor of object|has dtype|opset 8|dynamic dimension",
            text,
        )
    }
    assert not unexplained
    assert len(outcomes) - len(refused) >= 0.9 * len(outcomes)
