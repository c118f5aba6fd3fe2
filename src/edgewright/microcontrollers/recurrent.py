"""The LSTM over a sequence, int8 with a 16-bit cell: gates are sums in 16 bits (Q3.12) through a table of the sigmoid.

Source: LiteRT 8-bit quantization specification (UNIDIRECTIONAL_SEQUENCE_LSTM, 8x8_16); Hochreiter and Schmidhuber
(1997) for the cell: c = f c + i g, h = o tanh(c).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.core.tensors import Array
from edgewright.microcontrollers import recurrent_float
from edgewright.microcontrollers.fixed_point import Multiplier, multiplier_of
from edgewright.microcontrollers.graph import LIMITS, Tensor
from edgewright.microcontrollers.layer import Constant, Layer, Site, integers, render, require
from edgewright.microcontrollers.products import word_products
from edgewright.microcontrollers.recurrent_cells import MOST_WIDE, Cell, part_of
from edgewright.microcontrollers.recurrent_gates import GATES
from edgewright.microcontrollers.wide import sigmoid_table

_GATES = ("input", "forget", "cell", "output")
_GATE_SCALE = 2.0**-12  # of the sums before the activations
_UNIT_SCALE = 2.0**-15  # of what the activations return

_LSTM = """\
static int32_t @_sum(const {{ type }} *in, const {{ type }} *hidden, const int8_t *weights, const int8_t *recurrent,
    const {{ sum }} *bias, int32_t mantissa, int32_t shift, int32_t mantissa_2, int32_t shift_2)
{
    {{ sum }} first = bias[0], second = bias[{{ units }}];
    int32_t k, gate, gate_2;
    for (k = 0; k < {{ depth }}; ++k) {
        first += (int32_t)weights[k] * in[k];
    }
    for (k = 0; k < {{ units }}; ++k) {
        second += (int32_t)recurrent[k] * hidden[k];
    }
    gate = clamped({{ scaled }}(first, mantissa, shift), -32768, 32767);
    gate_2 = clamped({{ scaled }}(second, mantissa_2, shift_2), -32768, 32767);
    return clamped(gate + gate_2, -32768, 32767);
}

static void @(const {{ type }} *in, {{ type }} *hidden, int16_t *cell, {{ type }} *out, const int16_t *sigmoid,
    {% for gate in gates %}const int8_t *{{ gate.name }}_weights, const int8_t *{{ gate.name }}_recurrent,
    const {{ sum }} *{{ gate.name }}_bias{{ ",
    " if not loop.last }}{% endfor %})
{
    int32_t n, t, c;
    for (n = 0; n < {{ batch }}; ++n, hidden += {{ units }}, cell += {{ units }}) {
        for (t = 0; t < {{ times }}; ++t) {
            const {{ type }} *x = in + (n * {{ in_batch }} + t * {{ in_time }}) * {{ depth }};
            {{ type }} *h = out + (n * {{ in_batch }} + t * {{ in_time }}) * {{ units }};
            for (c = 0; c < {{ units }}; ++c) {
{% for gate in gates %}
                const int32_t {{ gate.result }} = {{ gate.curve }}(3 * @_sum(
                    x, hidden, {{ gate.name }}_weights + c * {{ depth }}, {{ gate.name }}_recurrent + c * {{ units }},
                    {{ gate.name }}_bias + c, {{ gate.factors[0].mantissa }}, {{ gate.factors[0].shift }},
                    {{ gate.factors[1].mantissa }}, {{ gate.factors[1].shift }}), sigmoid);
{% endfor %}
                const int32_t kept = clamped(
                    scaled(forget * cell[c], {{ keep.mantissa }}, {{ keep.shift }}), -32768, 32767);
                const int32_t added = clamped(
                    scaled(input * candidate, {{ take.mantissa }}, {{ take.shift }}), -32768, 32767);
                int32_t state = clamped(kept + added, -32768, 32767);
                int32_t value;
{% if clip %}
                state = clamped(state, -{{ clip }}, {{ clip }});
{% endif %}
                cell[c] = (int16_t)state;
                value = output * tanh16({{ tanh_input }}, sigmoid);
                value = scaled(value, {{ give.mantissa }}, {{ give.shift }}) + ({{ zero }});
                h[c] = ({{ type }})clamped(value, {{ low }}, {{ high }});
            }
            memcpy(hidden, h, {{ units }} * sizeof *h);
        }
    }
}
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Gate:
    """A gate's weights and multipliers, each of the input and of the state.

    Attributes:
        matrices: int64 [units, columns].
        starts: int64 [units]: what the sums begin with.
        reaches: the largest sum.
    """

    name: str
    tensors: tuple[int, int]
    matrices: tuple[Array, Array]
    starts: tuple[Array, Array]
    factors: tuple[Multiplier, Multiplier]
    reaches: tuple[int, int]


def lstm(site: Site) -> Layer:
    """Return UNIDIRECTIONAL_SEQUENCE_LSTM of float32, or of int8 or int16 with a 16-bit cell.

    There are no peepholes, no projection and no layer normalisation.
    """
    for position in (9, 10, 11, 16, 17, 20, 21, 22, 23):
        require(
            not site.has_input(position), f"input {position}: peepholes, projection or layer normalisation"
        )
    if site.input(0).dtype == "float32":
        return recurrent_float.lstm(site)
    source, hidden, cell, output = site.input(0), site.input(18), site.input(19), site.output()
    _check_types(source, hidden, cell, output)
    require(site.operator.integer("FusedActivationFunction") == 4, "an activation other than tanh")
    is_time_major = bool(site.operator.integer("TimeMajor"))
    require(len(site.input(1).shape) == 2, f"weights of rank {len(site.input(1).shape)}")
    depth, units = source.shape[2], site.input(1).shape[0]
    times, batch = (source.shape[0], source.shape[1]) if is_time_major else (source.shape[1], source.shape[0])
    require(
        hidden.count == cell.count == batch * units and output.count == times * batch * units, "wrong shapes"
    )
    power = math.log2(cell.scale)
    require(power == round(power) and cell.zero_point == 0, "a cell scale that is no power of two")
    shift = 15 + round(power) - 3
    require(-16 < shift < 8, f"a cell scale of 2^{round(power)}")
    gates = [_gate(site, number, name, source, hidden, (units, depth)) for number, name in enumerate(_GATES)]
    clip = site.operator.real("CellClip")
    values = {
        "depth": depth, "units": units, "batch": batch, "times": times,
        "in_batch": 1 if is_time_major else times, "in_time": batch if is_time_major else 1,
        "shift": shift, "zero": hidden.zero_point,
        "clip": int(min(max(clip / cell.scale, -32768.0), 32767.0)) if clip > 0 else 0,
    }  # fmt: skip
    products = (
        multiplier_of(_UNIT_SCALE * cell.scale / cell.scale),
        multiplier_of(_UNIT_SCALE * _UNIT_SCALE / cell.scale),
        multiplier_of(_UNIT_SCALE * _UNIT_SCALE / hidden.scale),
    )
    is_quick = source.dtype == "int8" and depth + units <= MOST_WIDE and _is_quick(gates, products, shift)
    text, helpers, needs, tables = (_quick if is_quick else _plain)(site, gates, products, values)
    tables = [sigmoid_table(site.prefix), *tables]
    return Layer(
        operator=site.operator,
        text=text,
        reads=(source.index, hidden.index, cell.index),
        writes=(output.index,),
        constants=tuple(tables),
        helpers=helpers,
        arguments=tuple(table.name for table in tables),
        needs=needs,
        stack_bytes=(depth + units) * 2 if is_quick else 0,
        macs=4 * times * batch * units * (depth + units),
    )


def _check_types(source: Tensor, hidden: Tensor, cell: Tensor, output: Tensor) -> None:
    types = (source.dtype, hidden.dtype, cell.dtype, output.dtype)
    require(
        types in (("int8", "int8", "int16", "int8"), ("int16",) * 4),
        f"types {'/'.join(types)}; int8/int8/int16/int8, int16 and float32 are made",
    )
    require(hidden.is_variable and cell.is_variable, "a state that is no variable")
    for tensor in (source, hidden, cell, output):
        require(len(tensor.scales) == 1 and tensor.scale > 0, "a tensor without one scale")
    require(
        hidden.scale == output.scale and hidden.zero_point == output.zero_point, "a state of another scale"
    )
    require(source.dtype != "int16" or source.zero_point == output.zero_point == 0, "int16 with a zero point")
    require(len(source.shape) == 3 and source.count > 0, "an input of a rank other than 3")


def _is_quick(gates: Sequence[_Gate], products: Sequence[Multiplier], shift: int) -> bool:
    """Return whether the functions of `recurrent_cells` compute these numbers."""
    sums = [pair for gate in gates for pair in zip(gate.factors, gate.reaches, strict=True)]
    keep, take, give = products
    return (
        all(-by.shift <= 30 and reach << max(by.shift, 0) < 1 << 30 for by, reach in sums)
        and keep.mantissa == take.mantissa == 1 << 30
        and -30 <= give.shift <= 0
        # Products stay within 16 bits, and the cell's state times 3 * 2**8 as well.
        and -3 <= shift <= 6
    )


_Made = tuple[str, tuple[str, ...], tuple[str, ...], list[Constant]]


def _quick(
    site: Site, gates: Sequence[_Gate], products: Sequence[Multiplier], values: Mapping[str, int]
) -> _Made:
    """Return text, helpers, arithmetic and tables; see `recurrent_cells`."""
    keep, take, give = products
    parts = tuple((part_of(gate.factors[0]), part_of(gate.factors[1])) for gate in gates)
    made = Cell(**values, gates=parts, keep=1 - keep.shift, take=1 - take.shift, give=part_of(give))
    units = gates[0].starts[0].size
    rows = [np.stack([gate.matrices[side] for gate in gates], axis=1).reshape(units, -1) for side in (0, 1)]
    starts = np.stack([gate.starts[side] for side in (0, 1) for gate in gates], axis=1)
    weights = [*np.concatenate(rows, axis=1).reshape(-1).tolist(), *[0] * made.filling]
    tables = [
        site.table("weights", "int8_t", weights, 1),
        site.table("bias", "int32_t", (2 * starts).reshape(-1).tolist(), 4),
        site.table("scales", "int32_t", made.scales, 4),
    ]
    return made.text, (*word_products(has_four=not made.is_held), GATES), (), tables


def _plain(
    site: Site, gates: Sequence[_Gate], products: Sequence[Multiplier], values: Mapping[str, int]
) -> _Made:
    """Return text, helpers, arithmetic and tables for int16, and for scales that are out of the ordinary."""
    source, output, shift = site.input(0), site.output(), values["shift"]
    is_wide = source.dtype == "int16"
    tables: list[Constant] = []
    for gate in gates:
        for tensor, matrix in zip(gate.tensors, gate.matrices, strict=True):
            tables.append(
                integers(f"{site.prefix}_tensor_{tensor}", "int8_t", matrix.reshape(-1).tolist(), 1)
            )
        kind, item = ("int64_t", 8) if is_wide else ("int32_t", 4)
        tables.append(site.table(f"{gate.name}_bias", kind, np.concatenate(gate.starts).tolist(), item))
    rounding = f" + {1 << (-shift - 1)}) >> {-shift}" if shift < 0 else f" * {1 << shift})"
    keep, take, give = products
    text = render(
        _LSTM,
        {
            **values, "gates": [
                {
                    "name": gate.name, "factors": gate.factors,
                    # `cell` is the state.
                    "result": "candidate" if gate.name == "cell" else gate.name,
                    "curve": "tanh16" if gate.name == "cell" else "sigmoid16",
                }
                for gate in gates
            ],
            "keep": keep, "take": take, "give": give, "tanh_input": f"(3 * state{rounding}",
            "type": source.c_type, "sum": "int64_t" if is_wide else "int32_t",
            "scaled": "scaled_wide" if is_wide else "scaled",
            "low": LIMITS[output.dtype][0], "high": LIMITS[output.dtype][1],
        },
    )  # fmt: skip
    needs = ("scaled", "clamped", "sigmoid16", "tanh16")
    return text, (), (*needs, "scaled_wide") if is_wide else needs, tables


def _gate(
    site: Site, number: int, name: str, source: Tensor, hidden: Tensor, shape: tuple[int, int]
) -> _Gate:
    units, depth = shape
    is_wide = source.dtype == "int16"
    matrices, starts, factors = [], [], []
    for position, given, columns in ((1 + number, source, depth), (5 + number, hidden, units)):
        weights = site.input(position)
        require(weights.dtype == "int8" and weights.value is not None, f"weights of {weights.dtype}")
        assert weights.value is not None
        require(weights.shape == (units, columns), f"weights of shape {list(weights.shape)}")
        require(
            len(weights.scales) == 1 and weights.zero_point == 0, "weights without one scale, zero point 0"
        )
        matrices.append(weights.value.astype(np.int64))
        starts.append(-given.zero_point * matrices[-1].sum(axis=1))
        require(
            is_wide or int(np.abs(matrices[-1]).sum(axis=1).max()) * 256 < 1 << 30,
            "a sum of products that can leave 32 bits",
        )
        by = multiplier_of(float(np.float32(given.scale) * np.float32(weights.scale)) / _GATE_SCALE)
        require(by.shift <= 14, "a scale that is far too large")
        if is_wide:
            # 15 bits of it, and the places that `scaled_wide` shifts by.
            by = Multiplier(min((by.mantissa + (1 << 15)) >> 16, 32767), 15 - by.shift)
        factors.append(by)
    if site.has_input(12 + number):
        stored = site.input(12 + number)
        want = "int64" if is_wide else "int32"
        require(
            stored.dtype == want and stored.value is not None, f"a bias of {stored.dtype}; {want} is made"
        )
        require(stored.count == units, f"a bias of {stored.count} values")
        assert stored.value is not None
        bias = stored.value.astype(np.int64).reshape(-1)
        require(int(np.abs(bias).max()) < 1 << (46 if is_wide else 30), "a bias that is far too large")
        starts[0] = starts[0] + bias
    reaches = [
        int((np.abs(start) + 128 * np.abs(matrix).sum(axis=1)).max())
        for start, matrix in zip(starts, matrices, strict=True)
    ]
    return _Gate(
        name=name,
        tensors=(site.input(1 + number).index, site.input(5 + number).index),
        matrices=(matrices[0], matrices[1]),
        starts=(starts[0], starts[1]),
        factors=(factors[0], factors[1]),
        reaches=(reaches[0], reaches[1]),
    )
