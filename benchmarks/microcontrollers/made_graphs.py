"""Generated graphs of two to eight operators: chains and branches, residuals, views, several inputs and outputs.

What they test is what one operator cannot: lifetimes in the arena, results over inputs, memory that is seen under two
shapes, outputs that are used on, inputs that are outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from made_draws import Draw, int8s, scale_of, zero_of
from made_models import WIDE_LEVELS, Maker

_ACTIVATIONS = (0, 0, 1, 3)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A tensor of the graph, with the scale of its int8 version."""

    index: int
    shape: tuple[int, ...]
    scale: float
    zero: int


def graph(draw: Draw, path: Path) -> None:
    """A random graph."""
    grower = Grower(draw)
    for _ in range(int(draw.integers(1, 4))):
        grower.feed()
    wanted = int(draw.integers(2, 9))
    while grower.count < wanted:
        grower.grow()
    grower.write(path)


class Grower:
    """A graph that grows operator by operator."""

    def __init__(self, draw: Draw) -> None:
        self.count = 0
        self._draw = draw
        self._made = Maker()
        self._inputs: list[Node] = []
        self._nodes: list[Node] = []
        self._used: set[int] = set()

    def feed(self) -> None:
        """Add an input."""
        shape = tuple(int(self._draw.integers(1, high)) for high in (2, 7, 7, 6))
        node = self._node(shape, scale_of(self._draw), zero_of(self._draw))
        self._inputs.append(node)

    def grow(self) -> None:
        """Add an operator on tensors that are there, or two where the first one makes the second possible."""
        ways: list[Callable[[Node], None]] = [
            self._join, self._join, self._concatenate, self._split, self._reshape, self._gate, self._relu,
            self._leaky, self._transpose, self._slice, self._quantize, self._extreme,
        ]  # fmt: skip
        node = self._some()
        if len(node.shape) == 4:
            ways += [
                self._convolve,
                self._convolve,
                self._depthwise,
                self._pool,
                self._pad,
                self._mean,
                self._resize,
            ]
        else:
            ways += [self._connect, self._connect, self._softmax]
        ways[int(self._draw.integers(0, len(ways)))](node)

    def write(self, path: Path) -> None:
        """Write the model: what nothing reads is an output, and some other tensors are, too."""
        ends = [node for node in self._nodes if node.index not in self._used and node not in self._inputs]
        others = [node for node in self._nodes if node not in ends]
        ends += [node for node in others if self._draw.random() < 0.12]
        order = self._draw.permutation(len(ends))
        self._made.write(path, [one.index for one in self._inputs], [ends[i].index for i in order])

    def _some(self) -> Node:
        # The latest ones are likelier: graphs become long.
        last = len(self._nodes)
        return self._nodes[max(0, last - 1 - int(self._draw.geometric(0.5)) + 1)]

    def _node(self, shape: tuple[int, ...], scale: float, zero: int) -> Node:
        node = Node(
            index=self._made.tensor(shape, scale=scale, zero=zero), shape=shape, scale=scale, zero=zero
        )
        self._nodes.append(node)
        return node

    def _operator(
        self, name: str, inputs: list[int], outputs: list[Node], table: str = "", **options: object
    ) -> None:
        self._made.operator(
            name, inputs, [one.index for one in outputs], table=table, options=options, version=2
        )
        self._used.update(inputs)
        self.count += 1

    def _scheme(self) -> tuple[float, int]:
        return float(np.exp(self._draw.uniform(-4, -1))), zero_of(self._draw)

    def _convolve(self, x: Node) -> None:
        self._window(x, is_depthwise=False)

    def _depthwise(self, x: Node) -> None:
        self._window(x, is_depthwise=True)

    def _window(self, x: Node, *, is_depthwise: bool) -> None:
        draw, (n, h, w, depth) = self._draw, x.shape
        kernel, stride = int(draw.integers(1, 4)), int(draw.integers(1, 3))
        channels = depth if is_depthwise else int(draw.integers(1, 8))
        shape = (1, kernel, kernel, depth) if is_depthwise else (channels, kernel, kernel, depth)
        scales = [float(draw.uniform(0.002, 0.02)) for _ in range(channels)]
        weights = self._made.tensor(
            shape, scale=scales, axis=3 if is_depthwise else 0, value=int8s(draw, shape)
        )
        bias = self._made.tensor(
            (channels,), "int32", scale=[x.scale * s for s in scales], value=draw.integers(-3000, 3000, channels)
        )  # fmt: skip
        scale = float(x.scale * np.sqrt(kernel * kernel * depth) * draw.uniform(0.2, 1.5))
        y = self._node((n, -(-h // stride), -(-w // stride), channels), scale, zero_of(draw))
        options: dict[str, object] = {
            "padding": 0, "strideW": stride, "strideH": stride, "dilationWFactor": 1, "dilationHFactor": 1,
            "fusedActivationFunction": int(draw.choice(_ACTIVATIONS)),
        }  # fmt: skip
        name, table = ("DEPTHWISE_CONV_2D", "Depthwise") if is_depthwise else ("CONV_2D", "")
        if is_depthwise:
            options["depthMultiplier"] = 1
        self._operator(name, [x.index, weights, bias], [y], f"{table}Conv2DOptions", **options)

    def _connect(self, x: Node) -> None:
        draw, (rows, depth) = self._draw, x.shape
        channels = int(draw.integers(1, 10))
        scale = float(draw.uniform(0.002, 0.02))
        weights = self._made.tensor((channels, depth), scale=scale, value=int8s(draw, (channels, depth)))
        y = self._node(
            (rows, channels), float(x.scale * np.sqrt(depth) * draw.uniform(0.2, 1.5)), zero_of(draw)
        )
        activation = int(draw.choice(_ACTIVATIONS))
        self._operator(
            "FULLY_CONNECTED", [x.index, weights, -1], [y], "FullyConnectedOptions", fusedActivationFunction=activation
        )  # fmt: skip

    def _pool(self, x: Node) -> None:
        n, h, w, depth = x.shape
        kernel, stride = int(self._draw.integers(1, 4)), int(self._draw.integers(1, 3))
        y = self._node((n, -(-h // stride), -(-w // stride), depth), x.scale, x.zero)
        name = str(self._draw.choice(["AVERAGE_POOL_2D", "MAX_POOL_2D"]))
        self._operator(
            name, [x.index], [y], "Pool2DOptions",
            padding=0, strideW=stride, strideH=stride, filterWidth=kernel, filterHeight=kernel,
        )  # fmt: skip

    def _pad(self, x: Node) -> None:
        around = np.zeros((4, 2), dtype=np.int32)
        around[1:3] = self._draw.integers(0, 3, (2, 2))
        p = self._made.tensor((4, 2), "int32", value=around)
        shape = tuple(int(size + sum(pair)) for size, pair in zip(x.shape, around, strict=True))
        self._operator("PAD", [x.index, p], [self._node(shape, x.scale, x.zero)], "PadOptions")

    def _mean(self, x: Node) -> None:
        axes = self._made.tensor((2,), "int32", value=np.array([1, 2]))
        y = self._node((x.shape[0], 1, 1, x.shape[3]), *self._scheme())
        self._operator("MEAN", [x.index, axes], [y], "ReducerOptions", keepDims=True)

    def _resize(self, x: Node) -> None:
        size = self._draw.integers(1, 9, 2)
        s = self._made.tensor((2,), "int32", value=size)
        y = self._node((x.shape[0], int(size[0]), int(size[1]), x.shape[3]), x.scale, x.zero)
        self._operator("RESIZE_NEAREST_NEIGHBOR", [x.index, s], [y], "ResizeNearestNeighborOptions")

    def _join(self, x: Node) -> None:
        """A sum, difference or product with another tensor of this shape, with itself, or with one value a channel."""
        name = str(self._draw.choice(["ADD", "ADD", "SUB", "MUL"]))
        fits = [
            one for one in self._nodes
            if one.shape == x.shape or one.shape == (*(1,) * (len(x.shape) - 1), x.shape[-1])
        ]  # fmt: skip
        other = fits[int(self._draw.integers(0, len(fits)))]
        scale = x.scale * other.scale * 100 if name == "MUL" else 2 * max(x.scale, other.scale)
        y = self._node(x.shape, float(scale * self._draw.uniform(0.4, 1.2)), zero_of(self._draw))
        activation = int(self._draw.choice(_ACTIVATIONS))
        table = f"{name.capitalize()}Options"
        self._operator(name, [x.index, other.index], [y], table, fusedActivationFunction=activation)

    def _extreme(self, x: Node) -> None:
        fits = [one for one in self._nodes if (one.shape, one.scale, one.zero) == (x.shape, x.scale, x.zero)]
        other = fits[int(self._draw.integers(0, len(fits)))]
        name = str(self._draw.choice(["MAXIMUM", "MINIMUM"]))
        y = self._node(x.shape, x.scale, x.zero)
        self._operator(name, [x.index, other.index], [y], "MaximumMinimumOptions")

    def _concatenate(self, x: Node) -> None:
        fits = [one for one in self._nodes if one.shape[:-1] == x.shape[:-1]]
        parts = [x]
        for _ in range(int(self._draw.integers(1, 3))):
            other = fits[int(self._draw.integers(0, len(fits)))]
            if (other.scale, other.zero) != (x.scale, x.zero):
                other = self._requantized(other, x.scale, x.zero)
            parts.append(other)
        y = self._node((*x.shape[:-1], sum(one.shape[-1] for one in parts)), x.scale, x.zero)
        inputs = [one.index for one in parts]
        self._operator("CONCATENATION", inputs, [y], "ConcatenationOptions", axis=len(x.shape) - 1)

    def _split(self, x: Node) -> None:
        axis = int(self._draw.integers(0, len(x.shape)))
        count = next(count for count in (3, 2, 1) if x.shape[axis] % count == 0)
        part = (*x.shape[:axis], x.shape[axis] // count, *x.shape[axis + 1 :])
        a = self._made.tensor((), "int32", value=np.array(axis))
        outputs = [self._node(part, x.scale, x.zero) for _ in range(count)]
        self._operator("SPLIT", [a, x.index], outputs, "SplitOptions", numSplits=count)

    def _reshape(self, x: Node) -> None:
        """A view: to two axes, or back to four."""
        size = int(np.prod(x.shape))
        shape = (1, size) if len(x.shape) == 4 else (1, 1, x.shape[0], x.shape[1])
        if len(x.shape) == 4 and self._draw.random() < 0.5:
            shape = (size // x.shape[3], x.shape[3])
        s = self._made.tensor((len(shape),), "int32", value=np.array(shape))
        self._operator(
            "RESHAPE",
            [x.index, s],
            [self._node(shape, x.scale, x.zero)],
            "ReshapeOptions",
            newShape=list(shape),
        )

    def _transpose(self, x: Node) -> None:
        order = self._draw.permutation(len(x.shape))
        p = self._made.tensor(order.shape, "int32", value=order)
        y = self._node(tuple(x.shape[axis] for axis in order), x.scale, x.zero)
        self._operator("TRANSPOSE", [x.index, p], [y], "TransposeOptions")

    def _slice(self, x: Node) -> None:
        begin = [int(self._draw.integers(0, size)) for size in x.shape]
        size = [int(self._draw.integers(1, s - b + 1)) for s, b in zip(x.shape, begin, strict=True)]
        given = [self._made.tensor((len(begin),), "int32", value=np.array(one)) for one in (begin, size)]
        y = self._node(tuple(size), x.scale, x.zero)
        self._operator("SLICE", [x.index, *given], [y], "SliceOptions")

    def _gate(self, x: Node) -> None:
        name = str(self._draw.choice(["LOGISTIC", "TANH"]))
        scale, zero = (1 / 256, -128) if name == "LOGISTIC" else (1 / 128, 0)
        if self._made.is_wide:
            scale = 2.0**-15 * WIDE_LEVELS
        self._operator(name, [x.index], [self._node(x.shape, scale, zero)])

    def _relu(self, x: Node) -> None:
        self._operator("RELU", [x.index], [self._node(x.shape, *self._scheme())])

    def _leaky(self, x: Node) -> None:
        self._operator(
            "LEAKY_RELU", [x.index], [self._node(x.shape, *self._scheme())], "LeakyReluOptions", alpha=0.1
        )

    def _quantize(self, x: Node) -> None:
        self._requantized(x, *self._scheme())

    def _requantized(self, x: Node, scale: float, zero: int) -> Node:
        if self._made.is_float:
            return x
        y = self._node(x.shape, scale, zero)
        self._operator("QUANTIZE", [x.index], [y], "QuantizeOptions")
        return y

    def _softmax(self, x: Node) -> None:
        if self._made.is_wide:
            y = self._node(x.shape, 2.0**-15 * WIDE_LEVELS, 0)
        else:
            y = self._node(x.shape, 1 / 256, -128)
        self._operator("SOFTMAX", [x.index], [y], "SoftmaxOptions", beta=1.0)
