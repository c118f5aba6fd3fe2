"""RNN, GRU and LSTM, unrolled over their time steps, of which there is a fixed number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from edgewright.bridges.onnx_ops import OnnxNode, handles

Tensor = torch.Tensor
Activation = Callable[[Tensor], Tensor]
MAX_UNROLLED = 4096  # time steps times directions

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
# How many of activation_alpha and activation_beta a function takes, with its defaults.
_FACTORS: dict[str, tuple[float, ...]] = {
    "Affine": (1.0, 0.0),
    "LeakyRelu": (0.01,),
    "ThresholdedRelu": (1.0,),
    "ScaledTanh": (1.0, 1.0),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0,),
}


def _activation(node: OnnxNode, name: str, alpha: float, beta: float) -> Activation:
    functions: dict[str, Activation] = {
        "Relu": functional.relu,
        "Tanh": torch.tanh,
        "Sigmoid": torch.sigmoid,
        "Softsign": lambda x: x / (1 + torch.abs(x)),
        "Softplus": functional.softplus,
        "Affine": lambda x: alpha * x + beta,
        "LeakyRelu": lambda x: functional.leaky_relu(x, alpha),
        "ThresholdedRelu": lambda x: torch.where(x >= alpha, x, torch.zeros_like(x)),
        "ScaledTanh": lambda x: alpha * torch.tanh(beta * x),
        "HardSigmoid": lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0),
        "Elu": lambda x: torch.where(x > 0, x, alpha * (torch.exp(x) - 1)),
    }
    found = {known.lower(): function for known, function in functions.items()}.get(name.lower())
    if found is None:
        raise node.refusal(f"its activation {name!r} is unknown")
    return found


def _activations(node: OnnxNode, directions: int) -> list[list[Activation]]:
    """Return the activations of each direction; the factors are taken in order by those that have any."""
    default = _DEFAULTS[node.op_type]
    names = node.attributes.get("activations", default * directions)
    if not isinstance(names, tuple) or len(names) != len(default) * directions:
        raise node.refusal(f"its activations are {names!r}; {len(default)} for each direction are expected")
    alphas, betas = iter(node.numbers("activation_alpha")), iter(node.numbers("activation_beta"))
    built = [_activation(node, str(name), *_factors(str(name), alphas, betas)) for name in names]
    return [built[index * len(default) : (index + 1) * len(default)] for index in range(directions)]


def _factors(name: str, alphas: Iterator[float], betas: Iterator[float]) -> tuple[float, float]:
    title = {known.lower(): known for known in _FACTORS}.get(name.lower(), "")
    own = _FACTORS.get(title, ())
    alpha = next(alphas, own[0]) if own else 0.0
    beta = next(betas, own[1]) if len(own) > 1 else 0.0
    return alpha, beta


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cell:
    """One direction of the layer: weights [gates * H, ...] and what its gates do."""

    node: OnnxNode
    recurrence: Tensor
    recurrence_bias: Tensor | None
    peepholes: list[Tensor]
    functions: list[Activation]
    size: int

    def clipped(self, value: Tensor) -> Tensor:
        """Return the input of an activation, limited as the attribute says."""
        limit = self.node.number("clip", 0.0)
        return value.clamp(-limit, limit) if limit > 0 else value

    def gate(self, value: Tensor, index: int) -> Tensor:
        """Return the part of one gate in [N, gates * H]."""
        return value.narrow(1, index * self.size, self.size)


# A step takes what the input gives for it, with all biases, and the states [N, H], and returns the new states; the
# first state is the output.
Step = Callable[[_Cell, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


def _rnn_step(cell: _Cell, given: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    total = given + functional.linear(states[0], cell.recurrence)
    return (cell.functions[0](cell.clipped(total)),)


def _gru_step(cell: _Cell, given: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """z = f(xz + h Rz), r = f(xr + h Rr), n = g(xn + (r h) Rn) or g(xn + r (h Rn + bn)), h = (1 - z) n + z h."""
    hidden = states[0]
    first, second = cell.functions
    if cell.recurrence_bias is not None:  # linear_before_reset: the reset gate multiplies the bias too
        ours = functional.linear(hidden, cell.recurrence, cell.recurrence_bias)
        own_z, own_r, own_n = (cell.gate(ours, index) for index in range(3))
        update = first(cell.clipped(cell.gate(given, 0) + own_z))
        reset = first(cell.clipped(cell.gate(given, 1) + own_r))
        new = second(cell.clipped(cell.gate(given, 2) + reset * own_n))
    else:
        both = functional.linear(hidden, cell.recurrence.narrow(0, 0, 2 * cell.size))
        update = first(cell.clipped(cell.gate(given, 0) + cell.gate(both, 0)))
        reset = first(cell.clipped(cell.gate(given, 1) + cell.gate(both, 1)))
        own = functional.linear(reset * hidden, cell.recurrence.narrow(0, 2 * cell.size, cell.size))
        new = second(cell.clipped(cell.gate(given, 2) + own))
    return ((1 - update) * new + update * hidden,)


def _lstm_step(cell: _Cell, given: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gates in ONNX's order: input, output, forget, cell. Peepholes: input, output, forget."""
    hidden, memory = states
    total = given + functional.linear(hidden, cell.recurrence)
    enter, leave, forget, new = (cell.gate(total, index) for index in range(4))
    gate, candidate, shown = cell.functions
    if cell.peepholes:
        enter, forget = enter + cell.peepholes[0] * memory, forget + cell.peepholes[2] * memory
    opened = gate(cell.clipped(enter))
    kept = 1 - opened if cell.node.integer("input_forget", 0) else gate(cell.clipped(forget))
    memory = kept * memory + opened * candidate(cell.clipped(new))
    if cell.peepholes:
        leave = leave + cell.peepholes[1] * memory
    return gate(cell.clipped(leave)) * shown(memory), memory


@handles("RNN", "GRU", "LSTM")
def _recurrent(
    node: OnnxNode,
    value: Tensor,
    weights: Tensor,
    recurrence: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    initial: Tensor | None = None,
    initial_memory: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    is_batch_first = node.opset >= 14 and node.integer("layout", 0) == 1
    if is_batch_first:
        value = value.transpose(0, 1)
    steps, batch = value.shape[:2]
    gates = _GATES[node.op_type]
    size = recurrence.shape[-1]
    names = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    orders = names.get(node.text("direction", "forward"))
    if orders is None or weights.shape[0] != len(orders) or weights.shape[1] != gates * size:
        raise node.refusal(
            f"direction {node.text('direction', 'forward')!r} with weights {list(weights.shape)}"
        )
    if steps * len(orders) > MAX_UNROLLED or steps < 1:
        raise node.refusal(f"it has {steps} time steps; 1 to {MAX_UNROLLED} are unrolled")
    functions = _activations(node, len(orders))
    starts = [
        None if start is None else (start.transpose(0, 1) if is_batch_first else start)
        for start in (initial, initial_memory)
    ]
    masks = _masks(lengths, steps) if lengths is not None else None
    outputs: list[Tensor] = []
    ends: list[tuple[Tensor, ...]] = []
    for index, is_reverse in enumerate(orders):
        keeps_bias = node.op_type == "GRU" and node.integer("linear_before_reset", 0) != 0
        given, rest = _biases(None if bias is None else bias[index], gates * size, keeps_both=keeps_bias)
        if keeps_bias and rest is None:
            rest = torch.zeros(gates * size, dtype=value.dtype)
        cell = _Cell(
            node=node,
            recurrence=recurrence[index],
            recurrence_bias=rest,
            peepholes=[] if peepholes is None else list(torch.split(peepholes[index], size)),
            functions=functions[index],
            size=size,
        )
        count = 2 if node.op_type == "LSTM" else 1
        states = tuple(
            torch.zeros(batch, size, dtype=value.dtype) if start is None else start[index]
            for start in starts[:count]
        )
        # The inputs of all steps at once: one large product instead of many small ones.
        projected = functional.linear(value, weights[index], given)
        out, end = _unrolled(cell, projected, states, masks, is_reverse=is_reverse)
        outputs.append(out)
        ends.append(end)
    sequence = torch.stack(outputs, dim=1)  # [T, D, N, H]
    finals = [torch.stack([end[index] for end in ends], dim=0) for index in range(len(ends[0]))]
    if is_batch_first:
        sequence = sequence.permute(2, 0, 1, 3)
        finals = [final.transpose(0, 1) for final in finals]
    return (sequence, *finals)


def _biases(bias: Tensor | None, half: int, *, keeps_both: bool) -> tuple[Tensor | None, Tensor | None]:
    """Return the bias of the input and the one of the recurrence; their sum and None where that is the same."""
    if bias is None:
        return None, None
    given, own = bias.narrow(0, 0, half), bias.narrow(0, half, half)
    return (given, own) if keeps_both else (given + own, None)


def _masks(lengths: Tensor, steps: int) -> list[Tensor]:
    """Return for each time step which rows [N, 1] of the batch still have values."""
    ends = lengths.to(torch.int64).reshape(-1, 1)
    return [ends > step for step in range(steps)]


_STEPS: dict[str, Step] = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}


def _unrolled(
    cell: _Cell,
    projected: Tensor,
    states: tuple[Tensor, ...],
    masks: Sequence[Tensor] | None,
    *,
    is_reverse: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the outputs [T, N, H], 0 after the end of a row, and the states after its last value."""
    steps = projected.shape[0]
    outputs: list[Tensor | None] = [None] * steps
    for step in reversed(range(steps)) if is_reverse else range(steps):
        new = _STEPS[cell.node.op_type](cell, projected[step], states)
        if masks is None:
            states, outputs[step] = new, new[0]
            continue
        outputs[step] = torch.where(masks[step], new[0], torch.zeros_like(new[0]))
        states = tuple(
            torch.where(masks[step], after, before) for after, before in zip(new, states, strict=True)
        )
    return torch.stack([output for output in outputs if output is not None], dim=0), states
