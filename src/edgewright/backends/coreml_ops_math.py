"""Core ML operators on single elements and along axes: arithmetic, activations, comparisons, reductions, casts.

Formulas are those of the MIL operator documentation (coremltools, iOS 15 to 18).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy import special

from edgewright.backends.coreml_call import Call, Floats, Integers, Operator, axis_of, computable, limit
from edgewright.core.tensors import Array

_CASTS: Mapping[str, str] = {
    "fp16": "float16",
    "fp32": "float32",
    "bool": "bool",
    "int8": "int8",
    "uint8": "uint8",
    "int16": "int16",
    "uint16": "uint16",
    "int32": "int32",
}


def _unary(formula: Callable[[Floats], Array]) -> Operator:
    return lambda call: formula(call.floats("x"))


def _unary_with_integers(formula: Callable[[Floats], Array]) -> Operator:
    return lambda call: formula(computable(call.array("x")))


def _binary(formula: Callable[[Floats, Floats], Array]) -> Operator:
    def run(call: Call) -> Array:
        x, y = call.array("x"), call.array("y")
        if x.dtype != y.dtype:
            raise call.refuse(f"has an x of {x.dtype} and a y of {y.dtype}; both must be one type")
        limit(np.broadcast_shapes(x.shape, y.shape))
        return np.asarray(formula(computable(x), computable(y)))

    return run


def _real_div(x: Floats, y: Floats) -> Array:
    return np.asarray(np.true_divide(x, y), np.float32)


def sigmoid(x: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return np.asarray(special.expit(x), np.float32)


def _softplus(x: Floats) -> Floats:
    return np.asarray(np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0), np.float32)


def _silu(x: Floats) -> Array:
    return np.asarray(x * sigmoid(x))


def _exact_erf(x: Floats) -> Array:
    return np.asarray(special.erf(x), np.float32)


def _gelu(call: Call) -> Array:
    x = call.floats("x")
    mode = call.text("mode", "EXACT")
    half, one = np.float32(0.5), np.float32(1.0)
    if mode == "EXACT":
        return np.asarray(half * x * (one + special.erf(x / np.float32(np.sqrt(2.0)))))
    if mode == "TANH_APPROXIMATION":
        inner = np.float32(np.sqrt(2.0 / np.pi)) * (x + np.float32(0.044715) * x * x * x)
        return np.asarray(half * x * (one + np.tanh(inner)))
    if mode == "SIGMOID_APPROXIMATION":
        return np.asarray(x * sigmoid(np.float32(1.702) * x))
    raise call.refuse(f"has the unknown mode {mode!r}")


def _per_channel(values: Floats, x: Floats) -> Floats:
    """Return a vector of the channels (axis 1) shaped to broadcast with `x`; a scalar stays one."""
    if values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if axis == 1 else 1 for axis in range(x.ndim)])


def _prelu(call: Call) -> Array:
    x = call.floats("x")
    return np.asarray(np.where(x >= 0, x, x * _per_channel(call.floats("alpha"), x)))


def _softplus_parametric(call: Call) -> Array:
    x = call.floats("x")
    return np.asarray(
        _per_channel(call.floats("alpha"), x) * _softplus(x * _per_channel(call.floats("beta"), x))
    )


def _leaky_relu(call: Call) -> Array:
    x = call.floats("x")
    return np.asarray(np.where(x >= 0, x, x * call.number("alpha")))


def _elu(call: Call) -> Array:
    x = call.floats("x")
    return np.asarray(np.where(x >= 0, x, call.number("alpha") * np.expm1(np.minimum(x, 0))))


def _clamped_relu(call: Call) -> Array:
    x = call.floats("x")
    return np.asarray(np.minimum(np.where(x >= 0, x, x * call.number("alpha")), call.number("beta")))


def _linear_activation(call: Call) -> Array:
    return np.asarray(call.number("alpha") * call.floats("x") + call.number("beta"))


def _scaled_tanh(call: Call) -> Array:
    return np.asarray(call.number("alpha") * np.tanh(call.number("beta") * call.floats("x")))


def _sigmoid_hard(call: Call) -> Array:
    return np.clip(call.number("alpha") * call.floats("x") + call.number("beta"), 0, 1)


def _thresholded_relu(call: Call) -> Array:
    x = call.floats("x")
    return np.where(x >= call.number("alpha"), x, np.float32(0))


def _softmax(call: Call) -> Array:
    x = call.floats("x")
    return softmax(x, axis_of(call.integer("axis", -1), x.ndim))


def softmax(x: Floats, axis: int) -> Floats:
    """Return exp(x - max) / sum of it along `axis`."""
    raised = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(raised / raised.sum(axis=axis, keepdims=True), np.float32)


def _clip(call: Call) -> Array:
    return np.asarray(np.minimum(np.maximum(call.floats("x"), call.number("alpha")), call.number("beta")))


def _threshold(call: Call) -> Array:
    x = computable(call.array("x"))
    return np.asarray(np.maximum(x, computable(call.array("alpha")).astype(x.dtype)))


def _with_epsilon(formula: Callable[[Floats], Array], default: float) -> Operator:
    return lambda call: formula(np.asarray(call.floats("x") + call.number("epsilon", default), np.float32))


def _cast(call: Call) -> Array:
    name = call.text("dtype")
    if name not in _CASTS:
        raise call.refuse(f"makes the unknown type {name!r}")
    return np.asarray(call.array("x").astype(_CASTS[name]))


def _select(call: Call) -> Array:
    condition, a, b = call.array("cond"), call.array("a"), call.array("b")
    limit(np.broadcast_shapes(condition.shape, a.shape, b.shape))
    return np.where(condition.astype(bool), a, b)


def _along_axis(vector: Floats, x: Array, call: Call) -> Floats:
    """Return a scalar as it is, a vector shaped to broadcast along the argument `axis` of `x`."""
    if vector.ndim == 0 or not call.has("axis"):
        return vector.reshape(())
    axis = axis_of(call.integer("axis"), x.ndim)
    return vector.reshape([-1 if place == axis else 1 for place in range(x.ndim)])


def _quantize(call: Call) -> Array:
    """clip(round(input / scale) + zero_point); halves are rounded to even."""
    x = call.floats("input")
    name = call.text("output_dtype")
    if name not in ("int8", "uint8"):
        raise call.refuse(f"makes {name!r}; int8 and uint8 are quantized types")
    bounds = np.iinfo(name)
    steps = np.asarray(np.round(x / _along_axis(call.floats("scale"), x, call)))
    if call.has("zero_point"):
        steps = steps + _along_axis(call.array("zero_point").astype(np.float32), x, call)
    return np.asarray(np.clip(steps, bounds.min, bounds.max), name)


def _dequantize(call: Call) -> Array:
    """scale * (input - zero_point)"""
    data = call.array("input")
    difference = data.astype(np.float32)  # exact: these are integers of 8 bits
    if call.has("zero_point"):
        difference = difference - _along_axis(call.array("zero_point").astype(np.float32), data, call)
    return np.asarray(difference * _along_axis(call.floats("scale"), data, call))


def _reduction(formula: Callable[[Floats, tuple[int, ...], bool], Array]) -> Operator:
    def run(call: Call) -> Array:
        x = computable(call.array("x"))
        axes = call.integers("axes", range(x.ndim)) or range(x.ndim)
        chosen = tuple(sorted({axis_of(axis, x.ndim) for axis in axes}))
        result = formula(x, chosen, call.flag("keep_dims", False))
        return np.asarray(result, x.dtype)

    return run


def _log_sum_exp(x: Floats, axes: tuple[int, ...], keeps: bool) -> Array:
    return np.asarray(special.logsumexp(x, axis=axes, keepdims=keeps))


def _arg(find: Callable[[Array, int], Array]) -> Operator:
    def run(call: Call) -> Array:
        x = call.array("x")
        axis = axis_of(call.integer("axis", -1), x.ndim)
        found = find(x, axis)
        return np.expand_dims(found, axis) if call.flag("keep_dims", False) else np.asarray(found)

    return run


def _cumsum(call: Call) -> Array:
    x = computable(call.array("x"))
    axis = axis_of(call.integer("axis", 0), x.ndim)
    is_reversed = call.flag("reverse", False)
    ordered = np.flip(x, axis) if is_reversed else x
    sums = np.cumsum(ordered, axis=axis, dtype=x.dtype)
    if call.flag("exclusive", False):
        sums = sums - ordered
    return np.flip(sums, axis) if is_reversed else sums


def _order(x: Array, axis: int, *, is_ascending: bool) -> Integers:
    """Return the positions that sort `x`; among equals the first position comes first."""
    wide = x.astype(np.float64 if x.dtype.kind == "f" else np.int64)
    return np.asarray(np.argsort(wide if is_ascending else -wide, axis=axis, kind="stable"), np.int64)


def _argsort(call: Call) -> Array:
    x = call.array("x")
    axis = axis_of(call.integer("axis", -1), x.ndim)
    return _order(x, axis, is_ascending=call.flag("ascending", False))


def _topk(call: Call) -> tuple[Array, ...]:
    x = call.array("x")
    axis = axis_of(call.integer("axis", -1), x.ndim)
    k = call.integer("k", 1)
    if not 0 <= k <= x.shape[axis]:
        raise call.refuse(f"asks for {k} of {x.shape[axis]} values")
    order = _order(x, axis, is_ascending=call.flag("ascending", False))
    chosen = np.take(order, np.arange(k), axis=axis)
    values = np.take_along_axis(x, chosen, axis=axis)
    return (values, chosen) if call.output_count > 1 else (values,)


OPERATORS: dict[str, Operator] = {
    "abs": _unary_with_integers(np.abs),
    "acos": _unary(np.arccos),
    "add": _binary(np.add),
    "argsort": _argsort,
    "asin": _unary(np.arcsin),
    "atan": _unary(np.arctan),
    "atanh": _unary(np.arctanh),
    "cast": _cast,
    "ceil": _unary(np.ceil),
    "clamped_relu": _clamped_relu,
    "clip": _clip,
    "cos": _unary(np.cos),
    "cosh": _unary(np.cosh),
    "cumsum": _cumsum,
    "dequantize": _dequantize,
    "elu": _elu,
    "equal": _binary(np.equal),
    "erf": _unary(_exact_erf),
    "exp": _unary(np.exp),
    "exp2": _unary(np.exp2),
    "floor": _unary(np.floor),
    "floor_div": _binary(np.floor_divide),
    "gelu": _gelu,
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "inverse": _with_epsilon(lambda x: np.asarray(1 / x), 1e-4),
    "leaky_relu": _leaky_relu,
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "linear_activation": _linear_activation,
    "log": _with_epsilon(np.log, 1e-45),
    "logical_and": _binary(np.logical_and),
    "logical_not": lambda call: np.logical_not(call.array("x")),
    "logical_or": _binary(np.logical_or),
    "logical_xor": _binary(np.logical_xor),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "mod": _binary(np.mod),
    "mul": _binary(np.multiply),
    "not_equal": _binary(np.not_equal),
    "pow": _binary(np.power),
    "prelu": _prelu,
    "quantize": _quantize,
    "real_div": _binary(_real_div),
    "reduce_argmax": _arg(lambda x, axis: np.argmax(x, axis=axis)),
    "reduce_argmin": _arg(lambda x, axis: np.argmin(x, axis=axis)),
    "reduce_l1_norm": _reduction(lambda x, axes, keeps: np.abs(x).sum(axis=axes, keepdims=keeps)),
    "reduce_l2_norm": _reduction(lambda x, axes, keeps: np.sqrt(np.square(x).sum(axis=axes, keepdims=keeps))),
    "reduce_log_sum": _reduction(lambda x, axes, keeps: np.log(x.sum(axis=axes, keepdims=keeps))),
    "reduce_log_sum_exp": _reduction(_log_sum_exp),
    "reduce_max": _reduction(lambda x, axes, keeps: x.max(axis=axes, keepdims=keeps)),
    "reduce_mean": _reduction(lambda x, axes, keeps: x.mean(axis=axes, keepdims=keeps)),
    "reduce_min": _reduction(lambda x, axes, keeps: x.min(axis=axes, keepdims=keeps)),
    "reduce_prod": _reduction(lambda x, axes, keeps: x.prod(axis=axes, keepdims=keeps)),
    "reduce_sum": _reduction(lambda x, axes, keeps: x.sum(axis=axes, keepdims=keeps)),
    "reduce_sum_square": _reduction(lambda x, axes, keeps: np.square(x).sum(axis=axes, keepdims=keeps)),
    "relu": _unary(lambda x: np.maximum(x, np.float32(0))),
    "relu6": _unary(lambda x: np.clip(x, 0, 6)),
    "round": _unary(np.round),
    "rsqrt": _with_epsilon(lambda x: np.asarray(1 / np.sqrt(x)), 1e-12),
    "scaled_tanh": _scaled_tanh,
    "select": _select,
    "sigmoid": _unary(sigmoid),
    "sigmoid_hard": _sigmoid_hard,
    "sign": _unary_with_integers(np.sign),
    "silu": _unary(_silu),
    "sin": _unary(np.sin),
    "sinh": _unary(np.sinh),
    "softmax": _softmax,
    "softplus": _unary(_softplus),
    "softplus_parametric": _softplus_parametric,
    "softsign": _unary(lambda x: np.asarray(x / (1 + np.abs(x)))),
    "sqrt": _unary(np.sqrt),
    "square": _unary_with_integers(np.square),
    "sub": _binary(np.subtract),
    "tan": _unary(np.tan),
    "tanh": _unary(np.tanh),
    "threshold": _threshold,
    "thresholded_relu": _thresholded_relu,
    "topk": _topk,
}
