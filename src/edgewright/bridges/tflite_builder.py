"""The builder in which a handler of a LiteRT operator writes its ONNX nodes.

Inputs are read as real numbers (`Builder.real`: a quantized tensor comes through DequantizeLinear) and outputs given
as real numbers (`Builder.put`: a quantized tensor gets QuantizeLinear), so that one handler serves floats, int8, uint8
and int16, and runtimes find the Q/DQ pairs that they fuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgewright.bridges.tflite_graph import Attribute, Graph, Node, Port
from edgewright.bridges.tflite_model import Model, Operation, Scheme, Shape, Tensor
from edgewright.core.errors import IntegrityError
from edgewright.core.tensors import Array

OPSET = 17
# QuantizeLinear takes 16 bits from this opset on.
OPSET_OF_16_BITS = 21
MAX_ELEMENTS = 1 << 28  # of one constant that the bridge computes
_ACTIVATIONS = {0: "", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
_CLIPS: dict[str, tuple[float, float | None]] = {
    "RELU": (0.0, None),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, 6.0),
    "RELU_0_TO_1": (0.0, 1.0),
}


class UnsupportedError(Exception):
    """This operator cannot be written as ONNX, for the reason that the text gives; the bridge collects them."""


class Builder:
    """The ONNX graph of one model while it is written.

    A severed graph is for comparisons: every operator reads tensors that are fed, and gives its own as outputs.
    """

    def __init__(
        self, model: Model, inputs: Sequence[str], outputs: Sequence[str], *, is_severed: bool = False
    ) -> None:
        self.model = model
        self._is_severed = is_severed
        self._fed: dict[int, str] = {}
        self._results: dict[int, str] = {}
        is_wide = any(t.scheme is not None and t.dtype == "int16" for t in model.tensors)
        self.opset = OPSET_OF_16_BITS if is_wide else OPSET
        self.notes: list[str] = []
        self._nodes: list[Node] = []
        self._constants: dict[str, Array] = {}
        self._labels: dict[str, str] = {}
        self._stored: dict[int, str] = dict(zip(model.inputs, inputs, strict=True))
        self._real: dict[int, str] = {}
        self._unsigned: dict[int, tuple[str, Scheme]] = {}
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._makers = {index: operation for operation in model.operations for index in operation.outputs}
        self._count = 0
        self._input_names, self._output_names = tuple(inputs), tuple(outputs)

    # What a handler reads.

    def tensor(self, index: int) -> Tensor:
        """Return tensor `index`.

        Raises:
            UnsupportedError: the operator needs it and the file leaves it out.
        """
        if index < 0:
            raise UnsupportedError("a needed input is left out")
        return self.model.tensors[index]

    def source(self, operation: Operation, position: int) -> Tensor:
        """Return the tensor at `position` of the inputs."""
        if position >= len(operation.inputs):
            raise IntegrityError(
                f"{operation.name} has {len(operation.inputs)} inputs; at least {position + 1} are expected."
            )
        return self.tensor(operation.inputs[position])

    def has(self, operation: Operation, position: int) -> bool:
        """Return whether the optional input at `position` is given."""
        return position < len(operation.inputs) and operation.inputs[position] >= 0

    def result(self, operation: Operation, position: int = 0) -> Tensor:
        """Return the tensor at `position` of the outputs."""
        if position >= len(operation.outputs):
            raise IntegrityError(
                f"{operation.name} has {len(operation.outputs)} outputs; at least {position + 1} are expected."
            )
        return self.model.tensors[operation.outputs[position]]

    def known(self, operation: Operation, position: int) -> Array:
        """Return the value of the input at `position`.

        Raises:
            UnsupportedError: it is computed when the model runs.
        """
        value = self.source(operation, position).value
        if value is None:
            raise UnsupportedError(f"input {position} is computed when the model runs")
        return value

    def known_integers(self, operation: Operation, position: int) -> list[int]:
        """Return the value of the input at `position` as a flat list, see `known`."""
        return [int(value) for value in self.known(operation, position).ravel()]

    def maker(self, tensor: Tensor) -> Operation | None:
        """Return the operation that makes `tensor`; none for inputs and constants."""
        return self._makers.get(tensor.index)

    def weights(self, operation: Operation, position: int, axes: Sequence[int]) -> str:
        """Return the real numbers of the input at `position` with its axes in the order `axes`.

        A constant is moved now and stays as small as it is stored: float16 and integers are expanded in the model.
        """
        tensor = self.source(operation, position)
        if len(tensor.shape) != len(axes):
            raise IntegrityError(
                f"{operation.name} has weights of rank {len(tensor.shape)}, not {len(axes)}."
            )
        tensor = self._packed(tensor)
        if tensor.value is None:
            return self.transposed(self.real(tensor), axes)
        value = np.ascontiguousarray(tensor.value.transpose(axes))
        if tensor.scheme is not None and tensor.dtype in ("int8", "uint8", "int16", "int4", "int32", "int64"):
            scheme = tensor.scheme
            if scheme.is_per_axis:
                scheme = replace(scheme, axis=list(axes).index(scheme.axis))
            return self.dequantized(value, tensor.dtype, scheme)
        made = self.constant(value, label=tensor.name)
        return self.cast(made, "float32") if tensor.dtype == "float16" else made

    def weight_values(self, operation: Operation, position: int) -> Array:
        """Return the real numbers of the constant at `position`, float32.

        Raises:
            UnsupportedError: it is not a constant.
        """
        tensor = self._packed(self.source(operation, position))
        if tensor.value is None:
            raise UnsupportedError(f"weights at input {position} that are computed when the model runs")
        if tensor.scheme is not None and tensor.value.dtype.kind in "iu":
            return real_values(tensor.value, tensor.scheme)
        return tensor.value.astype(np.float32)

    def _packed(self, tensor: Tensor) -> Tensor:
        """Return the small constant that DEQUANTIZE makes `tensor` of, or `tensor`."""
        maker = self.maker(tensor)
        if maker is None or maker.name != "DEQUANTIZE" or self.source(maker, 0).value is None:
            return tensor
        return self.source(maker, 0)

    def stored(self, tensor: Tensor) -> str:
        """Return the ONNX value of `tensor` as it is stored: integers where it is quantized."""
        if self._is_severed and tensor.value is None:
            return self._fed.setdefault(tensor.index, f"fed{tensor.index}")
        if tensor.index in self._unsigned and tensor.index not in self._stored:
            wide = self.cast(self._unsigned[tensor.index][0], "int32")
            self._stored[tensor.index] = self.cast(
                self.node("Sub", [wide, self.scalar(128, "int32")]), "int8"
            )
        if tensor.index not in self._stored:
            if tensor.value is None:
                raise UnsupportedError(f"tensor {tensor.name!r} is made by an operator that is not supported")
            self._stored[tensor.index] = self.constant(tensor.value, label=tensor.name)
        return self._stored[tensor.index]

    def real(self, tensor: Tensor) -> str:
        """Return the ONNX value of `tensor` as real numbers, or the value itself where it is not quantized."""
        if tensor.scheme is None or tensor.dtype not in ("int8", "uint8", "int16", "int32", "int4", "int64"):
            return self.stored(tensor)
        if tensor.index not in self._real:
            if tensor.value is not None:
                self._real[tensor.index] = self.dequantized(tensor.value, tensor.dtype, tensor.scheme)
            elif tensor.index in self._unsigned:
                value, scheme = self._unsigned[tensor.index]
                self._real[tensor.index] = self._dequantize(value, "uint8", scheme)
            elif self._is_made_unsigned(tensor):
                self._put_unsigned(tensor, self._dequantize(self.stored(tensor), tensor.dtype, tensor.scheme))
                return self.real(tensor)
            else:
                self._real[tensor.index] = self._dequantize(self.stored(tensor), tensor.dtype, tensor.scheme)
        return self._real[tensor.index]

    def dequantized(self, value: Array, dtype: str, scheme: Scheme) -> str:
        """Return the real numbers of a quantized constant, which stays small in the file."""
        if dtype == "int64" or (dtype == "int16" and self.opset < OPSET_OF_16_BITS):
            return self.constant(real_values(value, scheme))
        return self._dequantize(self.constant(value), dtype, scheme)

    def _dequantize(self, value: str, dtype: str, scheme: Scheme) -> str:
        inputs = [value, *self._quantization(dtype, scheme)]
        if dtype in ("int32", "int64"):
            if np.any(scheme.zero_point):
                raise UnsupportedError(f"{dtype} values with a zero point")
            inputs = inputs[:2]
            if dtype == "int64":
                value = self.node("Cast", [value], {"to": _onnx_type("float32")})
                return self.node("Mul", [value, inputs[1]])
        return self.node("DequantizeLinear", inputs, {"axis": scheme.axis} if scheme.is_per_axis else {})

    def _quantization(self, dtype: str, scheme: Scheme) -> list[str]:
        kind = np.dtype("int8" if dtype == "int4" else dtype)
        limits = np.iinfo(kind.name)
        if np.any(scheme.zero_point < limits.min) or np.any(scheme.zero_point > limits.max):
            raise IntegrityError(f"a zero point is outside {dtype}.")
        scale, zero = scheme.scale, scheme.zero_point.astype(kind)
        if not scheme.is_per_axis:
            scale, zero = scale.reshape(()), zero.reshape(())
        return [self.constant(scale), self.constant(zero)]

    # What a handler writes.

    def constant(self, array: Array, *, label: str = "") -> str:
        """Return a value that holds `array`; equal small arrays are one value."""
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 64 else None
        if key is not None and key in self._shared:
            return self._shared[key]
        name = self._fresh("c")
        self._constants[name] = array
        if label:
            self._labels[name] = label
        if key is not None:
            self._shared[key] = name
        return name

    def integers(self, values: Sequence[int]) -> str:
        """Return an int64 constant [n]."""
        return self.constant(np.asarray(values, dtype=np.int64))

    def scalar(self, value: float, dtype: str = "float32") -> str:
        """Return a constant of rank 0."""
        return self.constant(np.asarray(value, dtype=dtype))

    def node(self, op: str, inputs: Sequence[str], attributes: Mapping[str, Attribute] | None = None) -> str:
        """Add a node with one output and return it."""
        return self.nodes(op, inputs, 1, attributes)[0]

    def nodes(
        self, op: str, inputs: Sequence[str], count: int, attributes: Mapping[str, Attribute] | None = None
    ) -> tuple[str, ...]:
        """Add a node with `count` outputs and return them."""
        outputs = tuple(self._fresh("v") for _ in range(count))
        self._nodes.append(
            Node(op=op, inputs=tuple(inputs), outputs=outputs, attributes=dict(attributes or {}))
        )
        return outputs

    def cast(self, value: str, dtype: str) -> str:
        """Return `value` as `dtype`."""
        return self.node("Cast", [value], {"to": _onnx_type(dtype)})

    def transposed(self, value: str, axes: Sequence[int]) -> str:
        """Return `value` with its axes in the order `axes`; a constant is moved here, not when the model runs."""
        if value in self._constants:
            return self.constant(np.ascontiguousarray(self._constants[value].transpose(axes)))
        return self.node("Transpose", [value], {"perm": tuple(axes)})

    def reshaped(self, value: str, shape: Shape) -> str:
        """Return `value` with `shape`, of which one size may be open.

        Raises:
            UnsupportedError: more than one is.
        """
        if value in self._constants and None not in shape:
            return self.constant(self._constants[value].reshape([int(size or 0) for size in shape]))
        if sum(size is None for size in shape) > 1:
            raise UnsupportedError("more than one dimension depends on the batch")
        if 0 in shape:
            return self.node("Reshape", [value, self.integers([_given(s) for s in shape])], {"allowzero": 1})
        return self.node("Reshape", [value, self.integers([_given(size) for size in shape])])

    def reduced(self, op: str, value: str, axes: Sequence[int], *, keep: bool) -> str:
        """Return `value` reduced over `axes`; the opset decides where the axes go."""
        if op == "ReduceSum" or self.opset >= 18:
            return self.node(op, [value, self.integers(axes)], {"keepdims": int(keep)})
        return self.node(op, [value], {"axes": tuple(axes), "keepdims": int(keep)})

    def sliced(
        self,
        value: str,
        starts: Sequence[int],
        ends: Sequence[int],
        axes: Sequence[int],
        steps: Sequence[int],
    ) -> str:
        """Return a slice of `value`."""
        return self.node("Slice", [value, *(self.integers(part) for part in (starts, ends, axes, steps))])

    def activated(self, value: str, code: int, tensor: Tensor) -> str:
        """Return `value` after the fused activation `code` of an operator that makes `tensor`."""
        if code not in _ACTIVATIONS:
            raise IntegrityError(f"activation {code} does not exist.")
        name = _ACTIVATIONS[code]
        if name == "TANH":
            return self.node("Tanh", [value])
        if name == "SIGN_BIT":
            raise UnsupportedError("the fused activation SIGN_BIT")
        return self.clipped(value, name, tensor) if name else value

    def clipped(self, value: str, kind: str, tensor: Tensor) -> str:
        """Return `value` after RELU or one of its kin; nothing where the integers of `tensor` already end there."""
        low, high = _CLIPS[kind]
        if (
            tensor.scheme is not None
            and not tensor.scheme.is_per_axis
            and tensor.dtype in ("int8", "uint8", "int16")
        ):
            scale, zero = float(tensor.scheme.scale[0]), int(tensor.scheme.zero_point[0])
            least, most = tensor.limits
            if round(low / scale) + zero <= least and (high is None or round(high / scale) + zero >= most):
                return value
        if high is None:
            return self.node("Relu", [value])
        return self.node("Clip", [value, self.scalar(low), self.scalar(high)])

    def put(self, tensor: Tensor, value: str) -> None:
        """Say that the real numbers `value` are `tensor`; a quantized tensor is rounded to its integers."""
        if tensor.scheme is None or tensor.dtype not in ("int8", "uint8", "int16"):
            self.put_stored(tensor, value)
            return
        if self._is_made_unsigned(tensor):
            self._put_unsigned(tensor, value)
            if tensor.index not in self.model.outputs:
                return
        inputs = [value, *self._quantization(tensor.dtype, tensor.scheme)]
        axis: dict[str, Attribute] = {"axis": tensor.scheme.axis} if tensor.scheme.is_per_axis else {}
        self._labels[value] = f"{tensor.name}_real"
        self.put_stored(tensor, self.node("QuantizeLinear", inputs, axis))

    def _is_made_unsigned(self, tensor: Tensor) -> bool:
        """int8 between operators becomes uint8: the same steps, counted from 0 instead of -128.

        On x86 ONNX Runtime does so itself, but only for values with one reader, and an operator between an int8 and a
        uint8 value is not fused: ResNet-8 took 1000 us that way.
        """
        return (
            tensor.dtype == "int8"
            and tensor.value is None
            and tensor.scheme is not None
            and not tensor.scheme.is_per_axis
            and not self._is_severed
        )

    def _put_unsigned(self, tensor: Tensor, value: str) -> None:
        assert tensor.scheme is not None
        scheme = replace(tensor.scheme, zero_point=tensor.scheme.zero_point + 128)
        made = self.node("QuantizeLinear", [value, *self._quantization("uint8", scheme)])
        self._labels[value] = f"{tensor.name}_real"
        self._labels[made] = tensor.name
        self._unsigned[tensor.index] = (made, scheme)

    def ordered(self, tensor: Tensor) -> str:
        """Return numbers in the order of those that `tensor` stands for, as it is stored in the ONNX graph."""
        return self._unsigned[tensor.index][0] if tensor.index in self._unsigned else self.stored(tensor)

    def put_stored(self, tensor: Tensor, value: str) -> None:
        """Say that `value` is what `tensor` stores."""
        self._stored[tensor.index] = value
        self._real.pop(tensor.index, None)
        if self._is_severed:
            self._results[tensor.index] = value
            return
        if value not in self._constants and value not in self._input_names:
            self._labels[value] = tensor.name

    def _fresh(self, kind: str) -> str:
        while True:
            self._count += 1
            name = f"{kind}{self._count}"
            if name not in self._input_names and name not in self._output_names:
                return name

    def finish(self) -> Graph:
        """Return the graph; its inputs and outputs have their names."""
        nodes = list(self._nodes)
        given: dict[str, str] = {}
        extra: list[Node] = []
        made = {name for node in nodes for name in node.outputs}
        for index, name in zip(self.model.outputs, self._output_names, strict=True):
            value = self.stored(self.model.tensors[index])
            if value in made and value not in given:
                given[value] = name
            else:
                extra.append(Node(op="Identity", inputs=(value,), outputs=(name,)))
        renamed = [
            replace(
                node,
                inputs=tuple(given.get(name, name) for name in node.inputs),
                outputs=tuple(given.get(name, name) for name in node.outputs),
            )
            for node in (*nodes, *extra)
        ]
        return Graph(
            nodes=tuple(renamed),
            constants=dict(self._constants),
            inputs=self._ports(self.model.inputs, self._input_names),
            outputs=self._ports(self.model.outputs, self._output_names),
            labels={value: label for value, label in self._labels.items() if value not in given},
            opset=self.opset,
        )

    def severed(self, fed: Mapping[int, Array]) -> tuple[Graph, dict[int, str], dict[int, str]]:
        """Return a severed graph for tensors of these shapes, its inputs and its outputs: tensor -> name."""
        results = {index: f"made{index}" for index in self._results}
        last = [
            Node(op="Identity", inputs=(value,), outputs=(results[index],))
            for index, value in self._results.items()
        ]
        ports = [
            Port(name=name, shape=fed[index].shape, dtype=str(fed[index].dtype))
            for index, name in self._fed.items()
        ]
        made = [
            Port(name=name, shape=fed[index].shape, dtype=str(fed[index].dtype))
            for index, name in results.items()
        ]
        graph = Graph(
            nodes=(*self._nodes, *last),
            constants=dict(self._constants),
            inputs=tuple(ports),
            outputs=tuple(made),
            labels={},
            opset=self.opset,
        )
        return graph, dict(self._fed), results

    def _ports(self, indices: Sequence[int], names: Sequence[str]) -> tuple[Port, ...]:
        tensors = [self.model.tensors[index] for index in indices]
        return tuple(
            Port(name=name, shape=tensor.shape, dtype=tensor.dtype)
            for name, tensor in zip(names, tensors, strict=True)
        )


def real_values(value: Array, scheme: Scheme) -> Array:
    """Return the float32 numbers that quantized values stand for."""
    shape = [-1 if scheme.is_per_axis and axis == scheme.axis else 1 for axis in range(value.ndim)]
    scale, zero = scheme.scale.reshape(shape), scheme.zero_point.reshape(shape)
    real: Array = ((value.astype(np.int64) - zero) * scale.astype(np.float64)).astype(np.float32)
    return real


def sizes(shape: Shape, axes: Sequence[int]) -> list[int]:
    """Return the sizes of `axes`.

    Raises:
        UnsupportedError: one depends on the batch.
    """
    found = [shape[axis] for axis in axes]
    known = [size for size in found if size is not None]
    if len(known) != len(found):
        raise UnsupportedError("a size depends on the batch where it must be fixed")
    return known


def axis_of(axis: int, rank: int) -> int:
    """Return `axis` counted from the front.

    Raises:
        IntegrityError: there is no such axis.
    """
    if not -rank <= axis < max(rank, 1):
        raise IntegrityError(f"axis {axis} of a tensor of rank {rank}.")
    return axis % rank if rank else 0


def _given(size: int | None) -> int:
    return -1 if size is None else size


def _onnx_type(dtype: str) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
