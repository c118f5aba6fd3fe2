"""Core ML's recurrent operators: lstm, gru, rnn. Sequences are [steps, batch, features].

Formulas and the order of the gates are those of the MIL operator documentation. States are kept in float32 from step to
step; the interpreter rounds what leaves the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgewright.backends.coreml_call import Call, Floats, Operator, limit
from edgewright.backends.coreml_ops_math import sigmoid
from edgewright.core.tensors import Array

_Activation = Callable[[Floats], Floats]
_ACTIVATIONS: Mapping[str, _Activation] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "sigmoid": sigmoid,
    "tanh": lambda x: np.asarray(np.tanh(x), np.float32),
}


def _activation(call: Call, name: str, default: str) -> _Activation:
    chosen = call.text(name, default)
    if chosen not in _ACTIVATIONS:
        raise call.refuse(f"with the activation {chosen!r} is not executed here")
    return _ACTIVATIONS[chosen]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Weights:
    """One direction: [gates * hidden, features], [gates * hidden, hidden], [gates * hidden], [3 * hidden]."""

    inputs: Floats
    states: Floats
    bias: Floats | None
    peephole: Floats | None

    def projected(self, x: Floats) -> Floats:
        """Return what the inputs alone add to the gates, [steps, batch, gates * hidden]."""
        limit([*x.shape[:2], len(self.inputs)])
        result = np.asarray(np.matmul(x, self.inputs.T), np.float32)
        return result if self.bias is None else result + self.bias


def _weights(call: Call, suffix: str = "") -> _Weights:
    return _Weights(
        inputs=call.floats(f"weight_ih{suffix}"),
        states=call.floats(f"weight_hh{suffix}"),
        bias=call.optional(f"bias{suffix}"),
        peephole=call.optional(f"peephole{suffix}"),
    )


def _sequence(call: Call) -> Floats:
    x = call.floats("x")
    if x.ndim != 3 or len(x) == 0:
        raise call.refuse(f"has a sequence of shape {list(x.shape)}; steps, batch and features are expected")
    return x


def _steps(call: Call, states: list[Floats]) -> Floats:
    """Return the states of all steps, or of the last one alone."""
    return np.stack(states if call.flag("output_sequence", False) else states[-1:])


def _lstm(call: Call) -> tuple[Array, ...]:
    x, hidden, cell = _sequence(call), call.floats("initial_h"), call.floats("initial_c")
    direction = call.text("direction", "forward")
    if direction == "bidirectional":
        half = hidden.shape[-1] // 2
        ahead = _lstm_pass(call, x, hidden[:, :half], cell[:, :half], _weights(call))
        back = _lstm_pass(call, x[::-1], hidden[:, half:], cell[:, half:], _weights(call, "_back"))
        if call.flag("output_sequence", False):
            joined = np.concatenate([np.stack(ahead[0]), np.stack(back[0][::-1])], axis=-1)
        else:
            joined = np.concatenate([ahead[0][-1], back[0][-1]], axis=-1)[None]
        cells = np.concatenate([ahead[1], back[1]], axis=-1)
        return joined, np.concatenate([ahead[0][-1], back[0][-1]], axis=-1), cells
    states, cell = _lstm_pass(call, _directed(call, x, direction), hidden, cell, _weights(call))
    last = states[-1]
    return _steps(call, _restored(states, direction, call)), last, cell


def _directed(call: Call, x: Floats, direction: str) -> Floats:
    if direction not in ("forward", "reverse"):
        raise call.refuse(f"has the unknown direction {direction!r}")
    return x if direction == "forward" else x[::-1]


def _restored(states: list[Floats], direction: str, call: Call) -> list[Floats]:
    """Return the states in the order of the inputs, where all of them are wanted."""
    is_turned = direction == "reverse" and call.flag("output_sequence", False)
    return states[::-1] if is_turned else states


def _lstm_pass(
    call: Call, x: Floats, hidden: Floats, cell: Floats, weights: _Weights
) -> tuple[list[Floats], Floats]:
    """Gates in the order input, forget, output, cell."""
    gate = _activation(call, "recurrent_activation", "sigmoid")
    inner = _activation(call, "cell_activation", "tanh")
    outer = _activation(call, "activation", "tanh")
    clip = call.number("clip") if call.has("clip") else None
    none = np.zeros(3 * hidden.shape[-1], np.float32)
    for_input, for_forget, for_output = np.split(none if weights.peephole is None else weights.peephole, 3)
    states = []
    for given in weights.projected(x):
        i, f, o, z = np.split(given + hidden @ weights.states.T, 4, axis=-1)
        new = inner(z)
        cell = gate(f + for_forget * cell) * cell + gate(i + for_input * cell) * new
        if clip is not None:
            cell = np.clip(cell, -clip, clip)
        hidden = gate(o + for_output * cell) * outer(cell)
        states.append(hidden)
    return states, cell


def _gru(call: Call) -> tuple[Array, ...]:
    """Gates in the order reset, output, update; the reset gate multiplies the product of the state's matrix."""
    if call.flag("reset_after", False) or call.has("input_bias"):
        raise call.refuse(
            "with reset_after or input_bias is not executed here: their meaning is not documented"
        )
    x, hidden, weights = _sequence(call), call.floats("initial_h"), _weights(call)
    direction = call.text("direction", "forward")
    gate = _activation(call, "recurrent_activation", "sigmoid")
    outer = _activation(call, "activation", "tanh")
    for_reset, for_output, for_update = np.split(weights.states, 3)
    states = []
    for given in weights.projected(_directed(call, x, direction)):
        from_reset, from_output, from_update = np.split(given, 3, axis=-1)
        reset = gate(from_reset + hidden @ for_reset.T)
        update = gate(from_update + hidden @ for_update.T)
        new = outer(from_output + reset * (hidden @ for_output.T))
        hidden = (1 - update) * new + update * hidden
        states.append(hidden)
    return _steps(call, _restored(states, direction, call)), hidden


def _rnn(call: Call) -> tuple[Array, ...]:
    x, hidden, weights = _sequence(call), call.floats("initial_h"), _weights(call)
    direction = call.text("direction", "forward")
    outer = _activation(call, "activation", "tanh")
    states = []
    for given in weights.projected(_directed(call, x, direction)):
        hidden = outer(given + hidden @ weights.states.T)
        states.append(hidden)
    return _steps(call, _restored(states, direction, call)), hidden


OPERATORS: dict[str, Operator] = {"gru": _gru, "lstm": _lstm, "rnn": _rnn}
