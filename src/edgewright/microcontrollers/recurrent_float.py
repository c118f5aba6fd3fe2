"""The LSTM over a sequence in float32.

Source: Hochreiter and Schmidhuber (1997): c = f c + i g, h = o tanh(c). Each gate is the products of the input and the
bias, then the products of the state, in the interpreter's order; the sigmoid and tanh are not its own bit by bit.
"""

from __future__ import annotations

import numpy as np

from edgewright.microcontrollers.layer import Constant, Layer, Site, float_literal, floats, render, require

GATES = ("input", "forget", "cell", "output")

_LSTM = """\
static float @_sum(const float *in, const float *hidden, const float *weights, const float *recurrent, float bias)
{
    float first = 0.0f, second = 0.0f;
    int32_t k;
    for (k = 0; k < {{ depth }}; ++k) {
        first += weights[k] * in[k];
    }
    for (k = 0; k < {{ units }}; ++k) {
        second += recurrent[k] * hidden[k];
    }
    return first + bias + second;
}

static void @(const float *in, float *hidden, float *state, float *out,
    {% for gate in gates %}const float *{{ gate }}_weights, const float *{{ gate }}_recurrent,
    const float *{{ gate }}_bias{{ ",
    " if not loop.last }}{% endfor %})
{
    int32_t n, t, c;
    for (n = 0; n < {{ batch }}; ++n, hidden += {{ units }}, state += {{ units }}) {
        for (t = 0; t < {{ times }}; ++t) {
            const float *x = in + (n * {{ in_batch }} + t * {{ in_time }}) * {{ depth }};
            float *h = out + (n * {{ in_batch }} + t * {{ in_time }}) * {{ units }};
            for (c = 0; c < {{ units }}; ++c) {
{% for gate in gates %}
                const float {{ gate }} = {{ "hyperbolic" if gate == "cell" else "logistic" }}(@_sum(
                    x, hidden, {{ gate }}_weights + c * {{ depth }}, {{ gate }}_recurrent + c * {{ units }},
                    {{ gate }}_bias[c]));
{% endfor %}
                const float kept = forget * state[c];
                const float added = input * cell;
{% if clip %}
                state[c] = limited(kept + added, -{{ clip }}, {{ clip }});
{% else %}
                state[c] = kept + added;
{% endif %}
                h[c] = hyperbolic(state[c]) * output;
            }
            memcpy(hidden, h, {{ units }} * sizeof *h);
        }
    }
}
"""


def lstm(site: Site) -> Layer:
    """Return UNIDIRECTIONAL_SEQUENCE_LSTM of float32; no peepholes, projection or normalisation."""
    source, hidden, cell, output = site.input(0), site.input(18), site.input(19), site.output()
    types = (source.dtype, hidden.dtype, cell.dtype, output.dtype)
    require(set(types) == {"float32"}, f"types {'/'.join(types)}")
    require(hidden.is_variable and cell.is_variable, "a state that is no variable")
    require(site.operator.integer("FusedActivationFunction") == 4, "an activation other than tanh")
    require(len(source.shape) == 3 and source.count > 0, "an input of a rank other than 3")
    is_time_major = bool(site.operator.integer("TimeMajor"))
    require(len(site.input(1).shape) == 2, "weights of a rank other than 2")
    depth, units = source.shape[2], site.input(1).shape[0]
    times, batch = source.shape[:2] if is_time_major else (source.shape[1], source.shape[0])
    require(
        hidden.count == cell.count == batch * units and output.count == times * batch * units, "wrong shapes"
    )
    tables = [table for number in range(len(GATES)) for table in _gate(site, number, units, depth)]
    clip = site.operator.real("CellClip")
    values: dict[str, object] = {
        "gates": GATES, "depth": depth, "units": units, "batch": batch, "times": times,
        "in_batch": 1 if is_time_major else times, "in_time": batch if is_time_major else 1,
        "clip": float_literal(clip) if clip > 0 else "",
    }  # fmt: skip
    return Layer(
        operator=site.operator,
        text=render(_LSTM, values),
        reads=(source.index, hidden.index, cell.index),
        writes=(output.index,),
        constants=tuple(tables),
        arguments=tuple(table.name for table in tables),
        needs=("logistic", "hyperbolic", "limited") if clip > 0 else ("logistic", "hyperbolic"),
        macs=4 * times * batch * units * (depth + units),
        is_exact=False,
    )


def _gate(site: Site, number: int, units: int, depth: int) -> list[Constant]:
    tables = []
    for position, columns in ((1 + number, depth), (5 + number, units)):
        weights = site.input(position)
        require(weights.dtype == "float32" and weights.value is not None, f"weights of {weights.dtype}")
        require(weights.shape == (units, columns), f"weights of shape {list(weights.shape)}")
        assert weights.value is not None
        tables.append(
            floats(f"{site.prefix}_tensor_{weights.index}", weights.value.reshape(-1).astype(float).tolist())
        )
    bias = np.zeros(units)
    if site.has_input(12 + number):
        stored = site.input(12 + number)
        require(stored.dtype == "float32" and stored.value is not None, f"a bias of {stored.dtype}")
        require(stored.count == units, f"a bias of {stored.count} values")
        assert stored.value is not None
        bias = stored.value.reshape(-1).astype(float)
    tables.append(floats(f"{site.prefix}_{GATES[number]}_bias_{site.operator.position}", bias.tolist()))
    return tables
