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

Coder = tuple[int, int, int]  # of the binary decoder: code, range, position
STATE_LOW, STATE_RANGE, STATE_CACHE, STATE_PENDING, STATE_AT = range(5)  # of the binary encoder
STATES = 4
RANS_LOW = 1 << 16
MAX_LEVEL = 64
MAX_ALPHABET = 256
MAX_INTEGER_BITS = 47
_TOP = 1 << 24
_MASK = (1 << 32) - 1
_PROBABILITY_BITS = 22
_HALF = 1 << 21
_COUNT_LIMIT = 1023
# A context used n times moves by 1 / (n + 1.5) of its distance: the estimate of Krichevsky and Trofimov.
_RATES = np.array([131072 // (2 * count + 3) for count in range(_COUNT_LIMIT + 1)], dtype=np.int64)
# 2 ** (1/4) steps: level l has the weight _QUARTER[(l - 1) % 4] << ((l - 1) // 4), and level 0 none.
_QUARTER = (65536, 77936, 92682, 110218)
_WEIGHTS = np.array([0] + [_QUARTER[i & 3] << (i >> 2) for i in range(MAX_LEVEL)], dtype=np.int64)


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
def start_decoder(data: Array) -> Coder:
    """Return the state at the start of `data` (uint8), which goes on with zeros after its end."""
    code = 0
    width = 0  # not at once _MASK, a constant: numba would compile all for it once more
    at = 0
    while at < 4:
        code = (code << 8) | (data[at] if at < len(data) else 0)
        width = width << 8 | 0xFF
        at += 1
    return code, width, at


@compiled
def _refilled(coder: Coder, data: Array) -> Coder:
    code, width, at = coder
    while width < _TOP:
        width <<= 8
        code = ((code << 8) | (data[np.uint64(at)] if at < len(data) else 0)) & _MASK
        at += 1
    return code, width, at


@compiled
def get_bit(coder: Coder, data: Array, contexts: Array, index: int) -> tuple[int, Coder]:
    """Return what `put_bit` appended, and the state after it."""
    code, width, at = coder
    place = np.uint64(index)
    probability = contexts[place, 0]
    count = contexts[place, 1]
    rate = _RATES[np.uint64(count)]
    bound = (width >> 16) * min(max(probability >> 6, 16), 65520)
    if code < bound:
        bit = 1
        width = bound
        contexts[place, 0] = probability + ((((1 << _PROBABILITY_BITS) - probability) * rate) >> 16)
    else:
        bit = 0
        code -= bound
        width -= bound
        contexts[place, 0] = probability - ((probability * rate) >> 16)
    contexts[place, 1] = min(count + 1, _COUNT_LIMIT)
    return bit, _refilled((code, width, at), data)


@compiled
def get_direct(coder: Coder, data: Array, bits: int) -> tuple[int, Coder]:
    """Return what `put_direct` appended, and the state after it."""
    value = 0
    for _ in range(bits):
        code, width, at = coder
        width >>= 1
        bit = 0
        if code >= width:
            code -= width
            bit = 1
        value = 2 * value + bit
        coder = _refilled((code, width, at), data)
    return value, coder


@compiled
def get_tree(coder: Coder, data: Array, contexts: Array, base: int, bits: int) -> tuple[int, Coder]:
    """Return what `put_tree` appended, and the state after it."""
    node = 1
    for _ in range(bits):
        bit, coder = get_bit(coder, data, contexts, base + node)
        node = 2 * node + bit
    return node - (1 << bits), coder


@compiled
def get_integer(coder: Coder, data: Array, contexts: Array, base: int, limit: int) -> tuple[int, Coder]:
    """Return what `put_integer` appended, and the state after it; -1 where it is more than `limit`."""
    length, coder = get_tree(coder, data, contexts, base, 6)
    if length > MAX_INTEGER_BITS:
        return -1, coder
    low, coder = get_direct(coder, data, length)
    value = (1 << length) + low - 1
    return (value if value <= limit else -1), coder


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
def put_picks(state: Array, out: Array, contexts: Array, base: int, picks: Array) -> None:
    """Append `picks`, each below 8, given the one before it; at most 4,096 in a call."""
    last = 0
    for i in range(len(picks)):
        put_tree(state, out, contexts, base + 8 * last, picks[i], 3)
        last = picks[i]


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
    made = np.zeros(len(levels), dtype=np.int64)
    whole = 0
    for level in levels:
        whole += _WEIGHTS[level]
    if whole == 0:
        return made
    # 256 weights below 2**32 and 2**15 parts stay below 2**55.
    shares = np.maximum((_WEIGHTS << bits) // whole, 1)
    shares[0] = 0
    for i in range(len(levels)):
        made[i] = shares[levels[i]]
    rest = (1 << bits) - made.sum()
    if rest > 0:
        made[np.argmax(made)] += rest
    while rest < 0:
        # As many at once as leave it the largest.
        first = np.argmax(made)
        most = made[first]
        made[first] = 0
        taken = min(max(most - made.max(), 1), -rest)
        made[first] = most - taken
        rest += taken
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
