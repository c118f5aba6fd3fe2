"""LiteRT -> ONNX: recurrent layers. Their states start at zero in each inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.bridges.tflite_builder import Builder, UnsupportedError, sizes
from edgewright.bridges.tflite_graph import Attribute
from edgewright.bridges.tflite_model import Operation, Tensor
from edgewright.bridges.tflite_ops import operator
from edgewright.core.errors import IntegrityError
from edgewright.core.tensors import Array

_MAX_UNROLLED = 512
_NOTE = "the states of its recurrent layers start at zero in each inference; LiteRT keeps them until they are reset"
_INTEGER_NOTE = (
    "its int8 recurrent layers are computed in float32 with the same weights; "
    "LiteRT rounds gates and cells to 16 bits"
)
_ACTIVATIONS = {1: "Relu", 4: "Tanh"}
# Positions of the inputs in LiteRT, gates in the order input, output, forget, cell as ONNX has them.
_INPUT_WEIGHTS, _STATE_WEIGHTS, _BIASES, _PEEPHOLES = (
    (1, 4, 2, 3),
    (5, 8, 6, 7),
    (12, 15, 13, 14),
    (9, 11, 10),
)
_PROJECTION, _PROJECTION_BIAS, _STATE, _CELL, _NORMS = 16, 17, 18, 19, (20, 21, 22, 23)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cell:
    """Weights [4 hidden, n] and biases [4 hidden] of the gates input, output, forget, cell; float32."""

    weights: Array
    states: Array
    bias: Array
    hidden: int
    clip: float


@operator("UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM")
def lstm(b: Builder, operation: Operation) -> None:
    """x [batch, time, n] (or time first) -> states of all times [batch, time, hidden]; LSTM has no axis of time.

    i, f, o = sigmoid(Wx + Rh + b); c = clip(f * c + i * tanh(Wx + Rh + b)); h = o * tanh(c).
    """
    if operation.name == "LSTM" and operation.integer("kernelType") == 1:
        _basic(b, operation)
        return
    tensor, result = b.source(operation, 0), b.result(operation)
    is_sequence = operation.name != "LSTM"
    if len(tensor.shape) != 2 + is_sequence:
        raise IntegrityError(f"{operation.name} of a tensor of rank {len(tensor.shape)}.")
    cell = _cell(b, operation)
    for note in (_NOTE, _INTEGER_NOTE if tensor.dtype == "int8" else _NOTE):
        if note not in b.notes:
            b.notes.append(note)
    value = b.real(tensor)
    if not is_sequence:
        value = b.node("Unsqueeze", [value, b.integers([0])])
    elif not operation.flag("timeMajor"):
        value = b.transposed(value, (1, 0, 2))
    (steps,) = sizes(tensor.shape, [0 if operation.flag("timeMajor") else 1]) if is_sequence else (1,)
    # A cell grows by less than 1 a step: where it cannot reach the clip, ONNX's own LSTM says the same.
    value = _whole(b, cell, value) if not 0 < cell.clip < steps else _unrolled(b, cell, value, tensor, steps)
    if not is_sequence:
        value = b.node("Squeeze", [value, b.integers([0])])
    elif not operation.flag("timeMajor"):
        value = b.transposed(value, (1, 0, 2))
    b.put(result, value)


def _cell(b: Builder, operation: Operation) -> _Cell:
    """Read the weights, and refuse what the equations above do not have."""
    names = {
        1: "coupled input and forget gates",
        _PROJECTION: "a projection",
        _PEEPHOLES[0]: "peepholes",
        _PEEPHOLES[1]: "peepholes",
        _NORMS[1]: "layer normalization",
    }
    odd = [
        text
        for position, text in names.items()
        if b.has(operation, position) == (position != 1)  # all but the input gate's weights must be left out
    ]
    if operation.integer("fusedActivationFunction", 4) != 4:
        odd.append("an activation other than tanh")
    if operation.flag("diagonalRecurrentTensors"):
        odd.append("diagonal recurrent weights")
    for position in (_STATE, _CELL):
        if b.has(operation, position) and not b.source(operation, position).is_variable:
            odd.append("states that are given as inputs")
    if odd:
        raise UnsupportedError(", ".join(dict.fromkeys(odd)))
    hidden, _ = sizes(b.source(operation, _INPUT_WEIGHTS[0]).shape, (0, 1))
    weights, states, bias = (
        np.concatenate([b.weight_values(operation, position) for position in positions])
        for positions in (_INPUT_WEIGHTS, _STATE_WEIGHTS, _BIASES)
    )
    return _Cell(
        weights=weights,
        states=states,
        bias=bias,
        hidden=hidden,
        clip=operation.real("cellClip"),
    )


def _whole(b: Builder, cell: _Cell, value: str) -> str:
    """Return the states [time, batch, hidden] by ONNX's LSTM."""
    weights, states = (b.constant(part[np.newaxis]) for part in (cell.weights, cell.states))
    bias = b.constant(np.concatenate([cell.bias, np.zeros_like(cell.bias)])[np.newaxis])
    attributes: dict[str, Attribute] = {"hidden_size": cell.hidden}
    made = b.node("LSTM", [value, weights, states, bias], attributes)  # [time, 1, batch, hidden]
    return b.node("Squeeze", [made, b.integers([1])])


def _unrolled(b: Builder, cell: _Cell, value: str, tensor: Tensor, steps: int) -> str:
    """Return the states [time, batch, hidden], one step after another: ONNX's LSTM clips gates, not cells."""
    if steps > _MAX_UNROLLED:
        raise UnsupportedError(f"a cell clip with {steps} steps; at most {_MAX_UNROLLED} are unrolled")
    inner = b.constant(np.ascontiguousarray(cell.states.T))
    gates = b.node("MatMul", [value, b.constant(np.ascontiguousarray(cell.weights.T))])
    gates = b.node("Add", [gates, b.constant(cell.bias)])
    h, c, made = "", "", []
    for step in range(steps):
        now = b.node("Gather", [gates, b.constant(np.asarray(step, dtype=np.int64))], {"axis": 0})
        if h:
            now = b.node("Add", [now, b.node("MatMul", [h, inner])])
        c, h = _step(b, now, c, cell.hidden, (0, 1, 2, 3), cell.clip)
        made.append(b.node("Unsqueeze", [h, b.integers([0])]))
    return b.node("Concat", made, {"axis": 0})


def _step(b: Builder, gates: str, c: str, hidden: int, order: Sequence[int], clip: float) -> tuple[str, str]:
    """Return cell and state after `gates` [batch, 4 hidden]; `order` tells where input, output, forget, cell are."""
    parts = b.nodes("Split", [gates, b.integers([hidden] * 4)], 4, {"axis": 1})
    i, o, f = (b.node("Sigmoid", [parts[order[k]]]) for k in range(3))
    new = b.node("Mul", [i, b.node("Tanh", [parts[order[3]]])])
    c = b.node("Add", [b.node("Mul", [f, c]), new]) if c else new
    if clip > 0:
        c = b.node("Clip", [c, b.scalar(-clip), b.scalar(clip)])
    return c, b.node("Mul", [o, b.node("Tanh", [c])])


def _basic(b: Builder, operation: Operation) -> None:
    """One step with given states: x, h, weights [4 hidden, n + hidden], biases, c -> h, c, and two scratch tensors.

    The gates are in the order input, cell, forget, output.
    """
    x, h, c = (b.real(b.source(operation, position)) for position in (0, 1, 4))
    if b.source(operation, 0).dtype != "float32":
        raise UnsupportedError("a basic LSTM with integers")
    joined = b.node("Concat", [x, h], {"axis": 1})
    weights = b.weights(operation, 2, (1, 0))
    gates = b.node("Gemm", [joined, weights, b.weights(operation, 3, (0,))])
    (hidden,) = sizes(b.source(operation, 1).shape, [1])
    c, h = _step(b, gates, c, hidden, (0, 3, 2, 1), operation.real("cellClip"))
    for position, value in enumerate((h, c, joined, gates)):
        if position < len(operation.outputs):
            b.put(b.result(operation, position), value)


@operator("UNIDIRECTIONAL_SEQUENCE_RNN", "RNN")
def rnn(b: Builder, operation: Operation) -> None:
    """h = activation(Wx + Rh + b) with W [hidden, n], R [hidden, hidden]; RNN is a single step."""
    tensor = b.source(operation, 0)
    is_sequence = operation.name != "RNN"
    code = operation.integer("fusedActivationFunction")
    if code not in _ACTIVATIONS:
        raise UnsupportedError(f"activation {code}")
    if not b.source(operation, 4).is_variable:
        raise UnsupportedError("a state that is given as an input")
    if _NOTE not in b.notes:
        b.notes.append(_NOTE)
    (hidden,) = sizes(b.source(operation, 1).shape, [0])
    value = b.real(tensor)
    is_moved = is_sequence and not operation.flag("timeMajor")
    if not is_sequence:
        value = b.node("Unsqueeze", [value, b.integers([0])])
    elif is_moved:
        value = b.transposed(value, (1, 0, 2))
    weights, states = (b.constant(b.weight_values(operation, position)[np.newaxis]) for position in (1, 2))
    bias = b.weight_values(operation, 3)
    both = b.constant(np.concatenate([bias, np.zeros_like(bias)])[np.newaxis])
    made = b.node(
        "RNN",
        [value, weights, states, both],
        {"hidden_size": hidden, "activations": (_ACTIVATIONS[code],)},
    )
    made = b.node("Squeeze", [made, b.integers([1])])
    if not is_sequence:
        made = b.node("Squeeze", [made, b.integers([0])])
    elif is_moved:
        made = b.transposed(made, (1, 0, 2))
    b.put(b.result(operation), made)
