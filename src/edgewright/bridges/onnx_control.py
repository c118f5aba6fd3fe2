"""ONNX control flow and sequences, unrolled while a graph is planned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgewright.bridges import onnx_values
from edgewright.bridges.onnx_ops import OnnxNode
from edgewright.core.tensors import Array

if TYPE_CHECKING:
    import onnx

    from edgewright.bridges.onnx_plan import Planner, Scope

MAX_ITERATIONS = 4096
_SYNTHETIC_OPSET = 18
ALIASES = (
    "Identity",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceAt",
    "SequenceInsert",
    "SequenceErase",
    "SequenceLength",
    "ConcatFromSequence",
    "SplitToSequence",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
)


def unroll(
    planner: Planner,
    node: OnnxNode,
    proto: onnx.NodeProto,
    given: Sequence[str | None],
    scope: Scope,
    depth: int,
) -> list[str]:
    """Plan an If, Loop, Scan or SequenceMap and return the unique names of its outputs.

    Raises:
        ConversionError: how often it runs, or the size of what it gives, depends on the model's inputs.
    """
    if node.op_type == "If":
        return _if(planner, node, given, scope, depth)
    if node.op_type == "Loop":
        return _loop(planner, node, given, scope, depth)
    if node.op_type == "Scan":
        return _scan(planner, node, given, scope, depth)
    return _sequence_map(planner, node, given, scope, depth)


def _graph(node: OnnxNode, name: str) -> onnx.GraphProto:
    value = node.attributes.get(name)
    if value is None or isinstance(value, int | float | str | tuple | np.ndarray):
        raise node.refusal(f"it has no body {name!r}")
    return value


def _names(node: OnnxNode, given: Sequence[str | None]) -> list[str]:
    found = [name for name in given if name is not None]
    if len(found) != len(given):
        raise node.refusal("an input is left out")
    return found


def _operation(
    planner: Planner, operator: str, inputs: Sequence[str | None], **attributes: int | tuple[int, ...]
) -> str:
    """Add an operator of our own and return the name of its only output."""
    made = OnnxNode(
        op_type=operator,
        domain="",
        name="",
        attributes=attributes,
        opset=_SYNTHETIC_OPSET,
        n_outputs=1,
        constants=tuple(None if name is None else planner.plan.constants.get(name) for name in inputs),
        input_types=tuple(0 if name is None else planner.plan.types.get(name, 0) for name in inputs),
    )
    return planner.emit(made, inputs, (operator.lower(),))[0]


def _integers(planner: Planner, *values: int) -> str:
    return planner.constant("integers", np.asarray(values, dtype=np.int64))


def _scalar(planner: Planner, name: str) -> str:
    """Return a condition of one element as a scalar."""
    return _operation(planner, "Reshape", [name, _integers(planner)])


def _truth(planner: Planner, name: str) -> bool | None:
    """Return a condition, or None where it is computed by the model."""
    value = planner.plan.constants.get(name)
    return None if value is None else bool(value.reshape(-1)[0])


def _if(planner: Planner, node: OnnxNode, given: Sequence[str | None], scope: Scope, depth: int) -> list[str]:
    (condition,) = _names(node, given)
    truth = _truth(planner, condition)
    if truth is not None:
        return planner.body(_graph(node, "then_branch" if truth else "else_branch"), scope, depth=depth + 1)
    # ONNX operators have no side effects: both branches are computed, and one of the results is taken.
    yes = planner.body(_graph(node, "then_branch"), scope, depth=depth + 1)
    no = planner.body(_graph(node, "else_branch"), scope, depth=depth + 1)
    return _select(planner, node, _scalar(planner, condition), yes, no)


def _select(
    planner: Planner, node: OnnxNode, condition: str, yes: Sequence[str], no: Sequence[str]
) -> list[str]:
    chosen = []
    for one, other in zip(yes, no, strict=True):
        shapes = [planner.shape(name) for name in (one, other)]
        if shapes[0] != shapes[1] or shapes[0] is None:
            raise node.refusal(
                f"its condition is computed by the model, and its results have the shapes {shapes[0]} and {shapes[1]}; "
                "only equal ones are converted"
            )
        chosen.append(one if one == other else _operation(planner, "Where", [condition, one, other]))
    return chosen


def _loop(
    planner: Planner, node: OnnxNode, given: Sequence[str | None], scope: Scope, depth: int
) -> list[str]:
    body = _graph(node, "body")
    trips, condition = given[0], given[1]
    carried = _names(node, given[2:])
    limit = MAX_ITERATIONS + 1
    if trips is not None:
        limit = int(node.constant(0).reshape(-1)[0])
    is_live = condition is not None and _truth(planner, condition) is None
    if is_live and (trips is None or len(body.output) > 1 + len(carried)):
        raise node.refusal("how often it runs is computed by the model")
    slices: list[list[str]] = [[] for _ in body.output[1 + len(carried) :]]
    iteration = 0
    while iteration < limit and not (condition is not None and _truth(planner, condition) is False):
        if iteration >= MAX_ITERATIONS:
            raise node.refusal(f"it runs more than {MAX_ITERATIONS} times")
        inner = dict(scope)
        number = planner.constant("iteration", np.asarray(iteration, dtype=np.int64))
        going = condition or planner.constant("condition", np.asarray(True))
        for value, name in zip(body.input, (number, going, *carried), strict=True):
            inner[value.name] = name
        results = planner.body(body, inner, depth=depth + 1)
        after = results[1 : 1 + len(carried)]
        if condition is not None and _truth(planner, condition) is None:
            going = _scalar(planner, condition)
            carried = _select(planner, node, going, after, carried)
            condition = _operation(planner, "And", [going, _scalar(planner, results[0])])
        else:
            carried, condition = after, results[0]
            if _truth(planner, condition) is None and (slices or trips is None):
                raise node.refusal("how often it runs is computed by the model")
        for rows, name in zip(slices, results[1 + len(carried) :], strict=True):
            rows.append(name)
        iteration += 1
    stacked = [
        _stacked(planner, node, rows, value)
        for rows, value in zip(slices, body.output[1 + len(carried) :], strict=True)
    ]
    return [*carried, *stacked]


def _stacked(
    planner: Planner, node: OnnxNode, rows: Sequence[str], value: onnx.ValueInfoProto, axis: int = 0
) -> str:
    if not rows:
        tensor = value.type.tensor_type
        sizes = [dim.dim_value for dim in tensor.shape.dim]
        if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            raise node.refusal("it never runs, and its body does not tell the shape of what it would give")
        empty: Array = np.zeros((0, *sizes), dtype=np.float32)
        kind = onnx_values.carrier_of(tensor.elem_type)
        return planner.constant(value.name, empty.astype(str(kind).removeprefix("torch.")), tensor.elem_type)
    axes = _integers(planner, axis)
    lifted = [_operation(planner, "Unsqueeze", [name, axes]) for name in rows]
    return lifted[0] if len(lifted) == 1 else _operation(planner, "Concat", lifted, axis=axis)


def _scan(
    planner: Planner, node: OnnxNode, given: Sequence[str | None], scope: Scope, depth: int
) -> list[str]:
    body = _graph(node, "body")
    if node.opset < 9:
        raise node.refusal("Scan of opset 8 has another meaning; export the model with opset 9 or later")
    scanned = node.integer("num_scan_inputs", 0)
    names = _names(node, given)
    states, rows = names[: len(names) - scanned], names[len(names) - scanned :]
    given_out = len(body.output) - len(states)
    if scanned < 1 or given_out < 0 or len(names) != len(body.input):
        raise node.refusal("its body does not fit its inputs")
    in_axes = node.integers("scan_input_axes", [0] * scanned)
    in_back = node.integers("scan_input_directions", [0] * scanned)
    out_axes = node.integers("scan_output_axes", [0] * given_out)
    out_back = node.integers("scan_output_directions", [0] * given_out)
    shapes = [planner.shape(name) or () for name in rows]
    axes = [node.axis(axis, len(shape)) for axis, shape in zip(in_axes, shapes, strict=True)]
    lengths = {shape[axis] for axis, shape in zip(axes, shapes, strict=True)}
    if len(lengths) != 1 or max(lengths) > MAX_ITERATIONS:
        raise node.refusal(f"it runs {sorted(lengths)} times; one number up to {MAX_ITERATIONS} is converted")
    (length,) = lengths
    slices: list[list[str]] = [[] for _ in range(given_out)]
    for iteration in range(length):
        inner = dict(scope)
        for value, name in zip(body.input, states, strict=False):
            inner[value.name] = name
        for value, name, axis, back in zip(body.input[len(states) :], rows, axes, in_back, strict=True):
            index = length - 1 - iteration if back else iteration
            number = planner.constant("row", np.asarray(index, dtype=np.int64))
            inner[value.name] = _operation(planner, "Gather", [name, number], axis=axis)
        results = planner.body(body, inner, depth=depth + 1)
        states = results[: len(states)]
        for kept, name in zip(slices, results[len(states) :], strict=True):
            kept.append(name)
    outputs = []
    for kept, value, axis, back in zip(slices, body.output[len(states) :], out_axes, out_back, strict=True):
        rank = len(planner.shape(kept[0]) or ()) + 1 if kept else 1
        ordered = kept[::-1] if back else kept
        outputs.append(_stacked(planner, node, ordered, value, node.axis(axis, rank)))
    return [*states, *outputs]


def _sequence_map(
    planner: Planner, node: OnnxNode, given: Sequence[str | None], scope: Scope, depth: int
) -> list[str]:
    body = _graph(node, "body")
    names = _names(node, given)
    first = planner.sequence(node, names[0])
    results: list[list[str]] = [[] for _ in body.output]
    for index in range(len(first)):
        inner = dict(scope)
        for value, name in zip(body.input, names, strict=True):
            inner[value.name] = planner.sequence(node, name)[index] if name in planner.sequences else name
        for kept, name in zip(results, planner.body(body, inner, depth=depth + 1), strict=True):
            kept.append(name)
    return [planner.add_sequence(kept) for kept in results]


def alias(planner: Planner, node: OnnxNode, given: Sequence[str | None]) -> list[str]:
    """Return the names of what a node gives that computes nothing: it hands values on, or arranges a sequence.

    Raises:
        ConversionError: the arrangement depends on the model's inputs.
    """
    kind = node.op_type
    if kind == "SequenceEmpty":
        return [planner.add_sequence([])]
    if kind == "OptionalHasElement":
        return [planner.constant("given", np.asarray(bool(given) and given[0] is not None))]
    if kind == "SequenceConstruct":
        return [planner.add_sequence(_names(node, given))]
    if not given or given[0] is None:
        raise node.refusal("it has no input")
    source = given[0]
    if kind in ("Identity", "Optional", "OptionalGetElement"):
        return [source]
    if kind == "SplitToSequence":
        return [planner.add_sequence(_split(planner, node, given))]
    items = planner.sequence(node, source)
    if kind == "SequenceLength":
        return [planner.constant("length", np.asarray(len(items), dtype=np.int64))]
    if kind == "ConcatFromSequence":
        axis = node.integer("axis", 0)
        if not items:
            raise node.refusal("the sequence is empty")
        if node.integer("new_axis", 0):
            axis = node.axis(axis, len(planner.shape(items[0]) or ()) + 1)
            axes = _integers(planner, axis)
            items = [_operation(planner, "Unsqueeze", [name, axes]) for name in items]
        return [_operation(planner, "Concat", items, axis=axis)]
    position = 2 if kind == "SequenceInsert" else 1
    default = len(items) if kind == "SequenceInsert" else len(items) - 1
    index = default
    if position < len(given) and given[position] is not None:
        index = int(node.constant(position).reshape(-1)[0])
    if not -len(items) <= index < len(items) + (kind == "SequenceInsert"):
        raise node.refusal(f"position {index} is outside of a sequence of {len(items)}")
    index = index + len(items) if index < 0 else index
    if kind == "SequenceAt":
        return [items[index]]
    if kind == "SequenceErase":
        return [planner.add_sequence([*items[:index], *items[index + 1 :]])]
    element = given[1]
    if element is None:
        raise node.refusal("it has nothing to insert")
    return [planner.add_sequence([*items[:index], element, *items[index:]])]


def _split(planner: Planner, node: OnnxNode, given: Sequence[str | None]) -> list[str]:
    source = given[0]
    assert source is not None
    shape = planner.shape(source) or ()
    axis = node.axis(node.integer("axis", 0), len(shape))
    keeps = True
    if len(given) > 1 and given[1] is not None:
        split = node.ints_at(1)
        if node.constant(1).ndim == 0:
            whole, rest = divmod(shape[axis], max(split[0], 1))
            split = [split[0]] * whole + ([rest] if rest else [])
    else:
        split, keeps = [1] * shape[axis], bool(node.integer("keepdims", 1))
    if len(split) > MAX_ITERATIONS or sum(split) != shape[axis]:
        raise node.refusal(f"it splits {shape[axis]} into {split[:8]}")
    pieces, start = [], 0
    for size in split:
        bounds = [_integers(planner, value) for value in (start, start + size, axis)]
        piece = _operation(planner, "Slice", [source, *bounds])
        pieces.append(piece if keeps else _operation(planner, "Squeeze", [piece, bounds[2]]))
        start += size
    return pieces
