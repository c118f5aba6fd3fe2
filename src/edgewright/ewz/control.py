"""The control of a frame: what is where, and the tables, as one adaptive binary code."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from edgewright.core.tensors import Array

MAX_TABLES = 8  # of one range
KEPT_TABLES = 256  # of one alphabet, for reuse
_CHUNK_BYTES = 1 << 16


class Field(IntEnum):
    """The integers of the control; each has contexts of its own."""

    FRAME = 0
    METHOD = 1
    GAP = 2  # 0: no more ranges
    KIND = 3
    COUNT = 4
    STRIDE = 5
    BITS = 6
    TABLES = 7
    CODEBOOK = 8
    REUSE = 9
    BLOCK = 10


FIELD_SIZE = 64
WORDS_AT = len(Field) * FIELD_SIZE  # a tree of 256 for each of the 4 bytes of a word, highest first
PICKS_AT = WORDS_AT + 4 * 256
LEVELS_AT = PICKS_AT + MAX_TABLES * MAX_TABLES


class ControlWriter:
    """Collects the control of one frame after the other; contexts and tables live as long as the file."""

    def __init__(self) -> None:
        from edgewright.ewz import kernels, tables

        self._kernels, self._tables = kernels, tables
        self.contexts = kernels.new_contexts(LEVELS_AT + tables.TABLE_CONTEXTS)
        self._kept: dict[int, list[Array]] = {}
        self._start()

    def kept(self, alphabet: int) -> list[Array]:
        """Return the levels of the tables of `alphabet` symbols, latest last."""
        return self._kept.setdefault(alphabet, [])

    def _keep(self, levels: Array) -> None:
        kept = self.kept(len(levels))
        kept.append(levels)
        del kept[:-KEPT_TABLES]

    def _reference(self, alphabet: int) -> Array:
        kept = self.kept(alphabet)
        return kept[-1] if kept else np.zeros(0, dtype=np.int64)

    def _start(self) -> None:
        self._state = self._kernels.new_encoder()
        self._out = np.zeros(_CHUNK_BYTES, dtype=np.uint8)

    def _ready(self, size: int = _CHUNK_BYTES >> 1) -> None:
        # A table of 256 symbols takes less than 80 decisions of 12 bits for each.
        needed = int(self._state[3] + self._state[4]) + size + 64
        if needed > len(self._out):
            self._out = np.concatenate([self._out, np.zeros(needed, dtype=np.uint8)])

    def integer(self, field: Field, value: int) -> None:
        self._ready()
        self._kernels.put_integer(self._state, self._out, self.contexts, field * FIELD_SIZE, value)

    def word(self, value: int, size: int) -> None:
        """Append the `size` bytes of a word of a codebook, highest first."""
        self._ready()
        for place in range(4 - size, 4):
            byte = value >> (8 * (3 - place)) & 0xFF
            self._kernels.put_tree(self._state, self._out, self.contexts, WORDS_AT + 256 * place, byte, 8)

    def picks(self, picks: Array) -> None:
        # Three decisions of at most 12 bits each.
        self._ready(5 * len(picks))
        self._kernels.put_picks(self._state, self._out, self.contexts, PICKS_AT, picks)

    def digest(self, digest: bytes) -> None:
        self._ready()
        self._kernels.put_direct(self._state, self._out, int.from_bytes(digest, "big"), 8 * len(digest))

    def table(self, levels: Array) -> None:
        """Append a table: one of `kept` by its place from the end, any other with its levels."""
        kept = self.kept(len(levels))
        reuse = next((i for i in range(1, len(kept) + 1) if kept[-i] is levels), 0)
        self.integer(Field.REUSE, reuse)
        if reuse == 0:
            self._ready()
            self._tables.put_levels(
                self._state, self._out, self.contexts, LEVELS_AT, levels, self._reference(len(levels))
            )
            self._keep(levels)

    def levels_for(self, counts: Array) -> tuple[Array, float]:
        """Return the best new levels for symbols with `counts`, and about how many bits the table takes."""
        reference = self._reference(len(counts))
        levels = self._tables.choose_levels(counts, self.contexts, LEVELS_AT, reference)
        state, out = self._kernels.new_encoder(), np.zeros(_CHUNK_BYTES, dtype=np.uint8)
        contexts = self.contexts.copy()
        self._tables.put_levels(state, out, contexts, LEVELS_AT, levels, reference)
        return levels, _bits_of(state)

    def picks_bits(self, picks: Array) -> float:
        """Return about how many bits `picks` take."""
        if len(picks) < 2:
            return 0.0
        state, out = self._kernels.new_encoder(), np.zeros(_CHUNK_BYTES + 5 * len(picks), dtype=np.uint8)
        self._kernels.put_picks(state, out, self.contexts.copy(), PICKS_AT, picks)
        return _bits_of(state)

    def finish(self) -> bytes:
        """Return the control of this frame, and begin the next."""
        self._ready()
        length = self._kernels.flush(self._state, self._out)
        made = self._out[:length].tobytes()
        self._start()
        return made


def _bits_of(state: Array) -> float:
    """Return how many bits a binary encoder has taken."""
    _, width, _, pending, at = state.tolist()
    return float(8.0 * (pending + at) + 32.0 - np.log2(width))
