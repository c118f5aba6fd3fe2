"""The operators of a model as a graph of plain records, whatever format it has; read in a worker, judged outside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

Shape = tuple[int | None, ...]
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class Value:
    """A tensor that goes into an operation or comes out of it.

    Attributes:
        dtype: numpy's name, "string", or empty where it is not known.
        shape: None where even the rank is not known; a dynamic dimension is None.
        is_constant: it is known before the model runs.
        is_data_dependent: its shape depends on the values of other tensors.
        variable: the type variable of the operator's schema (ONNX: T, T1, ...), or its fixed type.
    """

    dtype: str
    shape: Shape | None
    is_constant: bool = False
    is_data_dependent: bool = False
    variable: str = ""

    @property
    def is_dynamic(self) -> bool:
        """Whether a size is not known before the model runs."""
        return self.shape is None or any(size is None for size in self.shape)

    def to_json(self) -> list[object]:
        """Return the record as a JSON list: a model has thousands of them."""
        shape = None if self.shape is None else list(self.shape)
        return [self.dtype, shape, int(self.is_constant), int(self.is_data_dependent), self.variable]

    @staticmethod
    def from_json(record: object) -> Value:
        """Return the value that `to_json` wrote."""
        assert isinstance(record, list)
        dtype, shape, is_constant, is_data_dependent, variable = record
        return Value(
            dtype=str(dtype),
            shape=None if shape is None else tuple(None if size is None else int(size) for size in shape),
            is_constant=bool(is_constant),
            is_data_dependent=bool(is_data_dependent),
            variable=str(variable),
        )


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operator of a graph.

    Attributes:
        operator: Conv, com.microsoft.Gelu, aten.conv2d.default, CONV_2D.
        version: ONNX: the opset version in which its definition came last; else 0.
        inputs, outputs: tensors; an input that is left out is None.
        sources: positions of the operations whose outputs it reads, ascending.
        attributes: what is no tensor; dtypes by name.
        part_of: position, in the graph before the decomposition, of the operation that this one is a part of.
        depth: how many bodies of control flow it is in.
    """

    name: str
    operator: str
    version: int = 0
    inputs: tuple[Value | None, ...] = ()
    outputs: tuple[Value, ...] = ()
    sources: tuple[int, ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    macs: int | None = 0
    parameters: int = 0
    part_of: int | None = None
    depth: int = 0

    @property
    def values(self) -> tuple[Value, ...]:
        """All tensors that go in or come out."""
        return (*(value for value in self.inputs if value is not None), *self.outputs)

    def given(self, index: int) -> Value | None:
        """Return input `index`, or None when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "name": self.name,
            "operator": self.operator,
            "version": self.version,
            "inputs": [None if value is None else value.to_json() for value in self.inputs],
            "outputs": [value.to_json() for value in self.outputs],
            "sources": list(self.sources),
            "attributes": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in self.attributes.items()
            },
            "macs": self.macs,
            "parameters": self.parameters,
            "part_of": self.part_of,
            "depth": self.depth,
        }

    @staticmethod
    def from_json(record: Mapping[str, object]) -> Operation:
        """Return the operation that `to_json` wrote."""
        inputs, outputs, sources = record["inputs"], record["outputs"], record["sources"]
        attributes, macs, part_of = record["attributes"], record["macs"], record["part_of"]
        assert isinstance(inputs, list)
        assert isinstance(outputs, list)
        assert isinstance(sources, list)
        assert isinstance(attributes, dict)
        return Operation(
            name=str(record["name"]),
            operator=str(record["operator"]),
            version=int(str(record["version"])),
            inputs=tuple(None if value is None else Value.from_json(value) for value in inputs),
            outputs=tuple(Value.from_json(value) for value in outputs),
            sources=tuple(int(index) for index in sources),
            attributes={
                str(key): tuple(value) if isinstance(value, list) else value
                for key, value in attributes.items()
            },
            macs=None if macs is None else int(str(macs)),
            parameters=int(str(record["parameters"])),
            part_of=None if part_of is None else int(str(part_of)),
            depth=int(str(record["depth"])),
        )


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A model's operators in the order of execution.

    Attributes:
        format: one of `core.program.FORMATS`.
        parts: for a torch program the same graph in core ATen operators; for ONNX the bodies of operators that are
            defined by others. Each says which operation it is part of.
        inputs: what the user feeds.
        passes_through: an output of a torch program is one of its inputs as it is.
        uses: ONNX: for each of `inputs` the operations that read it: (position, index of the operation's input).
        opsets: ONNX: domain -> version that the model asks for.
    """

    format: str
    operations: tuple[Operation, ...]
    parts: tuple[Operation, ...] = ()
    inputs: tuple[Value, ...] = ()
    passes_through: bool = False
    uses: tuple[tuple[tuple[int, int], ...], ...] = ()
    opsets: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the record as JSON values."""
        return {
            "format": self.format,
            "operations": [operation.to_json() for operation in self.operations],
            "parts": [operation.to_json() for operation in self.parts],
            "inputs": [value.to_json() for value in self.inputs],
            "passes_through": self.passes_through,
            "uses": [[list(use) for use in uses] for uses in self.uses],
            "opsets": dict(self.opsets),
        }

    @staticmethod
    def from_json(record: Mapping[str, object]) -> Graph:
        """Return the graph that `to_json` wrote."""
        operations, parts, inputs = record["operations"], record["parts"], record["inputs"]
        opsets, uses = record["opsets"], record["uses"]
        assert isinstance(uses, list)
        assert isinstance(opsets, dict)
        assert isinstance(operations, list)
        assert isinstance(parts, list)
        assert isinstance(inputs, list)
        return Graph(
            format=str(record["format"]),
            operations=tuple(Operation.from_json(entry) for entry in operations),
            parts=tuple(Operation.from_json(entry) for entry in parts),
            inputs=tuple(Value.from_json(value) for value in inputs),
            passes_through=bool(record["passes_through"]),
            uses=tuple(tuple((int(at), int(index)) for at, index in entries) for entries in uses),
            opsets={str(domain): int(version) for domain, version in opsets.items()},
        )


def parts_of(graph: Graph) -> Mapping[int, list[Operation]]:
    """Return position of an operation -> the operations of `graph.parts` that it is made of."""
    found: dict[int, list[Operation]] = defaultdict(list)
    for part in graph.parts:
        if part.part_of is not None:
            found[part.part_of].append(part)
    return found
