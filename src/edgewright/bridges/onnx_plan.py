"""An ONNX graph as a flat list of steps with static shapes: constants folded, control flow unrolled.

The planner walks the graph once and runs every node on example inputs. A node whose inputs are all known is computed
at once and leaves a constant; what depends on the model's inputs leaves a step. As every shape is static, whole chains
of shape arithmetic vanish on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgewright.bridges import onnx_fold, onnx_rewrite, onnx_values
from edgewright.bridges.onnx_ops import Handler, OnnxNode, handler_of
from edgewright.core.errors import ConversionError
from edgewright.core.tensors import Array

if TYPE_CHECKING:
    import onnx
    import torch

MAX_STEPS = 100_000  # a loop in a hostile file must not unroll for ever
MAX_DEPTH = 32  # of nested bodies
CONTROL = ("If", "Loop", "Scan", "SequenceMap")


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One call of a handler: where its inputs come from and what its outputs are called.

    Attributes:
        inputs: names of live values or of constants; None for an input that is left out.
        outputs: unique names; "" for one that nobody reads.
        weights: those of `inputs` that are constants and that the handler computes with.
    """

    node: OnnxNode
    handler: Handler
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    weights: frozenset[str]


@dataclass(kw_only=True)
class Plan:
    """The steps of a model, in order.

    Attributes:
        weights: constants that steps read as tensors.
        outputs: names of live values or constants, in the order of the model's outputs.
        types: ONNX element type of every value.
        examples: the live values of the example run.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    examples: dict[str, torch.Tensor] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a live value or a constant."""
        return tuple(self.examples[name].shape) if name in self.examples else self.constants[name].shape

    def drop_unused(self) -> None:
        """Remove the steps whose outputs nobody reads, and the values of the example run."""
        wanted, kept = set(self.outputs), []
        for step in reversed(self.steps):
            if wanted.intersection(step.outputs):
                kept.append(step)
                wanted.update(name for name in step.inputs if name is not None)
        self.steps = kept[::-1]


Scope = dict[str, str]  # a name inside a graph body -> the unique name of its value in the plan


class Planner:
    """Makes the plan of one model; use `run` once."""

    def __init__(self, opsets: Mapping[str, int]) -> None:
        self.opsets = dict(opsets)
        self.plan = Plan(inputs=())
        self.sequences: dict[str, tuple[str, ...]] = {}
        self.transposed: dict[str, str] = {}  # a constant matrix -> the one that holds its transpose
        self._serial = 0
        self._producers: dict[str, Step] = {}

    def unique(self, name: str) -> str:
        """Return a name that no other value of the plan has."""
        self._serial += 1
        return f"{name}#{self._serial}"

    def run(self, graph: onnx.GraphProto, inputs: Mapping[str, torch.Tensor]) -> Plan:
        """Return the plan of `graph` for example `inputs`, in their order.

        Raises:
            ConversionError: a node cannot be computed; the message names it.
        """
        import torch

        types = onnx_values.element_types(graph)
        scope: Scope = {}
        for name, value in inputs.items():
            scope[name] = name
            self.plan.types[name] = types.get(name, 0)
            self.plan.examples[name] = onnx_values.widened(value)
        self.plan.inputs = tuple(inputs)
        with torch.no_grad():
            outputs = self.body(graph, scope, depth=0)
        for value, name in zip(graph.output, outputs, strict=True):
            if name in self.sequences:
                raise ConversionError(f"output {value.name!r} is a sequence; only tensors are converted.")
        self.plan.outputs = tuple(outputs)
        self.plan.drop_unused()
        return self.plan

    def body(self, graph: onnx.GraphProto, scope: Scope, *, depth: int) -> list[str]:
        """Plan the nodes of `graph` and return the unique names of its outputs.

        Args:
            scope: names that are visible; the graph's own are added to a copy.
        """
        if depth > MAX_DEPTH:
            raise ConversionError(
                f"the graph has bodies nested deeper than {MAX_DEPTH}; that is not converted."
            )
        scope = dict(scope)
        types = onnx_values.element_types(graph)
        readers = _readers(graph)
        for tensor in graph.initializer:
            if tensor.name not in scope or depth:
                scope[tensor.name] = self.constant(
                    tensor.name, onnx_values.array_of(tensor), tensor.data_type
                )
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            scope[name] = self.constant(name, onnx_values.dense_of(sparse), sparse.values.data_type)
        for proto in graph.node:
            if len(self.plan.steps) > MAX_STEPS:
                raise ConversionError(
                    f"the unrolled graph has more than {MAX_STEPS} operators; that is not converted."
                )
            self._node(proto, scope, types, readers, depth)
        missing = [value.name for value in graph.output if value.name not in scope]
        if missing:
            raise ConversionError(f"no operator computes the outputs {missing}. Export the model again.")
        return [scope[value.name] for value in graph.output]

    def constant(self, name: str, value: Array, element_type: int = 0) -> str:
        """Add a constant and return its unique name."""
        unique = self.unique(name)
        self.plan.constants[unique] = value
        self.plan.types[unique] = element_type or onnx_values.element_type_of(value)
        return unique

    def producer(self, name: str | None) -> Step | None:
        """Return the step that computes a value; None for inputs, constants and left out names."""
        return None if name is None else self._producers.get(name)

    def value(self, name: str) -> torch.Tensor:
        """Return a live value or a constant as a tensor; a constant becomes a weight."""
        plan = self.plan
        if name in plan.examples:
            return plan.examples[name]
        if name not in plan.weights:
            plan.weights[name] = onnx_values.widened(onnx_values.tensor_of(plan.constants[name]))
        return plan.weights[name]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a value; None for a sequence."""
        value = self.plan.examples.get(name)
        if value is not None:
            return tuple(value.shape)
        return self.plan.constants[name].shape if name in self.plan.constants else None

    def add_sequence(self, items: Sequence[str]) -> str:
        """Add a sequence of values and return its unique name."""
        name = self.unique("sequence")
        self.sequences[name] = tuple(items)
        return name

    def sequence(self, node: OnnxNode, name: str) -> list[str]:
        """Return the names of the values in a sequence."""
        if name not in self.sequences:
            raise node.refusal("its input is not a sequence")
        return list(self.sequences[name])

    def _node(
        self, proto: onnx.NodeProto, scope: Scope, types: Mapping[str, int], readers: Counter[str], depth: int
    ) -> None:
        from edgewright.bridges import onnx_control

        given: list[str | None] = []
        for name in proto.input:
            if name and name not in scope:
                raise ConversionError(f"operator {proto.op_type}: nothing computes its input {name!r}.")
            given.append(scope[name] if name else None)
        node = self._describe(proto, given, types)
        if node.domain == "" and node.op_type in CONTROL:
            outputs = onnx_control.unroll(self, node, proto, given, scope, depth)
        elif node.domain == "" and node.op_type in onnx_control.ALIASES:
            outputs = onnx_control.alias(self, node, given)
        else:
            first = readers[proto.input[0]] if proto.input else 0
            node, given = onnx_rewrite.rewritten(self, node, given, first)
            outputs = self.emit(node, given, tuple(proto.output))
        for name, unique in zip(proto.output, outputs, strict=False):
            if name:
                scope[name] = unique

    def _describe(
        self, proto: onnx.NodeProto, given: Sequence[str | None], types: Mapping[str, int]
    ) -> OnnxNode:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        names = list(proto.output)
        while names and not names[-1]:
            names.pop()
        return OnnxNode(
            op_type=proto.op_type,
            domain=domain,
            name=proto.name,
            attributes={a.name: onnx_values.attribute_value(a) for a in proto.attribute},
            opset=self.opsets.get(domain, self.opsets.get("", 1)),
            n_outputs=len(names),
            constants=tuple(None if name is None else self.plan.constants.get(name) for name in given),
            input_types=tuple(0 if name is None else self.plan.types.get(name, 0) for name in given),
            output_types=tuple(types.get(name, 0) for name in names),
        )

    def emit(self, node: OnnxNode, given: Sequence[str | None], outputs: Sequence[str]) -> list[str]:
        """Compute a node, or add the step that computes it; return the unique names of its outputs."""
        if any(name in self.sequences for name in given):
            raise node.refusal("it takes a sequence")
        known = [index for index, name in enumerate(given) if name is not None]
        shape = onnx_fold.shape_of(node, [None if name is None else self.shape(name) for name in given])
        if shape is not None:
            return [self.constant(outputs[0], shape)]
        if all(node.is_constant(index) for index in known):
            results = onnx_fold.fold(node)
            return [
                self.constant(name, value, self._type(node, index, value))
                for index, (name, value) in enumerate(zip(outputs, results, strict=False))
            ]
        handler = handler_of(node.domain, node.op_type)
        if handler is None:
            raise ConversionError(f"operator {node.label} has no conversion.")
        arguments = [None if name is None else self.value(name) for name in given]
        with onnx_fold.watched() as read:
            values = onnx_fold.call(handler, node, arguments)
        weights = frozenset(
            name
            for name, tensor in zip(given, arguments, strict=True)
            if name in self.plan.constants and tensor is not None and id(tensor) in read
        )
        names = [self.unique(name) if name else "" for name in outputs[: len(values)]]
        self.plan.steps.append(
            Step(node=node, handler=handler, inputs=tuple(given), outputs=tuple(names), weights=weights)
        )
        for index, (name, value) in enumerate(zip(names, values, strict=False)):
            if name:
                self._producers[name] = self.plan.steps[-1]
                self.plan.examples[name] = value
                self.plan.types[name] = self._type(node, index, value)
        return names

    def _type(self, node: OnnxNode, index: int, value: torch.Tensor | Array) -> int:
        """Return the element type of an output: what ONNX infers, else the first input's if both are floats."""
        if index < len(node.output_types) and node.output_types[index]:
            return node.output_types[index]
        own = onnx_values.element_type_of(value)
        carried = [kind for kind in node.input_types if kind in onnx_values.CARRIED_IN_FLOAT]
        return carried[0] if carried and own == onnx_values.FLOAT else own


def _readers(graph: onnx.GraphProto) -> Counter[str]:
    """Return how often each name is read in the graph and its bodies, or given as an output."""
    counts = Counter(value.name for value in graph.output)
    stack = [graph]
    while stack:
        body = stack.pop()
        for node in body.node:
            counts.update(node.input)
            inner = [graph for a in node.attribute for graph in (a.g, *a.graphs)]
            counts.update(value.name for graph in inner for value in graph.output)
            stack += inner
    return counts
