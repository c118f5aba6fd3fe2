"""The inner loops of `.ewz`: an adaptive binary range coder and four interleaved rANS coders.

Imported inside functions only: numba takes half a second. All arithmetic is on int64, so that numba, plain Python
and C give the same numbers. docs/ewz.md is the exact description.

Sources: G. N. N. Martin, Range encoding (1979), with the carry of LZMA's coder; J. Duda, Asymmetric numeral
systems (2013); F. Giesen, Interleaved entropy coders (2014).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit

from edgewright.core.tensors import Array

P = ParamSpec("P")
R = TypeVar("R")

STATE_LOW, STATE_RANGE, STATE_CACHE, STATE_PENDING, STATE_AT = range(5)  # of the binary encoder
STATES = 4
RANS_LOW = 1 << 16
MAX_LEVEL = 64
MAX_ALPHABET = 256
_TOP = 1 << 24
_MASK = (1 << 32) - 1
_PROBABILITY_BITS = 22
_HALF = 1 << 21
_COUNT_LIMIT = 1023
# A context used n times moves by 1 / (n + 1.5) of its distance: the estimate of Krichevsky and Trofimov.
_RATES = np.array([131072 // (2 * count + 3) for count in range(_COUNT_LIMIT + 1)], dtype=np.int64)
# 2 ** (1/4) steps: level l has the weight _QUARTER[(l - 1) % 4] << ((l - 1) // 4).
_QUARTER = np.array([65536, 77936, 92682, 110218], dtype=np.int64)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` compiled by numba, kept on disk where a folder for that can be written."""
    try:
        made: Callable[P, R] = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder can be written
        made = njit(nogil=True)(function)
    return made


def new_encoder() -> Array:
    """Return the state of a fresh binary encoder: low, range, cache (-1: none yet), pending bytes, position."""
    return np.array([0, _MASK, -1, 0, 0], dtype=np.int64)


def new_contexts(count: int) -> Array:
    """Return `count` fresh contexts, int64 [count, 2]: probability of a 1 in 2**-22, and how often used."""
    contexts = np.zeros((count, 2), dtype=np.int64)
    contexts[:, 0] = _HALF
    return contexts


@compiled
def _shift_low(state: Array, out: Array) -> None:
    low = state[0]
    if low < 0xFF000000 or low > _MASK:
        carry = low >> 32
        at = state[4]
        if state[2] >= 0:
            out[at] = (state[2] + carry) & 0xFF
            at += 1
        while state[3] > 0:
            out[at] = (0xFF + carry) & 0xFF
            at += 1
            state[3] -= 1
        state[4] = at
        state[2] = (low >> 24) & 0xFF
    else:
        state[3] += 1
    state[0] = (low & 0x00FFFFFF) << 8


@compiled
def _adapt(contexts: Array, index: int, bit: int) -> None:
    probability = contexts[index, 0]
    count = contexts[index, 1]
    rate = _RATES[count]
    if bit:
        contexts[index, 0] = probability + ((((1 << _PROBABILITY_BITS) - probability) * rate) >> 16)
    else:
        contexts[index, 0] = probability - ((probability * rate) >> 16)
    if count < _COUNT_LIMIT:
        contexts[index, 1] = count + 1


@compiled
def _share(contexts: Array, index: int) -> int:
    """Return the probability of a 1 in 2**-16, kept within 16..65520."""
    share: int = min(max(contexts[index, 0] >> 6, 16), 65520)
    return share


@compiled
def put_bit(state: Array, out: Array, contexts: Array, index: int, bit: int) -> None:
    """Append one binary decision, coded with context `index`, and adapt it."""
    bound = (state[1] >> 16) * _share(contexts, index)
    if bit:
        state[1] = bound
    else:
        state[0] += bound
        state[1] -= bound
    _adapt(contexts, index, bit)
    while state[1] < _TOP:
        state[1] = (state[1] << 8) & _MASK
        _shift_low(state, out)


@compiled
def put_direct(state: Array, out: Array, value: int, bits: int) -> None:
    """Append the lowest `bits` bits of `value`, highest first, each at a cost of one bit."""
    for i in range(bits - 1, -1, -1):
        state[1] >>= 1
        if (value >> i) & 1:
            state[0] += state[1]
        while state[1] < _TOP:
            state[1] = (state[1] << 8) & _MASK
            _shift_low(state, out)


@compiled
def put_tree(state: Array, out: Array, contexts: Array, base: int, value: int, bits: int) -> None:
    """Append `value` < 2**bits as a path through a binary tree with its contexts at base + 1 ..."""
    node = 1
    for i in range(bits - 1, -1, -1):
        bit = (value >> i) & 1
        put_bit(state, out, contexts, base + node, bit)
        node = 2 * node + bit


@compiled
def put_integer(state: Array, out: Array, contexts: Array, base: int, value: int) -> None:
    """Append `value` >= 0: the length of value + 1 in bits by a tree of 64, then its lower bits directly."""
    length = 0
    while (value + 1) >> (length + 1):
        length += 1
    put_tree(state, out, contexts, base, length, 6)
    put_direct(state, out, (value + 1) & ((1 << length) - 1), length)


@compiled
def flush(state: Array, out: Array) -> int:
    """Write what the decoder still needs and return the length; trailing zero bytes are left out."""
    # The value in low .. low + range - 1 with the most trailing zeros says the same in the fewest bytes.
    low, top = state[0], state[0] + state[1] - 1
    for bits in range(32, -1, -1):
        mask = (1 << bits) - 1
        value = (low + mask) & ~mask
        if value <= top:
            state[0] = value
            break
    for _ in range(5):
        _shift_low(state, out)
    end = state[4]
    while end > 0 and out[end - 1] == 0:
        end -= 1
    return int(end)


@compiled
def start_decoder(state: Array, data: Array) -> None:
    """Set `state` (code, range, position) to the start of `data`, which goes on with zeros after its end."""
    state[1] = _MASK
    state[0] = 0
    state[2] = 0
    for _ in range(4):
        _next_byte(state, data)


@compiled
def _next_byte(state: Array, data: Array) -> None:
    at = state[2]
    state[0] = ((state[0] << 8) | (data[at] if at < len(data) else 0)) & _MASK
    state[2] = at + 1


@compiled
def get_bit(state: Array, data: Array, contexts: Array, index: int) -> int:
    """Return what `put_bit` appended."""
    bound = (state[1] >> 16) * _share(contexts, index)
    if state[0] < bound:
        state[1] = bound
        bit = 1
    else:
        state[0] -= bound
        state[1] -= bound
        bit = 0
    _adapt(contexts, index, bit)
    while state[1] < _TOP:
        state[1] = (state[1] << 8) & _MASK
        _next_byte(state, data)
    return bit


@compiled
def get_direct(state: Array, data: Array, bits: int) -> int:
    """Return what `put_direct` appended."""
    value = 0
    for _ in range(bits):
        state[1] >>= 1
        bit = 0
        if state[0] >= state[1]:
            state[0] -= state[1]
            bit = 1
        value = 2 * value + bit
        while state[1] < _TOP:
            state[1] = (state[1] << 8) & _MASK
            _next_byte(state, data)
    return value


@compiled
def get_tree(state: Array, data: Array, contexts: Array, base: int, bits: int) -> int:
    """Return what `put_tree` appended."""
    node = 1
    for _ in range(bits):
        node = 2 * node + get_bit(state, data, contexts, base + node)
    return node - (1 << bits)


@compiled
def get_integer(state: Array, data: Array, contexts: Array, base: int) -> int:
    """Return what `put_integer` appended, below 2**48; -1 for what no encoder writes."""
    length = get_tree(state, data, contexts, base, 6)
    if length > 47:
        return -1
    return (1 << length) + get_direct(state, data, length) - 1


@compiled
def count_planes(values: Array, planes: int, is_interleaved: bool) -> npt.NDArray[np.int64]:
    """Return int64 [planes, 256]: how often each value (uint8) occurs in each plane.

    Interleaved: value i is of plane i % planes; else the planes follow one another.
    """
    counts = np.zeros((planes, 256), dtype=np.int64)
    length = len(values) // planes
    for plane in range(planes):
        for i in range(length):
            counts[plane, values[i * planes + plane if is_interleaved else plane * length + i]] += 1
    return counts


@compiled
def get_integers(state: Array, data: Array, contexts: Array, bases: Array, out: Array) -> None:
    """Fill `out` with one integer for each of `bases`."""
    for i in range(len(bases)):
        out[i] = get_integer(state, data, contexts, bases[i])


@compiled
def put_picks(state: Array, out: Array, contexts: Array, base: int, picks: Array) -> None:
    """Append `picks`, each below 8, given the one before it; at most 4,096 in a call."""
    last = 0
    for i in range(len(picks)):
        put_tree(state, out, contexts, base + 8 * last, picks[i], 3)
        last = picks[i]


@compiled
def get_picks(state: Array, data: Array, contexts: Array, base: int, picks: Array) -> int:
    """Fill `picks` with what `put_picks` appended, and return the largest."""
    last = 0
    largest = 0
    for i in range(len(picks)):
        last = get_tree(state, data, contexts, base + 8 * last, 3)
        picks[i] = last
        largest = max(largest, last)
    return largest


@compiled
def count_blocks(values: Array, block: int, alphabet: int) -> npt.NDArray[np.int64]:
    """Return int64 [blocks, alphabet]: how often each value (uint8) occurs in each block of `block` values."""
    counts = np.zeros((-(-len(values) // block), alphabet), dtype=np.int64)
    for i in range(len(values)):
        counts[i // block, values[i]] += 1
    return counts


@compiled
def frequencies(levels: Array, bits: int) -> Array:
    """Return int64 frequencies with the sum 2**bits; a symbol of level 0 has none, every other at least 1.

    Each is the floor of its share by weight; what is missing goes to the first of the largest, and what is too
    much is taken from it one by one.
    """
    count = len(levels)
    weights = np.zeros(count, dtype=np.int64)
    for i in range(count):
        if levels[i]:
            weights[i] = _QUARTER[(levels[i] - 1) & 3] << ((levels[i] - 1) >> 2)
    # 256 weights below 2**33 and 2**15 parts stay below 2**57.
    whole = weights.sum()
    made = np.zeros(count, dtype=np.int64)
    if whole == 0:
        return made
    for i in range(count):
        if levels[i]:
            made[i] = max((weights[i] << bits) // whole, 1)
    rest = (1 << bits) - made.sum()
    if rest > 0:
        made[np.argmax(made)] += rest
    while rest < 0:
        made[np.argmax(made)] -= 1
        rest += 1
    return made


@compiled
def fill_table(levels: Array, bits: int, frequency: Array, start: Array, slot: Array) -> None:
    """Fill frequency and start (int64 [256]) of each symbol, and the symbol of each slot (uint8 [2**bits])."""
    made = frequencies(levels, bits)
    at = 0
    for symbol in range(len(made)):
        frequency[symbol] = made[symbol]
        start[symbol] = at
        for _ in range(made[symbol]):
            slot[at] = symbol
            at += 1


@compiled
def rans_encode(
    symbols: Array,
    picks: Array,
    block: int,
    frequency: Array,
    start: Array,
    bits: int,
    states: Array,
    out: Array,
    at: int,
) -> int:
    """Code `symbols` last to first into words at out[at - 1], out[at - 2], ...; return the new `at`.

    Args:
        picks: which table codes each block of `block` symbols; frequency and start are int64 [tables, 256].
        states: int64 [4], carried from the range that comes after this one.
    """
    for i in range(len(symbols) - 1, -1, -1):
        table = picks[i // block]
        share = frequency[table, symbols[i]]
        x = states[i & 3]
        if x >= share << (32 - bits):
            at -= 1
            out[at] = x & 0xFFFF
            x >>= 16
        states[i & 3] = ((x // share) << bits) + x % share + start[table, symbols[i]]
    return at


@compiled
def rans_decode(
    words: Array, at: int, end: int, states: Array, picks: Array, block: int, slot: Array, frequency: Array,
    start: Array, bits: int, symbols: Array,
) -> int:  # fmt: skip
    """Fill `symbols` from words[at:end]; return the new `at`, or -1 where the words end too early.

    Args:
        words: with four more at the end than `end`, so that a group of four need not look.
        block: a multiple of 4.
        slot: uint8 [tables, 2**bits or more] of `fill_table`; the rest as for `rans_encode`.
    """
    mask = (1 << bits) - 1
    count = len(symbols)
    x0, x1, x2, x3 = states[0], states[1], states[2], states[3]
    for first in range(0, count - 3, block):
        table = picks[first // block]
        for i in range(first, min(first + block, count - 3), 4):
            low0, low1, low2, low3 = x0 & mask, x1 & mask, x2 & mask, x3 & mask
            s0, s1, s2, s3 = slot[table, low0], slot[table, low1], slot[table, low2], slot[table, low3]
            x0 = frequency[table, s0] * (x0 >> bits) + low0 - start[table, s0]
            x1 = frequency[table, s1] * (x1 >> bits) + low1 - start[table, s1]
            x2 = frequency[table, s2] * (x2 >> bits) + low2 - start[table, s2]
            x3 = frequency[table, s3] * (x3 >> bits) + low3 - start[table, s3]
            if x0 < RANS_LOW:
                x0 = (x0 << 16) | words[at]
                at += 1
            if x1 < RANS_LOW:
                x1 = (x1 << 16) | words[at]
                at += 1
            if x2 < RANS_LOW:
                x2 = (x2 << 16) | words[at]
                at += 1
            if x3 < RANS_LOW:
                x3 = (x3 << 16) | words[at]
                at += 1
            symbols[i], symbols[i + 1], symbols[i + 2], symbols[i + 3] = s0, s1, s2, s3
            if at > end:
                return -1
    states[0], states[1], states[2], states[3] = x0, x1, x2, x3
    for i in range(count & ~3, count):
        table = picks[i // block]
        x = states[i & 3]
        low = x & mask
        symbol = slot[table, low]
        symbols[i] = symbol
        x = frequency[table, symbol] * (x >> bits) + low - start[table, symbol]
        if x < RANS_LOW:
            x = (x << 16) | words[at]
            at += 1
        states[i & 3] = x
    return at if at <= end else -1
