"""The int8 LSTM as C: for Helium (M55), for the DSP extension (M4, M7, M33), and in plain C for everything else.

The weights of a unit's four gates lie one behind the other, so that a row that was read serves all four. Sums become
16 bits as variants.py says, where the sign of a sum does for that of its product: they differ for products of 0 alone,
which come out as 0 both ways. Products of two values of 16 bits are multiplied by 2^30 / 2^31 first, so that the two
roundings together are (v + 2^(n-1) + (v < 0 ? -1 : 1)) >> n. Helium interpolates |v| in 16 bits: rest and difference of
two entries make a product whose lower bits are cut off before it is halved, which changes nothing.
Sources: Armv7E-M and Armv8.1-M manuals (SMMLAR, SMLAD, QADD16; VRHADD, VQRSHRN, VLD4, gather loads).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.microcontrollers.fixed_point import Multiplier
from edgewright.microcontrollers.layer import render

# Groups of four values that are written out one by one: a loop costs two instructions each time around.
_MOST_UNROLLED = 8
# Values of input and state that the DSP extension takes as int16, on the stack.
MOST_WIDE = 1024

_CURVES = """\
#ifndef HAS_HELIUM
/* The entries at [0] and [1] times low and high half of `parts`, which sum up to a power of two. */
static inline int32_t between(const int16_t *table, uint32_t parts, int32_t sum)
{
#ifdef HAS_DSP
    uint32_t pair;
    memcpy(&pair, table, sizeof pair);
    return both(pair, parts, sum);
#else
    return sum + table[0] * (int32_t)(parts & 0xFFFF) + table[1] * (int32_t)(parts >> 16);
#endif
}

/* Sigmoid of value / (3 * 2^12) as Q0.15. The table begins in the middle of 2^16 sigmoid(i / 24) - 2^15 for i = -256
 * to 256; `half` is 2^24 + 2^9.
 */
static inline int32_t gate_sigmoid(int32_t value, const int16_t *table, int32_t half)
{
    const uint32_t rest = (uint32_t)value & 511;
    return between(table + (value >> 9), (rest << 16) - rest + 512, half + (value >> 31)) >> 10;
}

/* tanh of value / (3 * 2^12) as Q0.15: twice the sigmoid of the double. */
static inline int32_t gate_tanh(int32_t value, const int16_t *table)
{
    uint32_t rest;
#ifdef HAS_DSP
    __asm__("ssat %0, #17, %0" : "+r"(value));
#else
    value = clamped(value, -65536, 65535);
#endif
    rest = (uint32_t)value & 255;
    return between(table + (value >> 8), (rest << 16) - rest + 256, 128 + (value >> 31)) >> 8;
}

/* Three times the sum of both parts of a gate. */
static inline int32_t gate_sum(int32_t left, int32_t right)
{
#ifdef HAS_DSP
    int32_t sum;
    __asm__("qadd16 %0, %1, %2" : "=r"(sum) : "r"(left), "r"(right));
    return 3 * (int16_t)sum;
#else
    return 3 * clamped(left + right, -32768, 32767);
#endif
}

/* left * right / 2^places for 0 < left < 2^15 and 16 bits; `half` is 2^(places - 1) + 1. */
static inline int32_t gate_product(int32_t left, int32_t right, int32_t half, int32_t places)
{
    return (half + 2 * (right >> 31) + (int16_t)left * (int16_t)right) >> places;
}

/* Of four values each, twice bytes 0 and 2, then 1 and 3, as two int16. */
static inline void widen_values(const int8_t *x, uint32_t *wide, int32_t count)
{
#ifdef HAS_DSP
    for (; count >= 4; count -= 4, x += 4, wide += 2) {
        const uint32_t four = word(x);
        __asm__("sadd16 %0, %1, %1" : "=r"(wide[0]) : "r"(even(four)));
        __asm__("sadd16 %0, %1, %1" : "=r"(wide[1]) : "r"(odd(four)));
    }
#else
    (void)x;
    (void)wide;
    (void)count;
#endif
}
#else
/* Results for |value| between two entries, turned around where `value` is negative. `at` and `rest`: of |value|. */
static inline int16x8_t with_sign(int16x8_t result, int16x8_t value)
{
    return vnegq_m_s16(result, result, vcmpltq_n_s16(value, 0));
}

/* Sigmoid of value / 2^12 as Q0.15; the table holds 2^16 sigmoid(i / 24) - 2^15, i = -256..256. */
static inline int16x8_t gate_sigmoids(int16x8_t value, const int16_t *table)
{
    const uint16x8_t size = vreinterpretq_u16_s16(vabsq_s16(value)), by = vdupq_n_u16(3 << 7);
    const uint16x8_t at = vmulhq_u16(size, by), rest = vmulq_u16(size, by);
    const int16x8_t low = vldrhq_gather_shifted_offset_s16(table + 256, at);
    const int16x8_t step = vsubq_s16(vldrhq_gather_shifted_offset_s16(table + 257, at), low);
    const uint16x8_t more = vmulhq_u16(rest, vreinterpretq_u16_s16(step));
    return vaddq_n_s16(with_sign(vrhaddq_s16(low, vreinterpretq_s16_u16(more)), value), 1 << 14);
}

/* tanh of size * by / 2^8 / (3 * 2^12) with the sign of `value`; that is no more than 255 * 2^8. */
static inline int16x8_t gate_tanhs(int16x8_t value, uint16x8_t size, uint16_t factor, const int16_t *table)
{
    const uint16x8_t by = vdupq_n_u16(factor), at = vmulhq_u16(size, by), rest = vmulq_u16(size, by);
    const int16x8_t low = vldrhq_gather_shifted_offset_s16(table + 256, at);
    const int16x8_t step = vsubq_s16(vldrhq_gather_shifted_offset_s16(table + 257, at), low);
    const uint16x8_t more = vrmulhq_u16(rest, vreinterpretq_u16_s16(step));
    return with_sign(vaddq_s16(low, vreinterpretq_s16_u16(more)), value);
}

/* |value| up to a limit. */
static inline uint16x8_t gate_size(int16x8_t value, uint16_t most)
{
    return vminq_u16(vreinterpretq_u16_s16(vabsq_s16(value)), vdupq_n_u16(most));
}

/* Products of two values of 16 bits, with what their rounding adds. */
static inline int32x4_t gate_rounded(int32x4_t value)
{
    return vaddq_s32(value, vorrq_n_s32(vshrq_n_s32(value, 31), 1));
}
#endif
"""

_SUMS = """\
{% macro products(value) %}
        const int32_t value = {{ value }};
{% for gate in range(4) %}
        s{{ gate }} += w[{{ gate * depth }}] * value;
{% endfor %}
{% endmacro %}
#ifndef HAS_HELIUM
/* sums and twice the products of {{ depth }} values with the weights of four gates. */
static inline void gate_sums_{{ depth }}(const int8_t *w, const int8_t *x, const uint32_t *wide, int32_t sums[4])
{
    int32_t k;
#ifdef HAS_DSP
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
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
    x += {{ depth - depth % 4 }};
    for (k = {{ depth - depth % 4 }}; k < {{ depth }}; ++k, ++w) {
{{ products("2 * *x++") }}
    }
{% for gate in range(4) %}
    sums[{{ gate }}] = s{{ gate }};
{% endfor %}
#else
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    (void)wide;
    for (k = 0; k < {{ depth }}; ++k, ++w) {
{{ products("*x++") }}
    }
{% for gate in range(4) %}
    sums[{{ gate }}] += 2 * s{{ gate }};
{% endfor %}
#endif
}
#endif
"""

_PART = """\
#ifndef HAS_HELIUM
/* twice * 2^{{ left - 1 }} * mantissa / 2^31 / 2^{{ places }} within 16 bits, for |twice * 2^{{ left }}| < 2^31. */
static inline int32_t gate_part_{{ left }}_{{ places }}(int32_t twice, int32_t mantissa)
{
    const int32_t more = {{ "%d + (twice >> 31)" % (2 ** (places - 1)) if places else 0 }};
    int32_t value;
{% if left %}
    twice *= {{ 2 ** left }};
{% endif %}
#ifdef HAS_DSP
    __asm__("smmlar %0, %1, %2, %3" : "=r"(value) : "r"(twice), "r"(mantissa), "r"(more));
    __asm__("ssat %0, #16, %0{{ ", asr #%d" % places if places }}" : "+r"(value));
    return value;
#else
    value = (int32_t)(((int64_t)twice * mantissa + (INT64_C(1) << 31)) >> 32) + more;
    return clamped(value{{ " >> %d" % places if places }}, -32768, 32767);
#endif
}
#endif
"""

_STEP = """\
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
{% macro part(name, row, depth, weights, number) %}
                const int8_t *{{ name }}_row = {{ row }};
                int32x4_t {{ name }} = vmlaq_n_s32(vldrwq_s32(bias + 8 * (c + k) + {{ 4 * number }}),
                    sums_of_four({{ weights }} + (c + k) * {{ 4 * depth }}, {{ depth }}, &{{ name }}_row, {{ depth }}), 2);
{% if has_left %}
                {{ name }} = vshlq_s32({{ name }}, vldrwq_s32(scales + {{ 16 + 4 * number }}));
{% endif %}
                {{ name }} = vrmulhq_s32({{ name }}, {{ name }}_by);
                {{ name }} = vaddq_s32({{ name }}, {% if is_mixed %}vandq_s32({% endif %}
                    vshrq_n_s32({{ name }}, 31){{ ", vshrq_n_s32(%s_shift, 31))" % name if is_mixed }});
                {{ name }} = vrshlq_s32({{ name }}, {{ name }}_shift);
{% endmacro %}
SHARED @(const int8_t *in, int8_t *hidden, int16_t *cell, int8_t *out, const int16_t *table, const int8_t *weights,
    const int8_t *recurrent, const int32_t *bias, const int32_t *scales)
{
    int32_t n, t, c;
#ifdef HAS_HELIUM
    int16_t gates[32] = {0};
    const int32x4_t first_by = vldrwq_s32(scales), second_by = vldrwq_s32(scales + 4);
    const int32x4_t first_shift = vldrwq_s32(scales + 8), second_shift = vldrwq_s32(scales + 12);
#else
    int32_t half = (1 << 24) + (1 << 9), keep = {{ 2 ** (keep - 1) + 1 }}, take = {{ 2 ** (take - 1) + 1 }};
#ifdef HAS_DSP
    uint32_t wide[{{ [depth // 4 * 2, 1] | max }}], wide_hidden[{{ [units // 4 * 2, 1] | max }}];
    /* So that compilers keep these instead of making them anew each time. */
    __asm__("" : "+r"(half), "+r"(keep), "+r"(take), "+r"(table), "+r"(scales));
#else
    uint32_t *const wide = 0, *const wide_hidden = 0;
#endif
    table += 256;
#endif
    for (n = 0; n < {{ batch }}; ++n, hidden += {{ units }}, cell += {{ units }}) {
        for (t = 0; t < {{ times }}; ++t) {
            const int8_t *x = in + (n * {{ in_batch }} + t * {{ in_time }}) * {{ depth }};
            int8_t *h = out + (n * {{ in_batch }} + t * {{ in_time }}) * {{ units }};
#ifdef HAS_HELIUM
            for (c = 0; c < {{ units }}; c += 8) {
                const int32_t some = {{ units }} - c < 8 ? {{ units }} - c : 8;
                const mve_pred16_t here = vctp16q((uint32_t)some);
                int16x8x4_t gate;
                int16x8_t state = vldrhq_z_s16(cell + c, here), added = state, value;
                int32x4_t low, high;
                int32_t k;
                for (k = 0; k < some; ++k) {
{% filter indent(4) %}
{{ part("first", "x", depth, "weights", 0) }}
{{- part("second", "hidden", units, "recurrent", 1) }}
{%- endfilter %}
                    value = vreinterpretq_s16_s32(first);
                    value = vqaddq_s16(vqmovnbq_s32(value, first), vqmovnbq_s32(value, second));
                    vstrhq_s32(gates + 4 * k, vreinterpretq_s32_s16(value));
                }
                gate = vld4q_s16(gates);
                value = gate_sigmoids(gate.val[1], table);
{{ product("state", "value", "state", keep) }}
                value = gate_sigmoids(gate.val[0], table);
                gate.val[2] = gate_tanhs(gate.val[2], gate_size(gate.val[2], 21760), 768, table);
{{ product("added", "value", "gate.val[2]", take) }}
                state = vqaddq_s16(state, added);
{% if clip %}
                state = vminq_s16(vmaxq_s16(state, vdupq_n_s16(-{{ clip }})), vdupq_n_s16({{ clip }}));
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
                vstrbq_p_s16(h + c, vminq_s16(vmaxq_s16(value, vdupq_n_s16(-128)), vdupq_n_s16(127)), here);
            }
#else
            widen_values(x, wide, {{ depth }});
            widen_values(hidden, wide_hidden, {{ units }});
            for (c = 0; c < {{ units }}; ++c) {
                int32_t sums[8], gates[4], state, value;
                memcpy(sums, bias + 8 * c, sizeof sums);
                gate_sums_{{ depth }}(weights + c * {{ 4 * depth }}, x, wide, sums);
                gate_sums_{{ units }}(recurrent + c * {{ 4 * units }}, hidden, wide_hidden, sums + 4);
{% for gate in gates %}
                gates[{{ loop.index0 }}] = gate_sum({{ gate[0].name }}(sums[{{ loop.index0 }}], scales[{{ loop.index0 }}]),
                    {{ gate[1].name }}(sums[{{ loop.index0 + 4 }}], scales[{{ loop.index0 + 4 }}]));
{% endfor %}
                state = gate_product(gate_sigmoid(gates[1], table, half), cell[c], keep, {{ keep }});
                state += gate_product(gate_sigmoid(gates[0], table, half), gate_tanh(gates[2], table), take, {{ take }});
                state = clamped(state, {{ "-%d, %d" % (clip, clip) if clip else "-32768, 32767" }});
                cell[c] = (int16_t)state;
{% if shift < 0 %}
                value = gate_tanh((3 * state + {{ 2 ** (-shift - 1) }}) >> {{ -shift }}, table);
{% else %}
                value = gate_tanh({{ 3 * 2**shift }} * state, table);
{% endif %}
                value = {{ give.name }}(2 * value * gate_sigmoid(gates[3], table, half), {{ give.mantissa }});
                h[c] = (int8_t)clamped(value + ({{ zero }}), -128, 127);
            }
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
    def name(self) -> str:
        """The function that multiplies by it."""
        return f"gate_part_{self.left}_{self.places}"


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
        shift: of the state before its tanh, which takes three times the state.
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
        """The table `scales`: of `sides` mantissas, places down (negative), places up."""
        return [
            *(part.mantissa for part in self.sides),
            *(-part.places for part in self.sides),
            *(part.left for part in self.sides),
        ]

    @property
    def helpers(self) -> tuple[str, ...]:
        """The functions that `text` calls, beside those of `products.four_sums`."""
        kinds = sorted({(part.left, part.places) for part in (*self.sides, self.give)})
        return (
            _CURVES,
            *(_sums(count) for count in sorted({self.depth, self.units})),
            *(render(_PART, {"left": left, "places": places}) for left, places in kinds),
        )

    @property
    def text(self) -> str:
        """The function of the layer: input, state, cell, output; middle of the sigmoid's table, weights, tables."""
        more = {
            "give": self.give, "has_left": any(part.left for part in self.sides),
            "is_mixed": any(not part.places for part in self.sides), "gates": self.gates,
        }  # fmt: skip
        return render(_STEP, {**vars(self), **more})


def _sums(depth: int) -> str:
    groups = depth // 4
    blocks = [{"times": 1, "groups": groups}] if groups <= _MOST_UNROLLED else [
        {"times": groups // 4, "groups": 4}, {"times": 1, "groups": groups % 4},
    ]  # fmt: skip
    return render(_SUMS, {"depth": depth, "blocks": [block for block in blocks if block["groups"]]})
