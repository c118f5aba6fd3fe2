"""The control of a frame: what is where, and the tables, as one adaptive binary code."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import numpy as np

from edgewright.core.errors import IntegrityError
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


_FIELD_SIZE = 64
_BYTES = len(Field) * _FIELD_SIZE  # a tree of 256 for each of the 4 bytes of a word, highest first
_PICKS = _BYTES + 4 * 256
_LEVELS = _PICKS + MAX_TABLES * MAX_TABLES


class _Contexts:
    """What both sides keep from frame to frame: the contexts, and the tables by size of alphabet."""

    def __init__(self) -> None:
        from edgewright.ewz import kernels, tables

        self._kernels, self._tables = kernels, tables
        self.contexts = kernels.new_contexts(_LEVELS + tables.TABLE_CONTEXTS)
        self._kept: dict[int, list[Array]] = {}

    def kept(self, alphabet: int) -> list[Array]:
        """Return the levels of the tables of `alphabet` symbols, latest last."""
        return self._kept.setdefault(alphabet, [])

    def keep(self, levels: Array) -> None:
        kept = self.kept(len(levels))
        kept.append(levels)
        del kept[:-KEPT_TABLES]

    def reference(self, alphabet: int) -> Array:
        kept = self.kept(alphabet)
        return kept[-1] if kept else np.zeros(0, dtype=np.int64)


class ControlWriter(_Contexts):
    """Collects the control of one frame after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._start()

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
        self._kernels.put_integer(self._state, self._out, self.contexts, field * _FIELD_SIZE, value)

    def word(self, value: int, size: int) -> None:
        """Append the `size` bytes of a word of a codebook, highest first."""
        self._ready()
        for place in range(4 - size, 4):
            byte = value >> (8 * (3 - place)) & 0xFF
            self._kernels.put_tree(self._state, self._out, self.contexts, _BYTES + 256 * place, byte, 8)

    def picks(self, picks: Array) -> None:
        # Three decisions of at most 12 bits each.
        self._ready(5 * len(picks))
        self._kernels.put_picks(self._state, self._out, self.contexts, _PICKS, picks)

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
                self._state, self._out, self.contexts, _LEVELS, levels, self.reference(len(levels))
            )
            self.keep(levels)

    def levels_for(self, counts: Array) -> tuple[Array, float]:
        """Return the best new levels for symbols with `counts`, and about how many bits the table takes."""
        reference = self.reference(len(counts))
        levels = self._tables.choose_levels(counts, self.contexts, _LEVELS, reference)
        state, out = self._kernels.new_encoder(), np.zeros(_CHUNK_BYTES, dtype=np.uint8)
        contexts = self.contexts.copy()
        self._tables.put_levels(state, out, contexts, _LEVELS, levels, reference)
        return levels, _bits_of(state)

    def picks_bits(self, picks: Array) -> float:
        """Return about how many bits `picks` take."""
        if len(picks) < 2:
            return 0.0
        state, out = self._kernels.new_encoder(), np.zeros(_CHUNK_BYTES + 5 * len(picks), dtype=np.uint8)
        self._kernels.put_picks(state, out, self.contexts.copy(), _PICKS, picks)
        return _bits_of(state)

    def finish(self) -> bytes:
        """Return the control of this frame, and begin the next."""
        self._ready()
        length = self._kernels.flush(self._state, self._out)
        made = self._out[:length].tobytes()
        self._start()
        return made


class ControlReader(_Contexts):
    """Reads what `ControlWriter` collected; everything that no writer makes is an IntegrityError."""

    def start(self, control: bytes) -> None:
        """Begin with the control of the next frame."""
        self._data = np.frombuffer(control, dtype=np.uint8)
        self._state = np.zeros(3, dtype=np.int64)
        self._kernels.start_decoder(self._state, self._data)

    def integer(self, field: Field, limit: int) -> int:
        """Return an integer of `field`, 0..limit."""
        value = int(self._kernels.get_integer(self._state, self._data, self.contexts, field * _FIELD_SIZE))
        if not 0 <= value <= limit:
            raise _too_large(field, value, limit)
        return value

    def integers(self, limits: Mapping[Field, int]) -> tuple[int, ...]:
        """Return an integer of each field, 0..its limit."""
        made = np.zeros(len(limits), dtype=np.int64)
        bases = np.array([field * _FIELD_SIZE for field in limits], dtype=np.int64)
        self._kernels.get_integers(self._state, self._data, self.contexts, bases, made)
        found = tuple(made.tolist())
        for value, (field, limit) in zip(found, limits.items(), strict=True):
            if not 0 <= value <= limit:
                raise _too_large(field, value, limit)
        return found

    def word(self, size: int) -> int:
        value = 0
        for place in range(4 - size, 4):
            at = _BYTES + 256 * place
            value = value << 8 | int(self._kernels.get_tree(self._state, self._data, self.contexts, at, 8))
        return value

    def picks(self, count: int, tables: int) -> Array:
        made = np.zeros(count, dtype=np.int64)
        largest = self._kernels.get_picks(self._state, self._data, self.contexts, _PICKS, made)
        if largest >= tables:
            raise IntegrityError(f"its control picks table {largest + 1} of {tables}")
        return made

    def digest(self, size: int) -> bytes:
        return int(self._kernels.get_direct(self._state, self._data, 8 * size)).to_bytes(size, "big")

    def table(self, alphabet: int) -> Array:
        kept = self.kept(alphabet)
        reuse = self.integer(Field.REUSE, len(kept))
        if reuse:
            return kept[-reuse]
        levels = np.zeros(alphabet, dtype=np.int64)
        failed = self._tables.get_levels(
            self._state, self._data, self.contexts, _LEVELS, levels, self.reference(alphabet)
        )
        if failed:
            raise IntegrityError("its control holds a table that no writer makes")
        self.keep(levels)
        return levels


def _bits_of(state: Array) -> float:
    """Return how many bits a binary encoder has taken."""
    _, width, _, pending, at = state.tolist()
    return float(8.0 * (pending + at) + 32.0 - np.log2(width))


def _too_large(field: Field, value: int, limit: int) -> IntegrityError:
    return IntegrityError(f"its control says {field.name.lower()} {value}; 0 to {limit} is possible")
