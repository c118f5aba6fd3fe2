"""Generated models of operators that work value by value, of one tensor or of several that are broadcast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from made_draws import Draw, int8s, scale_of, shape_of, zero_of
from made_models import Maker

Write = Callable[[Draw, Path], None]
ACTIVATIONS = (0, 0, 1, 2, 3)


def unary(
    name: str,
    dtype: str = "int8",
    result: str = "",
    *,
    scale: float = 0.0,
    zero: int | None = None,
    source_zero: int | None = None,
    power: bool = False,
    same: bool = False,
    squared: bool = False,
    table: str = "",
) -> Write:
    """Return a writer of models with one operator of one tensor.

    Args:
        result: type of the output, that of the input by default.
        scale, zero, source_zero: of the output, and of the input, where the operator fixes them.
        power: the input's scale is a power of two now and then.
        same: the output has the input's scale.
        squared: the operator is defined for positive values only; it gets a square.
    """

    def write(draw: Draw, path: Path) -> None:
        made = Maker()
        shape = tuple(int(draw.integers(1, 8)) for _ in range(int(draw.integers(1, 5))))
        x = quantized(made, draw, shape, dtype)
        in_scale, in_zero = made.scheme(x)
        if source_zero is not None:
            x = made.tensor(shape, dtype, scale=in_scale, zero=source_zero)
        if power and draw.random() < 0.5:
            in_scale = 2.0 ** -int(draw.integers(9, 15))
            x = made.tensor(shape, dtype, scale=in_scale)
        kind = result or dtype
        if kind in ("float32", "bool"):
            y = made.tensor(shape, kind)
        elif same:
            y = made.tensor(shape, kind, scale=in_scale, zero=in_zero)
        else:
            ratio = {"int8": 1.0, "int16": 1 / 256, "int32": 1 / 65536}
            real = scale or in_scale * ratio[kind] / ratio.get(dtype, 1.0) * float(
                np.exp(draw.uniform(-1, 1))
            )
            own = zero if zero is not None else zero_of(draw) if kind == "int8" else 0
            y = made.tensor(shape, kind, scale=real, zero=own)
        options: dict[str, object] = {}
        if name == "LEAKY_RELU":
            options = {"alpha": float(draw.uniform(0.01, 0.9))}
        given = x
        if squared:
            given = made.tensor(shape, dtype)
            made.operator("MUL", [x, x], [given], table="MulOptions")
        made.operator(name, [given], [y], table=table, options=options, version=2)
        made.write(path, [made.feeds.get(x, x)], [y])

    return write


def several(
    name: str,
    table: str,
    dtype: str = "int8",
    *,
    result: str = "",
    scaled: str = "sum",
    has_activation: bool = False,
    count: int = 2,
    kinds: Mapping[int, str] | None = None,
    constant: int = 1,
) -> Write:
    """Return a writer of models with one operator of several tensors, broadcast now and then.

    Args:
        result: type of the output, that of the first input by default.
        scaled: how large the output is: sum, product, ratio, square, or same (all have one scale).
        kinds: types of inputs that are not `dtype`.
        constant: which input is a constant now and then; -1 for none.
    """

    def write(draw: Draw, path: Path) -> None:
        made = Maker()
        shape = shape_of(draw)
        is_broadcast = draw.random() < 0.5
        shapes = [shape] * count
        for axis in range(len(shape)):
            if is_broadcast and draw.random() < 0.5:
                one = int(draw.integers(0, count))
                shapes[one] = (*shapes[one][:axis], 1, *shapes[one][axis + 1 :])
        if is_broadcast and shapes[-1][:1] == (1,) and len(shape) > 1 and draw.random() < 0.5:
            shapes[-1] = shapes[-1][1:]
        inputs, given = [], []
        scheme = (scale_of(draw), zero_of(draw) if dtype == "int8" else 0)
        for position, own in enumerate(shapes):
            kind = (kinds or {}).get(position, dtype)
            value = None
            if position == constant and draw.random() < 0.4:
                value = values_of(draw, own, kind)
            index = quantized(made, draw, own, kind, value, scheme if scaled == "same" else None)
            inputs.append(index)
            if value is None:
                given.append(made.feeds.get(index, index))
        kind = result or dtype
        whole = np.broadcast_shapes(*shapes)
        if kind in ("float32", "bool") or (kind == "int32" and dtype == "int32"):
            y = made.tensor(whole, kind)
        elif scaled == "same":
            y = made.tensor(
                whole, kind, scale=scheme[0] if kind == "int8" else scheme[0] / 256, zero=scheme[1]
            )
        else:
            left, right = made.scheme(inputs[0])[0], made.scheme(inputs[1])[0]
            levels = 100 if kind == "int8" else 25000
            real = {
                "sum": max(left, right), "product": left * right * levels, "ratio": left / right / 20,
                "square": max(left, right) ** 2 * levels * 2, "prelu": left,
            }[scaled]  # fmt: skip
            y = made.tensor(
                whole, kind, scale=float(real * np.exp(draw.uniform(-1, 1))),
                zero=zero_of(draw) if kind == "int8" else 0,
            )  # fmt: skip
        options = {"fusedActivationFunction": int(draw.choice(ACTIVATIONS))} if has_activation else {}
        made.operator(name, inputs, [y], table=table, options=options, version=2)
        made.write(path, given, [y])

    return write


def quantized(
    made: Maker,
    draw: Draw,
    shape: tuple[int, ...],
    dtype: str,
    value: np.ndarray | None = None,
    scheme: tuple[float, int] | None = None,
) -> int:
    """Add a tensor of `dtype` with a random scale, or with the given scale and zero point."""
    if dtype == "bool" and value is None:
        # No model takes booleans: they are made of numbers.
        x, zero = made.tensor(shape, "float32"), made.tensor((), "float32", value=np.zeros(()))
        y = made.tensor(shape, "bool")
        made.operator("GREATER", [x, zero], [y], table="GreaterOptions")
        made.feeds[y] = x
        return y
    if dtype in ("float32", "bool") or (dtype == "int32" and value is not None):
        return made.tensor(shape, dtype, value=value)
    scale, zero = scheme or (scale_of(draw), zero_of(draw))
    if dtype == "int8":
        return made.tensor(shape, dtype, scale=scale, zero=zero, value=value)
    return made.tensor(shape, dtype, scale=scale / {"int16": 256, "int32": 65536}[dtype], value=value)


def values_of(draw: Draw, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return random values of a constant."""
    if dtype == "int8":
        return int8s(draw, shape, -128)
    if dtype == "float32":
        return draw.uniform(-1, 1, shape).astype(np.float32)
    if dtype == "bool":
        return draw.random(shape) < 0.5
    return draw.integers(-32768, 32768, shape).astype(dtype)
