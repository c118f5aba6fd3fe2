"""C of the steps on any array, and of those from scores to classes."""

from __future__ import annotations

import math

import numpy as np

from edgewright.core.tensors import Array
from edgewright.processing.c_site import CValue, Site
from edgewright.processing.c_text import c_float
from edgewright.processing.scores import TopK
from edgewright.processing.step import Step, floats
from edgewright.processing.tensors import Cast, Dequantize, Quantize, Scale, Transpose
from edgewright.processing.values import ValueType

_TENSORS, _SCORES = "ew_tensors", "ew_scores"


def cast(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "cast"."""
    assert isinstance(step, Cast)
    (have,) = given
    if have.type.dtype == made.dtype:
        return site.alias(have, made)
    value = site.value(made, have)
    site.call("ew_cast", have, have.c_dtype, value, value.c_dtype, have.count, file=_TENSORS)
    return value


def scale(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "scale"."""
    assert isinstance(step, Scale)
    factor, offset = np.broadcast_arrays(floats(np.array(step.factor)), floats(np.array(step.offset)))
    return affine(site, given[0], made, factor, offset)


def affine(site: Site, have: CValue, made: ValueType, factor: Array, offset: Array) -> CValue:
    """Make the C of one product and one sum a value, of each channel or the same for all."""
    value = site.value(made, have)
    inner = math.prod(have.bound[1:]) if have.type.layout == "chw" and len(factor) > 1 else 1
    site.call(
        "ew_scale", have, have.c_dtype, value, have.count, len(factor), inner, site.floats(factor),
        site.floats(offset), file=_TENSORS,
    )  # fmt: skip
    return value


def quantize(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "quantize"."""
    assert isinstance(step, Quantize)
    (have,) = given
    value = site.value(made, have)
    reciprocal = c_float(float(np.float32(1.0) / np.float32(step.scale)))
    site.call(
        "ew_quantize", have, value, value.c_dtype, have.count, reciprocal, step.zero_point, file=_TENSORS
    )
    return value


def dequantize(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "dequantize"."""
    assert isinstance(step, Dequantize)
    (have,) = given
    value = site.value(made, have)
    site.call(
        "ew_dequantize",
        have,
        have.c_dtype,
        value,
        have.count,
        c_float(step.scale),
        step.zero_point,
        file=_TENSORS,
    )
    return value


def reshape(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "reshape": none, as the elements stay where they are."""
    (have,) = given
    if not have.rows:
        return site.alias(have, made)
    if made.shape[0] is not None or None in made.shape[1:]:
        raise site.refused(f"it makes {made} of {have.type}, and only the first size may be open")
    inner = math.prod(size for size in made.shape[1:] if size is not None)
    before = math.prod(have.bound[1:])
    if before % inner and inner % before:
        raise site.refused(f"it makes {made} of {have.type}, whose rows do not divide")
    alias = CValue(
        type=made,
        bound=(have.most // inner, *(size for size in made.shape[1:] if size is not None)),
        place=have.place,
        rows=f"({have.count}) / {inner}",
    )
    site.call("ew_is_multiple", have.count, inner, file=_TENSORS, is_checked=True)
    return alias


def transpose(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "transpose"."""
    assert isinstance(step, Transpose)
    return transposed(site, given[0], made, step.axes)


def transposed(site: Site, have: CValue, made: ValueType, axes: tuple[int, ...]) -> CValue:
    """Make the C of another order of axes."""
    if have.rows:
        raise site.refused(f"it gets {have.type}, whose size is not known before it runs")
    value = site.value(made)
    shape, order = (site.table(np.array(row, dtype=np.int32)) for row in (have.bound, axes))
    site.call("ew_transpose", have, value, have.item_bytes, len(axes), shape, order, file=_TENSORS)
    return value


def softmax(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "softmax"."""
    (have,) = given
    rows, size = rows_and_size(site, have)
    value = site.value(made, have)
    site.call("ew_softmax", have, value, rows, size, file=_SCORES)
    return value


def rows_and_size(site: Site, have: CValue) -> tuple[str, int]:
    """Return how many rows lie along the last axis, as C, and its size.

    Raises:
        ConversionError: the size is known only when it runs.
    """
    if len(have.bound) == 1 and have.rows:
        raise site.refused(f"it gets {have.type}, a row whose size is not known before it runs")
    size = have.bound[-1]
    return (f"({have.count}) / {size}" if have.rows else str(have.most // size)), size


def sigmoid(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "sigmoid"."""
    (have,) = given
    value = site.value(made, have)
    site.call("ew_sigmoid", have, value, have.count, file=_SCORES)
    return value


def top_k(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "top_k"."""
    assert isinstance(step, TopK)
    (have,) = given
    threshold = "NULL" if step.threshold is None else site.floats([step.threshold])
    most = min(step.k, have.most)
    rows = site.length()
    value = site.value(made, rows=rows, bound=(most, 2))
    site.call(f"{rows} = ew_top_k", have, have.count, most, threshold, value, file=_SCORES)
    return value
