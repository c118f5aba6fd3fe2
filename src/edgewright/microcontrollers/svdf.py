"""SVDF: a fully connected layer over time, of low rank; its state, one row of past values a filter, goes on.

Source: Nakkiran et al., "Compressing Deep Neural Networks Using a Rank-Constrained Topology" (2015); the LiteRT
operator SVDF of int8 with a state of 8 or 16 bits, and of float32.
"""

from __future__ import annotations

import numpy as np

from edgewright.microcontrollers.fixed_point import multiplier_of
from edgewright.microcontrollers.graph import LIMITS, Tensor
from edgewright.microcontrollers.layer import Constant, Layer, Site, floats, integers, render, require
from edgewright.microcontrollers.sums import limits_of

_SVDF = """\
static void @(const {{ type }} *in, {{ state }} *state, {{ type }} *out,
    const {{ type }} *features, const {{ state }} *times, const {{ sum }} *bias)
{
    int32_t n, u, r, k;
    memmove(state, state + 1, {{ state_count - 1 }} * sizeof *state);
    for (n = 0; n < {{ batch }}; ++n, in += {{ depth }}) {
        const {{ type }} *feature = features;
        const {{ state }} *time = times;
        for (u = 0; u < {{ units }}; ++u) {
            {{ wrapping }} total = {{ "(uint32_t)bias[u]" if is_integer else "bias[u]" }};
            for (r = 0; r < {{ rank }}; ++r, feature += {{ depth }}, time += {{ memory }}, state += {{ memory }}) {
                {{ sum }} now = 0;
                {{ wrapping }} past = 0;
                for (k = 0; k < {{ depth }}; ++k) {
                    now += feature[k] * {{ "(in[k] - (%d))" % zero if zero else "in[k]" }};
                }
                state[{{ memory - 1 }}] = {{ stored }};
                for (k = 0; k < {{ memory }}; ++k) {
                    past += {{ product }};
                }
                total += past;
            }
            *out++ = {{ end }};
        }
    }
}
"""


def svdf(site: Site) -> Layer:
    """Return SVDF of int8 with a state of int8 or int16, or of float32."""
    source, features, times, state, output = (
        *(site.input(position) for position in (0, 1, 2, 4)),
        site.output(),
    )
    types = (source.dtype, features.dtype, times.dtype, state.dtype, output.dtype)
    known = (
        ("int8",) * 5,
        ("int8", "int8", "int16", "int16", "int8"),
        ("float32",) * 5,
    )
    require(
        types in known,
        f"types {'/'.join(types)}; int8, with times and state of int16 too, and float32 are made",
    )
    require(state.is_variable, "a state that is no variable")
    require(features.value is not None and times.value is not None, "weights that are computed at run time")
    require(len(source.shape) == len(features.shape) == len(times.shape) == 2, "a rank other than 2")
    batch, depth = source.shape
    filters, memory = times.shape
    rank = site.operator.integer("Rank")
    require(rank >= 1 and filters % rank == 0, f"{filters} filters of rank {rank}")
    units = filters // rank
    fits = features.shape == (filters, depth) and state.count == batch * filters * memory
    require(fits and output.count == batch * units and source.count * memory > 0, "wrong shapes")
    constants = [_table(site, features), _table(site, times)]
    values: dict[str, object] = {
        "type": source.c_type, "state": state.c_type, "batch": batch, "depth": depth, "units": units, "rank": rank,
        "memory": memory, "state_count": state.count, "zero": 0,
    }  # fmt: skip
    require(site.has_input(3), "no bias, without which the interpreter fails")
    bias = site.input(3)
    want = "float32" if source.dtype == "float32" else "int32"
    require(bias.dtype == want and bias.count == units, f"a bias of {bias.dtype}[{bias.count}]")
    constants.append(_table(site, bias))
    if source.dtype == "float32":
        low, high = limits_of(site)
        values |= {
            "sum": "float", "wrapping": "float", "stored": "now", "product": "time[k] * state[k]",
            "end": f"limited(total, {low}, {high})", "is_integer": False,
        }  # fmt: skip
        needs: tuple[str, ...] = ("limited",)
    else:
        values |= _integers(site, source, features, times, state, output)
        needs = ("scaled", "clamped")
    return Layer(
        operator=site.operator,
        text=render(_SVDF, values),
        reads=(source.index, state.index),
        writes=(output.index,),
        constants=tuple(constants),
        arguments=tuple(constant.name for constant in constants),
        needs=needs,
        macs=batch * filters * (depth + memory),
    )


def _integers(
    site: Site, source: Tensor, features: Tensor, times: Tensor, state: Tensor, output: Tensor
) -> dict[str, object]:
    for tensor in (source, features, times, state, output):
        require(len(tensor.scales) == 1 and tensor.scale > 0, "a tensor without one scale")
    require(not features.zero_points.any() and not times.zero_points.any(), "weights with a zero point")
    require(
        state.zero_point == 0, "a state with a zero point, which versions of the interpreter add differently"
    )
    # The interpreter does not apply the activation; that is right only where the output's range does.
    activation = site.operator.integer("FusedActivationFunction")
    require(activation == 0 or (activation == 1 and output.zero_point == -128), "a fused activation")
    assert features.value is not None
    reach = int(np.abs(features.value.astype(np.int64)).sum(axis=1).max()) * 255
    require(reach < 1 << 31, "a sum of products that can leave 32 bits")
    first, second = (
        multiplier_of(float(np.float32(a) * np.float32(b) / np.float32(c)))  # as float32, in this order
        for a, b, c in (
            (source.scale, features.scale, state.scale),
            (state.scale, times.scale, output.scale),
        )
    )
    # What a multiplier over 1 shifts to the left stays within 32 bits.
    require(reach << max(first.shift, 0) < 1 << 31, "an output scale that is far too small")
    require(
        second.shift <= 0 or _total(site, times, state) << second.shift < 1 << 31, "an output scale too small"
    )
    low, high = LIMITS[state.dtype]
    stored = f"scaled(now, {first.mantissa}, {first.shift})"
    value = f"scaled((int32_t)total, {second.mantissa}, {second.shift}) + ({output.zero_point})"
    return {
        "sum": "int32_t", "wrapping": "uint32_t", "zero": source.zero_point, "is_integer": True,
        "stored": f"({state.c_type})clamped({stored}, {low}, {high})",
        "product": "(uint32_t)(time[k] * state[k])", "end": f"(int8_t)clamped({value}, -128, 127)",
    }  # fmt: skip


def _total(site: Site, times: Tensor, state: Tensor) -> int:
    """Return the largest sum that a unit can have."""
    bias = site.input(3).value
    assert times.value is not None and bias is not None
    rank = site.operator.integer("Rank")
    sizes = np.abs(times.value.astype(np.int64)).sum(axis=1).reshape(-1, rank).sum(axis=1)
    return int(sizes.max()) * -LIMITS[state.dtype][0] + int(np.abs(bias.astype(np.int64)).max())


def _table(site: Site, tensor: Tensor) -> Constant:
    require(tensor.value is not None, "weights that are computed at run time")
    assert tensor.value is not None
    name, flat = f"{site.prefix}_tensor_{tensor.index}", tensor.value.reshape(-1).tolist()
    if tensor.dtype == "float32":
        return floats(name, [float(value) for value in flat])
    return integers(name, tensor.c_type, [int(value) for value in flat], tensor.size_bytes // tensor.count)
