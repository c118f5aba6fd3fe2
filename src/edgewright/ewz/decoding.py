"""A frame from its control and words to its content, in one compiled pass: a call for each range would cost more.

Imported inside functions only, like `kernels`. docs/ewz.md is the exact description. Indices that depend on what was
read are made unsigned: numba then leaves out what Python's negative indices need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgewright.core.errors import IntegrityError
from edgewright.core.tensors import Array
from edgewright.ewz.choice import MAX_BITS, MIN_BITS, MIN_RANGE_BYTES
from edgewright.ewz.container import FRAME_BYTES, RANGE_DIGEST_BYTES
from edgewright.ewz.control import FIELD_SIZE, KEPT_TABLES, LEVELS_AT, MAX_TABLES, PICKS_AT, WORDS_AT, Field
from edgewright.ewz.kernels import (
    MAX_ALPHABET,
    RANS_LOW,
    STATES,
    Coder,
    compiled,
    frequencies,
    get_direct,
    get_integer,
    get_tree,
    new_contexts,
    start_decoder,
)
from edgewright.ewz.rest import Method
from edgewright.ewz.symbols import MAX_STRIDE, Kind
from edgewright.ewz.tables import TABLE_CONTEXTS, get_levels

_STATE_WORDS = 2 * STATES
_PADDING = 4  # words after the last, so that a group of four symbols need not look
_BATCH = 4096  # symbols decoded before they are put in their places
_BYTES, _NIBBLES, _WORDS16, _WORDS32 = (int(kind) for kind in Kind)
_NUMBER, _STATE, _RANGE, _NO_WORDS, _TABLE, _PICK, _END = range(-7, 0)
_BROKEN = {
    _NUMBER: "its control holds a number that is larger than it can be",
    _STATE: "a frame begins with a state that no writer makes",
    _RANGE: "its control says a range that is too short, too long, or of broken strides",
    _NO_WORDS: "a frame has ranges, but no words",
    _TABLE: "its control holds a table that no writer makes",
    _PICK: "its control picks a table that is not there",
    _END: "the words of a frame do not end where they should",
}
# As arrays: numba compiles a function anew for each constant that it is called with.
_FIELDS = np.array([FIELD_SIZE * field for field in Field], dtype=np.int64)
_MOST = np.zeros(len(Field), dtype=np.int64)
_MOST[Field.METHOD] = max(Method)
_MOST[Field.KIND] = max(Kind)
_MOST[Field.COUNT] = FRAME_BYTES // 2
_MOST[Field.STRIDE] = MAX_STRIDE - 1
_MOST[Field.BITS] = MAX_BITS - MIN_BITS
_MOST[Field.TABLES] = MAX_TABLES - 1
_MOST[Field.CODEBOOK] = MAX_ALPHABET - 1
_FRAME, _METHOD, _GAP, _CODEBOOK, _REUSE, _BLOCK = (
    int(field) for field in (Field.FRAME, Field.METHOD, Field.GAP, Field.CODEBOOK, Field.REUSE, Field.BLOCK)
)
_SHAPE = np.array([Field.KIND, Field.COUNT, Field.STRIDE, Field.BITS, Field.TABLES], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A frame whose ranges are there, and whose rest is not.

    Attributes:
        content: uint8, of the frame; zeros outside of the ranges.
        coded_bytes: of all ranges together.
        spans: int64 [ranges, 3]: start and end in the content, and the first four bytes of the digest as a number.
        method: of the rest.
    """

    content: npt.NDArray[np.uint8]
    spans: npt.NDArray[np.int64]
    coded_bytes: int
    method: int


class FrameDecoder:
    """Decodes one frame after the other; contexts and tables live as long as the file."""

    def __init__(self) -> None:
        self._contexts = new_contexts(LEVELS_AT + TABLE_CONTEXTS)
        # Tables of n symbols begin at _kept_at(n); memory that is not touched is not taken.
        self._kept = np.zeros(_kept_at(MAX_ALPHABET + 1), dtype=np.int8)
        self._made = np.zeros(MAX_ALPHABET + 1, dtype=np.int64)
        self._slots = np.zeros((MAX_TABLES, 1 << MAX_BITS), dtype=np.uint8)
        self._shares = np.zeros((MAX_TABLES, MAX_ALPHABET), dtype=np.uint32)
        self._batch = np.zeros(_BATCH, dtype=np.uint8)

    def decode(self, control: bytes, packed: bytes, most: int) -> Decoded:
        """Decode the ranges of the next frame, of at most `most` bytes, from its control and its words `packed`.

        Raises:
            IntegrityError: no writer makes this.
        """
        if packed and (len(packed) < 2 * _STATE_WORDS or len(packed) % 2):
            raise IntegrityError(f"a frame has {len(packed)} bytes of words")
        words = np.zeros(len(packed) // 2 + _PADDING, dtype=np.uint16)
        words[:-_PADDING] = np.frombuffer(packed, dtype="<u2")
        data = np.frombuffer(control, dtype=np.uint8)
        size, coder = _start(data, self._contexts, most)
        if size == 0:
            raise IntegrityError(f"a frame is longer than the {most} bytes that it can have")
        content = np.zeros(size, dtype=np.uint8)
        spans = np.empty((size // MIN_RANGE_BYTES, 3), dtype=np.int64)
        picks = np.empty(size // 2 + 1, dtype=np.uint8)  # of at least 4 symbols each, 2 a byte
        ranges, method = _read_ranges(
            coder, data, self._contexts, self._kept, self._made, words, content, spans,
            picks, self._slots, self._shares, self._batch,
        )  # fmt: skip
        if ranges < 0:
            raise IntegrityError(_BROKEN[ranges])
        spans = spans[:ranges]
        coded = int((spans[:, 1] - spans[:, 0]).sum())
        return Decoded(content=content, spans=spans, coded_bytes=coded, method=method)


@compiled
def _kept_at(alphabet: int) -> int:
    return KEPT_TABLES * (alphabet * (alphabet - 1) // 2)


@compiled
def _start(data: Array, contexts: Array, most: int) -> tuple[int, Coder]:
    """Return the bytes of the frame, 0 where they are more than `most`, and the state of the decoder of its control."""
    size, coder = get_integer(start_decoder(data), data, contexts, _FIELDS[_FRAME], most - 1)
    return size + 1, coder


@compiled
def _read_ranges(
    coder: Coder, data: Array, contexts: Array, kept: Array, made: Array, words: Array, content: Array, spans: Array,
    picks: Array, slots: Array, shares: Array, batch: Array,
) -> tuple[int, int]:  # fmt: skip
    """Fill `content` and `spans`; return the number of ranges and the method of the rest.

    What is broken gives a number of `_BROKEN`: an exception of compiled code never gives its arrays back.
    """
    shape = np.zeros(len(_SHAPE), dtype=np.int64)
    codebook = np.zeros((MAX_ALPHABET, 4), dtype=np.uint8)
    end = len(words) - _PADDING
    states = np.full(STATES, RANS_LOW, dtype=np.int64)
    if end:
        for i in range(STATES):
            states[i] = words[2 * i] | int(words[2 * i + 1]) << 16
            if states[i] < RANS_LOW:
                return _STATE, 0
    at_word = min(end, _STATE_WORDS)
    size = len(content)
    at = 0
    ranges = 0
    gap, coder = get_integer(coder, data, contexts, _FIELDS[_GAP], size + 1)
    while gap > 0:
        at += gap - 1
        room = size - at
        for i in range(len(_SHAPE)):
            field = _SHAPE[i]
            shape[i], coder = get_integer(coder, data, contexts, _FIELDS[field], _MOST[field])
            if shape[i] < 0:
                return _NUMBER, 0
        kind, fours, stride, bits, tables = (
            shape[0],
            shape[1],
            shape[2] + 1,
            shape[3] + MIN_BITS,
            shape[4] + 1,
        )
        count = 4 * fours
        width = 4 if kind == _WORDS32 else 2 if kind == _WORDS16 else 1
        length = count // 2 if kind == _NIBBLES else count * width
        if length < MIN_RANGE_BYTES or length > room or count % (4 * stride):
            return _RANGE, 0
        if end == 0:
            return _NO_WORDS, 0
        alphabet = 16 if kind == _NIBBLES else MAX_ALPHABET
        if width > 1:
            alphabet, coder = get_integer(coder, data, contexts, _FIELDS[_CODEBOOK], _MOST[_CODEBOOK])
            alphabet += 1
            if alphabet == 0:
                return _NUMBER, 0
            for i in range(alphabet):
                for place in range(width - 1, -1, -1):  # the highest byte first
                    base = WORDS_AT + 256 * (3 - place)
                    codebook[i, place], coder = get_tree(coder, data, contexts, base, 8)
        for table in range(tables):
            is_good, levels, coder = _table(coder, data, contexts, kept, made, alphabet)
            if not is_good:
                return _TABLE, 0
            _fill(levels, bits, slots[table], shares[table])
        block = count
        picks[0] = 0
        if tables > 1:
            block, coder = get_integer(coder, data, contexts, _FIELDS[_BLOCK], fours - 1)
            if block < 0:
                return _NUMBER, 0
            block = 4 * (block + 1)
            last = 0
            for i in range(-(-count // block)):
                last, coder = get_tree(coder, data, contexts, PICKS_AT + 8 * last, 3)
                if last >= tables:
                    return _PICK, 0
                picks[i] = last
        spans[ranges, 0] = at
        spans[ranges, 1] = at + length
        spans[ranges, 2], coder = get_direct(coder, data, 8 * RANGE_DIGEST_BYTES)
        at_word = _decode(
            words, at_word, states, picks, block, slots, shares, bits, count, batch,
            content[at : at + length], kind, stride, codebook,
        )  # fmt: skip
        if at_word > end:
            return _END, 0
        at += length
        ranges += 1
        gap, coder = get_integer(coder, data, contexts, _FIELDS[_GAP], size - at + 1)
    method, coder = get_integer(coder, data, contexts, _FIELDS[_METHOD], _MOST[_METHOD])
    if gap < 0 or method < 0:
        return _NUMBER, 0
    if at_word != end or states.min() != RANS_LOW or states.max() != RANS_LOW:
        return _END, 0
    return ranges, method


@compiled
def _table(
    coder: Coder, data: Array, contexts: Array, kept: Array, made: Array, alphabet: int
) -> tuple[bool, Array, Coder]:
    """Return the levels of the next table of a range: one that was kept, or a new one, which is kept then.

    Before them stands whether a writer makes this, behind them the state after it.
    """
    first = _kept_at(alphabet)
    number = made[alphabet]
    reuse, coder = get_integer(coder, data, contexts, _FIELDS[_REUSE], min(number, KEPT_TABLES))
    at = first + alphabet * ((number - reuse) % KEPT_TABLES)
    levels = kept[at : at + alphabet]
    is_good = reuse >= 0
    if reuse == 0:
        before = first + alphabet * ((number - 1) % KEPT_TABLES)
        reference = kept[before : before + alphabet] if number else kept[:0]
        is_good, coder = get_levels(coder, data, contexts, LEVELS_AT, levels, reference)
        made[alphabet] = number + 1
    return is_good, levels, coder


@compiled
def _fill(levels: Array, bits: int, slots: Array, shares: Array) -> None:
    """Fill the symbol of each slot, and of each symbol its frequency, with its start above bit 16."""
    start = 0
    made = frequencies(levels, bits)
    for symbol in range(len(made)):
        frequency = made[symbol]
        shares[symbol] = frequency | start << 16
        for _ in range(frequency):
            slots[start] = symbol
            start += 1


@compiled
def _decode(
    words: Array, at: int, states: Array, picks: Array, block: int, slots: Array, shares: Array, bits: int,
    count: int, batch: Array, out: Array, kind: int, stride: int, codebook: Array,
) -> int:  # fmt: skip
    """Fill `out` with `count` symbols from words[at] on; return the new `at`, past the end where words are missing."""
    mask = (1 << bits) - 1
    end = len(words) - _PADDING
    x0, x1, x2, x3 = states[0], states[1], states[2], states[3]
    left = 0  # of the block
    number = 0
    table = picks[0]
    for first in range(0, count, _BATCH):
        size = min(_BATCH, count - first)
        i = 0
        while i < size:
            if left == 0:
                left = block
                table = picks[np.uint64(number)]
                number += 1
            run = min(left, size - i)
            left -= run
            slot = slots[table]
            share = shares[table]
            for k in range(i, i + run, 4):
                low0, low1, low2, low3 = x0 & mask, x1 & mask, x2 & mask, x3 & mask
                s0, s1 = slot[np.uint64(low0)], slot[np.uint64(low1)]
                s2, s3 = slot[np.uint64(low2)], slot[np.uint64(low3)]
                share0, share1 = int(share[s0]), int(share[s1])
                share2, share3 = int(share[s2]), int(share[s3])
                x0 = (share0 & 0xFFFF) * (x0 >> bits) + low0 - (share0 >> 16)
                x1 = (share1 & 0xFFFF) * (x1 >> bits) + low1 - (share1 >> 16)
                x2 = (share2 & 0xFFFF) * (x2 >> bits) + low2 - (share2 >> 16)
                x3 = (share3 & 0xFFFF) * (x3 >> bits) + low3 - (share3 >> 16)
                # Without a branch: whether a state takes a word cannot be foreseen.
                takes = int(x0 < RANS_LOW)
                x0 = x0 << (takes << 4) | (int(words[np.uint64(at)]) & -takes)
                at += takes
                takes = int(x1 < RANS_LOW)
                x1 = x1 << (takes << 4) | (int(words[np.uint64(at)]) & -takes)
                at += takes
                takes = int(x2 < RANS_LOW)
                x2 = x2 << (takes << 4) | (int(words[np.uint64(at)]) & -takes)
                at += takes
                takes = int(x3 < RANS_LOW)
                x3 = x3 << (takes << 4) | (int(words[np.uint64(at)]) & -takes)
                at += takes
                batch[np.uint64(k)], batch[np.uint64(k + 1)] = s0, s1
                batch[np.uint64(k + 2)], batch[np.uint64(k + 3)] = s2, s3
                if at > end:
                    return at
            i += run
        _put(batch, size, first, count, out, kind, stride, codebook)
    states[0], states[1], states[2], states[3] = x0, x1, x2, x3
    return at


@compiled
def _put(
    batch: Array, size: int, first: int, count: int, out: Array, kind: int, stride: int, codebook: Array
) -> None:
    """Put the first `size` symbols of `batch`, those of a range from symbol `first` on, where they belong."""
    if stride == 1 and kind == _BYTES:
        for i in range(size):
            out[first + i] = batch[i]
        return
    lane = first // (count // stride)
    at = lane + stride * (first - lane * (count // stride))
    for i in range(size):
        symbol = batch[np.uint64(i)]
        if kind == _BYTES:
            out[np.uint64(at)] = symbol
        elif kind == _NIBBLES:
            out[np.uint64(at >> 1)] |= symbol << (4 * (at & 1))
        elif kind == _WORDS16:
            for k in range(2):
                out[np.uint64(2 * at + k)] = codebook[symbol, k]
        else:
            for k in range(4):
                out[np.uint64(4 * at + k)] = codebook[symbol, k]
        at += stride
        if at >= count:
            lane += 1
            at = lane
