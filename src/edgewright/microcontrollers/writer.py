"""The text of NAME.c and NAME.h: tables, kernels, one function that calls them in order, and the interface."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.microcontrollers.arithmetic import definitions
from edgewright.microcontrollers.calls import Calls, constant_name
from edgewright.microcontrollers.graph import ITEM_BYTES, LIMITS, Graph, Tensor
from edgewright.microcontrollers.labels import c_string
from edgewright.microcontrollers.layer import Constant, Layer, float_literal, floats, integers, render
from edgewright.microcontrollers.planner import ALIGNMENT, Plan

_HEADER = """\
/* {{ name }}: made by Edgewright from a LiteRT model. Do not edit: build it again.
 *
 * model      sha256 {{ sha256 }}
 * arena      {{ arena_bytes }} bytes of RAM, inputs and outputs within
 * flash      {{ table_bytes }} bytes of tables, and the code
 * stack      {{ stack_bytes }} bytes of arrays at most, and the frames of {{ depth }} nested calls
 * MACs       {{ macs }} a run
{% for chain in chains %}
 * by rows    layers {{ chain.first }} to {{ chain.last }}: of what lies between them, only some rows are kept
{% endfor %}
 * compiled   as C99, with -O2 or better; nothing but <stdint.h> and <string.h> is needed.
 *            Assumes 8-bit bytes, two's complement, an arithmetic >> of negative numbers.
 *            Helium and the DSP extension are used where the compiler's flags name a core that has them.
 */
#ifndef {{ guard }}
#define {{ guard }}

#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define {{ upper }}_ARENA_BYTES {{ arena_bytes }}
#define {{ upper }}_ARENA_ALIGNMENT {{ alignment }}
{% for port in inputs + outputs %}

/* {{ port.title }}: {{ port.comment }} */
#define {{ port.macro }}_COUNT {{ port.count }}
{% if port.scale %}
#define {{ port.macro }}_SCALE {{ port.scale }}
#define {{ port.macro }}_ZERO_POINT ({{ port.zero_point }})
{% endif %}
{% endfor %}

/* What the functions return. */
#define {{ upper }}_OK 0
#define {{ upper }}_ARENA_TOO_SMALL 1
#define {{ upper }}_ARENA_UNALIGNED 2
#define {{ upper }}_NULL_POINTER 3
{% if has_wide_ports %}
#define {{ upper }}_BUFFER_UNALIGNED 4 /* an input or output is not aligned for its type */
{% endif %}

#ifndef {{ upper }}_NO_STATIC_ARENA
/* Put the model into its first state. Call it once before the first run{{ ",
 * and whenever a new sequence begins" if has_state }}. */
int {{ name }}_init(void);
/* Compute the outputs for the inputs, in an arena of the library's own: not for two threads at a time.
 * Buffers of yours are only read as inputs; the copy of an input in the arena is written over during the run. */
int {{ name }}_run({{ parameters }});
{% for port in inputs %}
/* The place of {{ port.title }} in the arena: a run with this pointer copies nothing, and writes over
 * what lies there: fill it anew before each run. */
{{ port.c_type }} *{{ name }}_{{ port.short }}(void);
{% endfor %}
#endif

/* The same in an arena of the caller's, of at least {{ upper }}_ARENA_BYTES: one arena for each thread. */
int {{ name }}_init_in(void *arena, size_t bytes);
int {{ name }}_run_in(void *arena, size_t bytes, {{ parameters }});
{% for port in inputs if port.is_real %}

/* Quantize {{ port.macro }}_COUNT real values for {{ port.title }}. */
void {{ name }}_quantize_{{ port.short }}(const float *values, {{ port.c_type }} *{{ port.short }});
{% endfor %}
{% for port in outputs if port.is_real %}

/* The real values of {{ port.title }}. */
void {{ name }}_dequantize_{{ port.short }}(const {{ port.c_type }} *{{ port.short }}, float *values);
{% endfor %}
{% if labels %}

/* The name of class `index` in UTF-8, NULL where there is none. */
#define {{ upper }}_LABEL_COUNT {{ labels | length }}
const char *{{ name }}_label(int32_t index);
{% endif %}

/* In {{ name }}_test.c, which no application needs: the failures of the golden vectors on this machine. */
int {{ name }}_self_test(void);

#ifdef __cplusplus
}
#endif

#endif
"""

_SOURCE = """\
/* {{ name }}: made by Edgewright from a LiteRT model. Do not edit: build it again. See {{ name }}.h. */
#include "{{ name }}.h"

{% for constant in constants %}
{{ constant.definition }}
{% endfor %}
{{ arithmetic }}
{% for text in helpers %}
{{ text }}
{% endfor %}
{% for text in kernels %}
{{ text }}
{% endfor %}
static int check_arena(const void *arena, size_t bytes)
{
    if (arena == NULL) {
        return {{ upper }}_NULL_POINTER;
    }
    if ((uintptr_t)arena % {{ upper }}_ARENA_ALIGNMENT != 0) {
        return {{ upper }}_ARENA_UNALIGNED;
    }
    return bytes < {{ upper }}_ARENA_BYTES ? {{ upper }}_ARENA_TOO_SMALL : {{ upper }}_OK;
}

int {{ name }}_init_in(void *arena, size_t bytes)
{
    const int problem = check_arena(arena, bytes);
{% if state %}
    if (problem == {{ upper }}_OK) {
{% for offset, size, value in state %}
        memset((int8_t *)arena + {{ offset }}, {{ value }}, {{ size }});
{% endfor %}
    }
{% endif %}
    return problem;
}

int {{ name }}_run_in(void *arena, size_t bytes, {{ parameters }})
{
    int8_t *const memory = (int8_t *)arena;
    const int problem = check_arena(arena, bytes);
    if (problem != {{ upper }}_OK) {
        return problem;
    }
    if ({% for port in inputs + outputs %}{{ port.short }} == NULL{{ " || " if not loop.last }}{% endfor %}) {
        return {{ upper }}_NULL_POINTER;
    }
{% for port in inputs + outputs if port.item_bytes > 1 %}
    if ((uintptr_t)(const void *){{ port.short }} % {{ port.item_bytes }} != 0) {
        return {{ upper }}_BUFFER_UNALIGNED;
    }
{% endfor %}
{% for port in inputs %}
    if ((const void *){{ port.short }} != (const void *)(memory + {{ port.offset }})) {
        memcpy(memory + {{ port.offset }}, {{ port.short }}, {{ port.size_bytes }});
    }
{% endfor %}
{% for call in calls %}
    {{ call }}
{% endfor %}
{% for port in outputs %}
    memcpy({{ port.short }}, {{ port.place }}, {{ port.size_bytes }});
{% endfor %}
    return {{ upper }}_OK;
}

#ifndef {{ upper }}_NO_STATIC_ARENA
static union {
    int64_t alignment;
    int8_t bytes[{{ upper }}_ARENA_BYTES];
} static_arena;

int {{ name }}_init(void)
{
    return {{ name }}_init_in(static_arena.bytes, sizeof static_arena.bytes);
}

int {{ name }}_run({{ parameters }})
{
    return {{ name }}_run_in(static_arena.bytes, sizeof static_arena.bytes, {{ arguments }});
}
{% for port in inputs %}

{{ port.c_type }} *{{ name }}_{{ port.short }}(void)
{
    return ({{ port.c_type }} *)(void *)(static_arena.bytes + {{ port.offset }});
}
{% endfor %}
#endif
{% for port in inputs if port.is_real %}

void {{ name }}_quantize_{{ port.short }}(const float *values, {{ port.c_type }} *{{ port.short }})
{
    int32_t i;
    for (i = 0; i < {{ port.count }}; ++i) {
        const float value = values[i] / {{ port.scale }};
        if (!(value > {{ port.low - port.zero_point }}.0f)) {
            {{ port.short }}[i] = {{ port.low }};
        } else if (value >= {{ port.high - port.zero_point }}.0f) {
            {{ port.short }}[i] = {{ port.high }};
        } else {
            {{ port.short }}[i] = ({{ port.c_type }})(rounded(value) + ({{ port.zero_point }}));
        }
    }
}
{% endfor %}
{% for port in outputs if port.is_real %}

void {{ name }}_dequantize_{{ port.short }}(const {{ port.c_type }} *{{ port.short }}, float *values)
{
    int32_t i;
    for (i = 0; i < {{ port.count }}; ++i) {
        values[i] = (float)({{ port.short }}[i] - ({{ port.zero_point }})) * {{ port.scale }};
    }
}
{% endfor %}
{% if labels %}

static const char *const label_texts[{{ upper }}_LABEL_COUNT] = {
{% for label in labels %}
    {{ label }},
{% endfor %}
};

const char *{{ name }}_label(int32_t index)
{
    return index >= 0 && index < {{ upper }}_LABEL_COUNT ? label_texts[index] : NULL;
}
{% endif %}
"""


def header_text(graph: Graph, name: str, layers: Sequence[Layer], plan: Plan) -> str:
    """Return NAME.h."""
    return render(_HEADER, _values(graph, name, layers, plan))


def source_text(graph: Graph, name: str, layers: Sequence[Layer], plan: Plan) -> str:
    """Return NAME.c."""
    values = _values(graph, name, layers, plan)
    needs = {need for layer in layers for need in layer.needs}
    if any(port["is_real"] for port in ports(graph, "input", plan, name)):
        needs.add("rounded")
    calls = Calls(graph, name, layers, plan)
    values |= {
        "constants": constants_of(graph, name, layers, plan),
        "arithmetic": definitions(needs),
        "helpers": list(dict.fromkeys(text for layer in layers for text in layer.helpers)),
        "kernels": [
            *(text.replace("@", function) for text, function in calls.functions.items()),
            *filter(None, [calls.chain_text()]),
        ],
        "calls": calls.lines(),
        "state": plan.state,
        "arguments": ", ".join(
            _short(graph, side, i) for side in ("input", "output") for i in range(_count(graph, side))
        ),
    }
    return render(_SOURCE, values)


def constants_of(graph: Graph, name: str, layers: Sequence[Layer], plan: Plan) -> list[Constant]:
    """Return every table in flash once, in the order of use."""
    found: dict[str, Constant] = {}
    for layer in layers:
        for constant in layer.constants:
            found.setdefault(constant.name, constant)
        for index in layer.reads:
            tensor = graph.tensor(index)
            if tensor.value is not None:
                found.setdefault(constant_name(name, index), _stored(tensor, name))
    for index in graph.outputs:
        tensor = graph.tensor(index)
        if tensor.value is not None:
            found.setdefault(constant_name(name, index), _stored(tensor, name))
    return [*found.values(), *Calls(graph, name, layers, plan).chain_tables()]


def stack_bytes(layers: Sequence[Layer], plan: Plan) -> int:
    """Return the most bytes of local arrays: of a kernel, and of the function that runs chains of them."""
    chained = [at for chain in plan.chains for at in range(chain.first, chain.last + 1)]
    counters = dict.fromkeys(chained, 4 * len(chained))
    return max((layer.stack_bytes + counters.get(at, 0) for at, layer in enumerate(layers)), default=0)


def ports(graph: Graph, side: str, plan: Plan, name: str) -> list[dict[str, object]]:
    """Return what the templates need to know of the inputs or the outputs."""
    indices = graph.inputs if side == "input" else graph.outputs
    names = graph.input_names if side == "input" else graph.output_names
    made = []
    for position, index in enumerate(indices):
        tensor = graph.tensor(index)
        short = _short(graph, side, position)
        low, high = LIMITS.get(tensor.dtype, (0, 0))
        is_real = len(tensor.scales) == 1 and tensor.dtype in ("int8", "uint8", "int16") and tensor.scale > 0
        shape = " x ".join(map(str, tensor.shape)) or "one value"
        made.append(
            {
                "title": f"{side} {position}" if len(indices) > 1 else f"the {side}",
                "comment": f"{_comment(names[position])}, {tensor.dtype}, {shape}",
                "macro": f"{name.upper()}_{short.upper()}",
                "short": short,
                "c_type": tensor.c_type,
                "count": tensor.count,
                "size_bytes": tensor.size_bytes,
                "item_bytes": ITEM_BYTES[tensor.dtype],
                "offset": plan.offsets.get(index, 0),
                "place": (
                    constant_name(name, index)
                    if tensor.value is not None
                    else f"memory + {plan.offsets[index]}"
                ),
                "is_real": is_real,
                "scale": float_literal(tensor.scale) if is_real else "",
                "zero_point": tensor.zero_point if is_real else 0,
                "low": low,
                "high": high,
            }
        )
    return made


def _values(graph: Graph, name: str, layers: Sequence[Layer], plan: Plan) -> dict[str, object]:
    inputs, outputs = ports(graph, "input", plan, name), ports(graph, "output", plan, name)
    parameters = [f"const {port['c_type']} *{port['short']}" for port in inputs]
    parameters += [f"{port['c_type']} *{port['short']}" for port in outputs]
    return {
        "name": name,
        "upper": name.upper(),
        "guard": f"{name.upper()}_H",
        "sha256": graph.sha256,
        "arena_bytes": max(plan.arena_bytes, 1),
        "alignment": ALIGNMENT,
        "table_bytes": sum(constant.size_bytes for constant in constants_of(graph, name, layers, plan)),
        "stack_bytes": stack_bytes(layers, plan),
        "chains": plan.chains,
        "depth": "five" if plan.chains else "four",
        "macs": sum(layer.macs for layer in layers),
        "inputs": inputs,
        "outputs": outputs,
        "parameters": ", ".join(parameters),
        "has_state": bool(plan.state),
        "has_wide_ports": any(port["item_bytes"] != 1 for port in [*inputs, *outputs]),
        "labels": [c_string(label) for label in graph.labels],
    }


def _stored(tensor: Tensor, name: str) -> Constant:
    assert tensor.value is not None
    flat = tensor.value.reshape(-1)
    if tensor.dtype == "float32":
        return floats(constant_name(name, tensor.index), [float(value) for value in flat.tolist()])
    values = [int(value) for value in flat.tolist()]
    return integers(
        constant_name(name, tensor.index), tensor.c_type, values, tensor.size_bytes // max(tensor.count, 1)
    )


def _count(graph: Graph, side: str) -> int:
    return len(graph.inputs if side == "input" else graph.outputs)


def _short(graph: Graph, side: str, position: int) -> str:
    return f"{side}_{position}" if _count(graph, side) > 1 else side


def _comment(text: str) -> str:
    """Return a name out of a file as it may stand in a comment of C."""
    return (
        "".join(c if c.isalnum() or c in "_.:/-" else "_" for c in text)[:80]
        .replace("*/", "__")
        .replace("/*", "__")
        or "-"
    )
