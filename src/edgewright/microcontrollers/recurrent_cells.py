"""The int8 LSTM as C: for Helium (M55), for the DSP extension (M4, M7, M33), and in plain C for everything else.

The weights of a unit's four gates lie one behind the other, those of the input before those of the state, so that a
row that was read serves all four. Helium makes the gates of eight units, and then computes on eight values at a time.
Sources: Armv7E-M and Armv8.1-M manuals (SMLAD, SMMLAR; VMLADAV, VLD4); `recurrent_gates` for the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.microcontrollers.fixed_point import Multiplier
from edgewright.microcontrollers.layer import render

# Groups of four values whose instructions are one string, which C99 limits to 4,095 characters.
_GROUPS = 5
# Values of input and state that the DSP extension takes as int16, on the stack.
MOST_WIDE = 1024
# Values of a row that Helium keeps in two registers; it reads whole registers of weights.
_MOST_HELD = 32
_REGISTER_BYTES = 16

_SIDE = """\
{% macro products(value) %}
        const int32_t value = {{ value }};
{% for gate in range(4) %}
        s{{ gate }} += w[{{ gate * depth }}] * value;
{% endfor %}
{% endmacro %}
#ifndef HAS_HELIUM
/* What the {{ name }} adds to the gates of a unit: 16 bits each; with the DSP extension two in a word. */
static inline void @_{{ name }}(const int8_t *w, const int8_t *x, const uint32_t *wide, const int32_t *bias,
    const int32_t *scales, int32_t parts[4])
{
#ifdef HAS_DSP
    int32_t s0 = bias[0], s1 = bias[1], s2 = bias[2], s3 = bias[3];
{% if parts | map(attribute="places") | max %}
    int32_t mantissa, half;
{% endif %}
{% for block in blocks %}
    {
        const int8_t *const end = w + {{ 4 * block.groups * block.times }};
        uint32_t four, pair, left, right;
        /* Compilers load everything first, and keep it on the stack. */
        __asm__ volatile(
{% if block.times > 1 %}
            "1:\\n"
{% endif %}
{% for group in range(block.groups) %}
            "ldrd %[left], %[right], [%[wide], #{{ 8 * group }}]\\n"
{% for gate in range(4) %}
            "ldr %[four], [%[w], #{{ gate * depth + 4 * group }}]\\n"
            "sxtb16 %[pair], %[four]\\n"
            "smlad %[s{{ gate }}], %[pair], %[left], %[s{{ gate }}]\\n"
            "sxtb16 %[pair], %[four], ror #8\\n"
            "smlad %[s{{ gate }}], %[pair], %[right], %[s{{ gate }}]\\n"
{% endfor %}
{% endfor %}
            "add %[w], #{{ 4 * block.groups }}\\n"
            "add %[wide], #{{ 8 * block.groups }}\\n"
{% if block.times > 1 %}
            "cmp %[w], %[end]\\n"
            "bne 1b"
{% endif %}
            : [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [w] "+&r"(w), [wide] "+&r"(wide),
              [four] "=&r"(four), [pair] "=&r"(pair), [left] "=&r"(left), [right] "=&r"(right)
            : [end] "r"(end)
            : "cc", "memory");
    }
{% endfor %}
{% if depth % 4 %}
    const int8_t *const last = w + {{ depth % 4 }};
    for (x += {{ depth - depth % 4 }}; w < last; ++w) {
{{ products("2 * *x++") }}
    }
{% endif %}
    (void)x;
    (void)wide;
{% for part in parts %}
{% set gate = loop.index0 %}
{% if part.left %}
    s{{ gate }} *= {{ 2 ** part.left }};
{% endif %}
{% if part.places %}
    __asm__(
        "ldrd %1, %2, [%3, #{{ 8 * (gate + first) }}]\\n"
        "add %2, %2, %0, asr #31\\n"
        "smmlar %0, %0, %1, %2\\n"
        "ssat %0, #16, %0, asr #{{ part.places }}"
        : "+&r"(s{{ gate }}), "=&r"(mantissa), "=&r"(half) : "r"(scales));
{% else %}
    __asm__("smmulr %0, %0, %1" : "+r"(s{{ gate }}) : "r"(scales[{{ 2 * (gate + first) }}]));
    __asm__("ssat %0, #16, %0" : "+r"(s{{ gate }}));
{% endif %}
{% endfor %}
    parts[0] = gate_pair(s0, s1);
    parts[1] = gate_pair(s2, s3);
#else
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, k;
    (void)wide;
    for (k = 0; k < {{ depth }}; ++k, ++w) {
{{ products("*x++") }}
    }
{% for part in parts %}
{% set gate, at = loop.index0, 2 * (loop.index0 + first) %}
    parts[{{ gate }}] = gate_part((bias[{{ gate }}] + 2 * s{{ gate }}){{ " * %d" % 2 ** part.left if part.left }},
        scales[{{ at }}], scales[{{ at + 1 }}], {{ part.places }});
{% endfor %}
#endif
}
#endif

"""

_HELIUM = """\
{% macro product(to, left, right, places) %}
                low = gate_rounded(vmullbq_int_s16({{ left }}, {{ right }}));
                high = gate_rounded(vmulltq_int_s16({{ left }}, {{ right }}));
{% if places <= 16 %}
                {{ to }} = vqrshrntq_n_s32(vqrshrnbq_n_s32({{ to }}, low, {{ places }}), high, {{ places }});
{% else %}
                {{ to }} = vmovntq_s32(vmovnbq_s32({{ to }}, vrshrq_n_s32(low, {{ places }})),
                    vrshrq_n_s32(high, {{ places }}));
{% endif %}
{% endmacro %}
{% macro held(name, row, count) %}
{% for begin in range(0, count, 16) %}
            const int8x16_t {{ name }}{{ loop.index0 }} =
                {{ "vldrbq_s8(%s + %d)" % (row, begin) if count - begin >= 16
                   else "vldrbq_z_s8(%s + %d, vctp8q(%d))" % (row, begin, count - begin) }};
{% endfor %}
{% endmacro %}
{% macro sums(to, row, count, first) %}
{% for gate in range(4) %}
                    "vldrb.8 %q[q], [%[w], #{{ gate * count }}]\\n"
                    "vmladav.s8 %[s{{ gate }}], %q[{{ row }}0], %q[q]\\n"
{% if count > 16 %}
                    "vldrb.8 %q[q], [%[w], #{{ gate * count + 16 }}]\\n"
                    "vmladava.s8 %[s{{ gate }}], %q[{{ row }}1], %q[q]\\n"
{% endif %}
{% endfor %}
                    "vmov %q[q][2], %q[q][0], %[s0], %[s2]\\n"
                    "vmov %q[q][3], %q[q][1], %[s1], %[s3]\\n"
                    "vldrw.32 %q[{{ to }}], [%[start]], #16\\n"
                    "vmla.s32 %q[{{ to }}], %q[q], %[two]\\n"
                    "vldrw.32 %q[q], [%[by], #{{ 4 * first }}]\\n"
                    "vrmulh.s32 %q[{{ to }}], %q[{{ to }}], %q[q]\\n"
                    "vshr.s32 %q[q], %q[{{ to }}], #31\\n"
                    "vadd.i32 %q[{{ to }}], %q[{{ to }}], %q[q]\\n"
                    "vldrw.32 %q[q], [%[by], #{{ 4 * first + 32 }}]\\n"
                    "vrshl.s32 %q[{{ to }}], %q[{{ to }}], %q[q]\\n"
                    "vqmovnb.s32 %q[{{ to }}], %q[{{ to }}]\\n"
                    "add %[w], #{{ 4 * count }}\\n"
{% endmacro %}
{% macro part(name, row, count, weights, first) %}
                    row = {{ row }};
                    {{ name }} = sums_of_four({{ weights }}, {{ count }}, &row, {{ count }});
                    {{ name }} = vmlaq_n_s32(vldrwq_s32(start + {{ first }}), {{ name }}, 2);
{% if has_left %}
                    {{ name }} = vshlq_s32({{ name }}, vldrwq_s32(by + {{ 16 + first }}));
{% endif %}
                    {{ name }} = vrmulhq_s32({{ name }}, vldrwq_s32(by + {{ first }}));
{% if is_mixed %}
                    sign = vandq_s32(vshrq_n_s32({{ name }}, 31), vshrq_n_s32(vldrwq_s32(by + {{ 8 + first }}), 31));
{% else %}
                    sign = vshrq_n_s32({{ name }}, 31);
{% endif %}
                    {{ name }} = vaddq_s32({{ name }}, sign);
                    {{ name }} = vrshlq_s32({{ name }}, vldrwq_s32(by + {{ 8 + first }}));
{% endmacro %}
{% if is_held %}
{{ held("x", "x", depth) }}
{{- held("hidden", "hidden", units) }}
{%- endif %}
            w = weights;
            start = bias;
            for (c = 0; c < {{ units }}; c += 8) {
                const int32_t some = {{ units }} - c < 8 ? {{ units }} - c : 8;
                const mve_pred16_t here = vctp16q((uint32_t)some);
                int16x8x4_t gate;
                int16x8_t state = vldrhq_z_s16(cell + c, here), added = state, value;
                int32x4_t low, high, first, second;
{% if is_held %}
                int32_t s0, s1, s2, s3;
                int16_t *to = gates;
                /* Compilers add offsets one by one, and keep what does not change on the stack. */
                __asm__ volatile(
                    "dls lr, %[some]\\n"
                    "1:\\n"
{{ sums("first", "x", depth, 0) }}
{{- sums("second", "h", units, 4) }}
                    "vqadd.s16 %q[first], %q[first], %q[second]\\n"
                    "vstrh.32 %q[first], [%[to]], #8\\n"
                    "le lr, 1b"
                    : [s0] "=&Te"(s0), [s1] "=&Te"(s1), [s2] "=&Te"(s2), [s3] "=&Te"(s3), [w] "+&r"(w),
                      [start] "+&r"(start), [to] "+&l"(to), [q] "=&w"(low), [first] "=&w"(first), [second] "=&w"(second)
                    : [some] "r"(some), [by] "r"(by), [two] "r"(2),
                      {% for count, name, row in ((depth, "x", "x"), (units, "h", "hidden")) %}
                      {% for number in range(2 if count > 16 else 1) %}
[{{ name }}{{ number }}] "w"({{ row }}{{ number }}){{ ", " if not loop.last }}
                      {%- endfor %}{{ ", " if not loop.last }}
                      {%- endfor %}

                    : "lr", "memory");
{% else %}
                int32_t k;
                for (k = 0; k < some; ++k, w += {{ 4 * (depth + units) }}, start += 8) {
                    const int8_t *row;
                    int32x4_t sign;
{{ part("first", "x", depth, "w", 0) }}
{{- part("second", "hidden", units, "w + %d" % (4 * depth), 4) }}
                    value = vqmovnbq_s32(vreinterpretq_s16_s32(first), first);
                    value = vqaddq_s16(value, vqmovnbq_s32(vreinterpretq_s16_s32(second), second));
                    vstrhq_s32(gates + 4 * k, vreinterpretq_s32_s16(value));
                }
{% endif %}
                gate = vld4q_s16(gates);
                value = gate_sigmoids(gate.val[1], table);
{{ product("state", "value", "state", keep) }}
                value = gate_sigmoids(gate.val[0], table);
                gate.val[2] = gate_tanhs(gate.val[2], gate_size(gate.val[2], 21760), 768, table);
{{ product("added", "value", "gate.val[2]", take) }}
                state = vqaddq_s16(state, added);
{% if clip %}
                state = vmaxq_s16(state, vdupq_n_s16(-{{ clip }}));
{% endif %}
{% if 0 < clip < 32767 %}
                state = vminq_s16(state, vdupq_n_s16({{ clip }}));
{% endif %}
                vstrhq_p_s16(cell + c, state, here);
{% if shift < 0 %}
                low = vrshrq_n_s32(vmullbq_int_s16(state, vdupq_n_s16(3)), {{ -shift }});
                high = vrshrq_n_s32(vmulltq_int_s16(state, vdupq_n_s16(3)), {{ -shift }});
                value = vmovntq_s32(vmovnbq_s32(state, vabsq_s32(low)), vabsq_s32(high));
                value = gate_tanhs(state, vreinterpretq_u16_s16(value), 256, table);
{% else %}
                value = gate_tanhs(state, gate_size(state, {{ 21760 // 2**shift }}), {{ 768 * 2**shift }}, table);
{% endif %}
                gate.val[3] = gate_sigmoids(gate.val[3], table);
                low = vqrdmulhq_n_s32(vmullbq_int_s16(gate.val[3], value), {{ give.mantissa }});
                high = vqrdmulhq_n_s32(vmulltq_int_s16(gate.val[3], value), {{ give.mantissa }});
{% if give.places %}
                low = vrshrq_n_s32(vaddq_s32(low, vshrq_n_s32(low, 31)), {{ give.places }});
                high = vrshrq_n_s32(vaddq_s32(high, vshrq_n_s32(high, 31)), {{ give.places }});
{% endif %}
                value = vqaddq_n_s16(vqmovntq_s32(vqmovnbq_s32(value, low), high), {{ zero }});
                value = vreinterpretq_s16_s8(vqmovnbq_s16(vreinterpretq_s8_s16(value), value));
                vstrbq_p_s16(h + c, value, here);
            }
"""

_SCALAR = """\
            widen_values(x, wide, {{ depth }});
            widen_values(hidden, wide_hidden, {{ units }});
            for (c = 0; c < {{ units }}; ++c) {
                const int8_t *const w = weights + c * {{ 4 * (depth + units) }};
                int32_t first[4], second[4], gate[4], state, value;
                @_input(w, x, wide, bias + 8 * c, scales, first);
                @_state(w + {{ 4 * depth }}, hidden, wide_hidden, bias + 8 * c + 4, scales, second);
#ifdef HAS_DSP
                gate_values(first[0], second[0], gate);
                gate_values(first[1], second[1], gate + 2);
#else
                for (k = 0; k < 4; ++k) {
                    gate[k] = 3 * gate_sum(first[k], second[k]);
                }
#endif
                state = gate_product(gate_sigmoid(gate[1], table, half), cell[c], keep, {{ keep }});
                value = gate_product(gate_sigmoid(gate[0], table, half), gate_tanh(gate[2], table), take, {{ take }});
{% if clip == 32767 %}
                /* Instructions limit to -32768 as well. */
                state = gate_sum(-gate_sum(-state, -value), 0);
{% elif clip %}
                state = gate_sum(state, value);
                state = state < -{{ clip }} ? -{{ clip }} : state > {{ clip }} ? {{ clip }} : state;
{% else %}
                state = gate_sum(state, value);
{% endif %}
                cell[c] = (int16_t)state;
{% if shift < 0 %}
                value = gate_tanh((3 * state + {{ 2 ** (-shift - 1) }}) >> {{ -shift }}, table);
{% else %}
                value = gate_tanh({{ 3 * 2**shift }} * state, table);
{% endif %}
                value *= 2 * gate_sigmoid(gate[3], table, half);
#ifdef HAS_DSP
                __asm__("smmlar %0, %0, %1, %2" : "+r"(value) : "r"({{ give.mantissa }}),
                    "r"({{ "%d + (value >> 31)" % give.half if give.places else 0 }}));
{% if zero or not give.places %}
                value = (value >> {{ give.places }}) + ({{ zero }});
                __asm__("ssat %0, #8, %0" : "+r"(value));
{% else %}
                __asm__("ssat %0, #8, %0, asr #{{ give.places }}" : "+r"(value));
{% endif %}
#else
                value = gate_part(value, {{ give.mantissa }}, {{ give.half }}, {{ give.places }});
                value = gate_limited(value + ({{ zero }}), -128, 127);
#endif
                h[c] = (int8_t)value;
            }
"""

_LAYER = """\
SHARED @(const int8_t *in, int8_t *hidden, int16_t *cell, int8_t *out, const int16_t *table, const int8_t *weights,
    const int32_t *bias, const int32_t *scales)
{
    int32_t n, t, c;
#ifdef HAS_HELIUM
    int16_t gates[32] = {0};
    const int8_t *w;
    const int32_t *start, *by = scales + 16;
#else
    int32_t half = (1 << 24) + (1 << 9), keep = {{ 2 ** (keep - 1) + 1 }}, take = {{ 2 ** (take - 1) + 1 }};
#ifdef HAS_DSP
    uint32_t wide[{{ [depth // 4 * 2, 1] | max }}], wide_hidden[{{ [units // 4 * 2, 1] | max }}];
    /* So that compilers keep these instead of making them anew each time. */
    __asm__("" : "+r"(half), "+r"(keep), "+r"(take), "+r"(table), "+r"(scales));
#else
    uint32_t *const wide = 0, *const wide_hidden = 0;
    int32_t k;
#endif
#endif
    table += 512;
    for (n = 0; n < {{ batch }}; ++n, hidden += {{ units }}, cell += {{ units }}) {
        for (t = 0; t < {{ times }}; ++t) {
            const int8_t *x = in + (n * {{ in_batch }} + t * {{ in_time }}) * {{ depth }};
            int8_t *h = out + (n * {{ in_batch }} + t * {{ in_time }}) * {{ units }};
#ifdef HAS_HELIUM
{{ helium }}
#else
{{ scalar }}
#endif
            memcpy(hidden, h, {{ units }});
        }
    }
}
"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A multiplier: its mantissa, `left` places up before it and `places` down behind it."""

    mantissa: int
    left: int
    places: int

    @property
    def half(self) -> int:
        """What rounds."""
        return 1 << self.places >> 1


def part_of(by: Multiplier) -> Part:
    """Return `by` as the functions take it."""
    return Part(mantissa=by.mantissa, left=max(by.shift, 0), places=max(-by.shift, 0))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The numbers of a layer.

    Attributes:
        depth, units, batch, times: of the input [batch, times, depth] and of the state.
        in_batch, in_time: steps from one batch, and from one time to the next, in rows of the input and the output.
        gates: of input, forget, cell and output, the multipliers of input and state.
        keep, take: places of the products that make the state; see `gate_product`.
        shift: of three times the state, before its tanh.
        give: of the output.
        zero: of the output.
        clip: of the state; 0: 16 bits.
    """

    depth: int
    units: int
    batch: int
    times: int
    in_batch: int
    in_time: int
    gates: tuple[tuple[Part, Part], ...]
    keep: int
    take: int
    shift: int
    give: Part
    zero: int
    clip: int

    @property
    def sides(self) -> tuple[Part, ...]:
        """The multipliers of the input, then those of the state."""
        return tuple(gate[side] for side in (0, 1) for gate in self.gates)

    @property
    def scales(self) -> list[int]:
        """The table `scales`: of `sides` mantissas with what rounds; mantissas, places down (negative), places up."""
        return [
            *(value for part in self.sides for value in (part.mantissa, part.half)),
            *(part.mantissa for part in self.sides),
            *(-part.places for part in self.sides),
            *(part.left for part in self.sides),
        ]

    @property
    def filling(self) -> int:
        """How many zeros end the table of weights, as the last of them are read by whole registers."""
        return -self.units % _REGISTER_BYTES

    @property
    def is_held(self) -> bool:
        """Whether Helium keeps the rows in registers; else it calls sums_of_four."""
        is_common = all(part.places and not part.left for part in self.sides)
        return max(self.depth, self.units) <= _MOST_HELD and is_common

    @property
    def text(self) -> str:
        """The functions of the layer, which call those of `recurrent_gates` and `products.word_products`.

        Arguments: input, state, cell, output; the table of the sigmoid; for each unit weights of the gates for the
        input and the state, and twice what the sums begin with; `scales`.
        """
        values = vars(self) | {
            "is_held": self.is_held,
            "has_left": any(part.left for part in self.sides),
            "is_mixed": any(not part.places for part in self.sides),
        }
        sides = [
            render(_SIDE, {"name": name, "depth": depth, "first": first, "parts": self.sides[first : first + 4],
                           "blocks": _blocks(depth)})
            for name, depth, first in (("input", self.depth, 0), ("state", self.units, 4))
        ]  # fmt: skip
        whole = render(
            _LAYER, values | {"helium": render(_HELIUM, values), "scalar": render(_SCALAR, values)}
        )
        return "".join((*sides, whole))


def _blocks(depth: int) -> list[dict[str, int]]:
    """Return which numbers of groups of four values are computed how often: each turn of a loop costs instructions."""
    times, rest = divmod(depth // 4, _GROUPS)
    blocks = [*([(1, _GROUPS)] * times if times < 3 else [(times, _GROUPS)]), *([(1, rest)] if rest else [])]
    return [{"times": times, "groups": groups} for times, groups in blocks]
