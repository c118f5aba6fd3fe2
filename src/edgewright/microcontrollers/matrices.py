"""Products of two matrices that are both computed, as in attention.

Source: LiteRT 8-bit quantization specification (BATCH_MATMUL, as FULLY_CONNECTED); 16 bits: sums of 64 bits.
"""

from __future__ import annotations

from math import prod

import numpy as np

from edgewright.microcontrollers.fixed_point import multiplier_of
from edgewright.microcontrollers.graph import LIMITS, Tensor
from edgewright.microcontrollers.layer import Layer, Site, render, require
from edgewright.microcontrollers.shaping import strides

_PRODUCT = """\
static void @(const {{ type }} *left, const {{ type }} *right, {{ type }} *out)
{
    int32_t {% for axis in batches %}b{{ loop.index0 }}, {% endfor %}y, x, k;
{% for axis in batches %}
{{ "    " * loop.index }}for (b{{ loop.index0 }} = 0; b{{ loop.index0 }} < {{ axis.size }}; ++b{{ loop.index0 }}) {
{% endfor %}
        const {{ type }} *a = left{{ at_left }};
        const {{ type }} *b = right{{ at_right }};
        for (y = 0; y < {{ rows }}; ++y) {
            for (x = 0; x < {{ columns }}; ++x) {
                {{ sum }} sum = 0;
                for (k = 0; k < {{ depth }}; ++k) {
                    sum += {{ product }};
                }
                *out++ = {{ end }};
            }
        }
{% for axis in batches %}
{{ "    " * (batches | length - loop.index0) }}}
{% endfor %}
}
"""


def batch_matmul(site: Site) -> Layer:
    """Return BATCH_MATMUL of int8, int16 or float32, with broadcast batches."""
    left, right, output = site.input(0), site.input(1), site.output()
    types = {left.dtype, right.dtype, output.dtype}
    require(
        len(types) == 1 and types <= {"int8", "int16", "float32"},
        f"types {left.dtype}/{right.dtype}/{output.dtype}; int8, int16 and float32 are made",
    )
    require(min(len(left.shape), len(right.shape)) >= 2 and left.count * right.count > 0, "a rank under 2")
    steps_left, steps_right = strides(left.shape), strides(right.shape)
    rows, depth, row_step, left_step = *left.shape[-2:], *steps_left[-2:]
    if site.operator.integer("AdjX"):
        rows, depth, row_step, left_step = depth, rows, left_step, row_step
    deep, columns, right_step, column_step = *right.shape[-2:], *steps_right[-2:]
    if site.operator.integer("AdjY"):
        deep, columns, right_step, column_step = columns, deep, column_step, right_step
    require(deep == depth, f"{depth} columns for {deep} rows")
    batches = _batches(left, right, output, (rows, columns))
    a = f"a[{_at('y', row_step)} + {_at('k', left_step)}]"
    b = f"b[{_at('k', right_step)} + {_at('x', column_step)}]"
    values: dict[str, object] = {
        "type": output.c_type, "batches": batches, "rows": rows, "columns": columns, "depth": depth,
        "at_left": "".join(f" + b{i} * {one['left']}" for i, one in enumerate(batches) if one["left"]),
        "at_right": "".join(f" + b{i} * {one['right']}" for i, one in enumerate(batches) if one["right"]),
    }  # fmt: skip
    needs: tuple[str, ...] = ()
    if output.dtype == "float32":
        values |= {"sum": "float", "product": f"{a} * {b}", "end": "sum"}
    else:
        described, needs = _integers(left, right, output, a, b, depth)
        values |= described
    return Layer(
        operator=site.operator,
        text=render(_PRODUCT, values),
        reads=(left.index, right.index),
        writes=(output.index,),
        needs=needs,
        macs=output.count * depth,
    )


def _integers(
    left: Tensor, right: Tensor, output: Tensor, a: str, b: str, depth: int
) -> tuple[dict[str, object], tuple[str, ...]]:
    for tensor in (left, right, output):
        require(len(tensor.scales) == 1 and tensor.scale > 0, "a tensor without one scale")
        require(tensor.dtype == "int8" or tensor.zero_point == 0, "int16 with a zero point")
    # The interpreter multiplies the two scales as float32.
    product = float(np.float32(left.scale) * np.float32(right.scale))
    by = multiplier_of(product / output.scale)
    low, high = LIMITS[output.dtype]
    if output.dtype == "int8":
        require(depth * 255 * 255 < 1 << 31, f"sums of {depth} products")
        require(by.shift <= 0, "an output scale that is far too small")
        value = f"scaled(sum, {by.mantissa}, {by.shift}) + ({output.zero_point})"
        return {
            "sum": "int32_t", "product": f"({a} - ({left.zero_point})) * ({b} - ({right.zero_point}))",
            "end": f"(int8_t)clamped({value}, {low}, {high})",
        }, ("scaled", "clamped")  # fmt: skip
    require(by.shift < 8, "an output scale that is far too small")
    require(depth < 1 << 17, f"sums of {depth} products")
    mantissa = min((by.mantissa + (1 << 15)) >> 16, 32767)
    return {
        "sum": "int64_t", "product": f"(int64_t){a} * {b}",
        "end": f"(int16_t)clamped(scaled_wide(sum, {mantissa}, {15 - by.shift}), {low}, {high})",
    }, ("scaled_wide", "clamped")  # fmt: skip


def _batches(left: Tensor, right: Tensor, output: Tensor, inner: tuple[int, int]) -> list[dict[str, int]]:
    """Return size and steps of every axis before the matrices; a step of 0 repeats the operand."""
    rank = max(len(left.shape), len(right.shape)) - 2
    shapes, steps = [], []
    for tensor in (left, right):
        missing = rank - (len(tensor.shape) - 2)
        shapes.append((1,) * missing + tensor.shape[:-2])
        steps.append((0,) * missing + strides(tensor.shape)[:-2])
    whole = []
    for one, other in zip(*shapes, strict=True):
        require(one == other or 1 in (one, other), f"batches of {one} and {other}")
        whole.append(max(one, other))
    require(output.shape == (*whole, *inner) and prod(output.shape) > 0, "a wrong output shape")
    return [
        {"size": size, "left": steps[0][i] if shapes[0][i] > 1 else 0,
         "right": steps[1][i] if shapes[1][i] > 1 else 0}
        for i, size in enumerate(whole)
    ]  # fmt: skip


def _at(name: str, step: int) -> str:
    return name if step == 1 else f"{name} * {step}"
