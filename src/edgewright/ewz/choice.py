"""How a range is coded: the symbols, the tables and their precision that take the fewest bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.core.tensors import Array
from edgewright.ewz.blocks import Split, periods, splits
from edgewright.ewz.control import MAX_TABLES, ControlWriter
from edgewright.ewz.rest import trial_bytes
from edgewright.ewz.symbols import Kind, Symbols, by_stride, from_bytes

MIN_BITS = 12
MAX_BITS = 15
MIN_RANGE_BYTES = 64  # what is shorter goes to the rest: its description would outweigh the gain
GRANULE_BYTES = 16  # four words of four bytes: what is left over goes to the rest too
_FIELD_BITS = 80.0  # about what the description of a range takes without its tables, its digest included
_TRIED = (
    (Kind.BYTES, 1),
    (Kind.BYTES, 2),
    (Kind.BYTES, 4),
    (Kind.NIBBLES, 1),
    (Kind.WORDS16, 1),
    (Kind.WORDS32, 1),
)
_CODED = 4  # of those that seem smallest, the tables are made
_WORD_BITS = 24.0  # about, of a codebook
_TRIED_TABLES = 64
_REUSE_BITS = 8.0
_ENOUGH = 1.0002  # a finer precision must save more than this


@dataclass(frozen=True, kw_only=True)
class Coding:
    """One range, ready to be written.

    Attributes:
        block: symbols coded by one table in a row, a multiple of 4.
        tables: levels; those that the control has kept are meant again.
        picks: which table each block takes.
        bits: log2 of the sum of the frequencies.
        data_bits, cost_bits: about what it takes without tables and description, and with them.
        bound_bits: the zero-order entropy of its symbols.
    """

    symbols: Symbols
    tables: tuple[Array, ...]
    block: int
    picks: Array
    bits: int
    data_bits: float
    cost_bits: float
    bound_bits: float


def choose(content: bytes, control: ControlWriter) -> Coding | None:
    """Return the smallest coding of `content`; None where it is none smaller than the bytes as they are."""
    if len(content) < MIN_RANGE_BYTES:
        return None
    candidates: list[tuple[float, Symbols, Split]] = []
    for kind, stride in _TRIED:
        symbols = from_bytes(content, kind, stride)
        if symbols is not None:
            split = _planes(symbols)
            candidates.append((split.bits + _WORD_BITS * len(symbols.codebook), symbols, split))
    least = min(bits for bits, _, _ in candidates)
    candidates = sorted((one for one in candidates if one[0] <= 1.05 * least + 256), key=lambda one: one[0])
    alone = [symbols for _, symbols, _ in candidates if symbols.stride == 1]
    alone += [by_stride(symbols, stride) for symbols in alone[:1] for stride in periods(symbols.values)]
    candidates += [
        (split.bits + _WORD_BITS * len(symbols.codebook), symbols, split)
        for symbols in alone
        for split in splits(symbols.values, symbols.alphabet)
    ]
    candidates.sort(key=lambda one: one[0])
    codings = [_code(symbols, split, control) for _, symbols, split in candidates[:_CODED]]
    chosen = min(codings, key=lambda coding: coding.cost_bits)
    return chosen if chosen.cost_bits < 8 * min(len(content) - 8, trial_bytes(content)) else None


def entropy_bits(counts: Array) -> float:
    """Return the zero-order entropy of symbols with `counts`, for all of them together, in bits."""
    used = counts.astype(np.float64)
    used = used[used > 0]
    total = used.sum()
    return float((used * np.log2(total / used)).sum()) if total else 0.0


def _planes(symbols: Symbols) -> Split:
    """Return the split of `symbols` into its strides, each with a table of its own."""
    from edgewright.ewz.kernels import count_planes

    planes = tuple(count_planes(symbols.values, symbols.stride, False)[:, : symbols.alphabet])
    bits = sum(entropy_bits(counts) + 1.5 * np.count_nonzero(counts) for counts in planes)
    picks = np.arange(symbols.stride, dtype=np.int64)
    return Split(block=len(symbols.values) // symbols.stride, picks=picks, counts=planes, bits=bits)


def _code(symbols: Symbols, split: Split, control: ControlWriter) -> Coding:
    made = [_table(counts, control) for counts in split.counts]
    tables = tuple(levels for levels, _ in made)
    bits = _precision(split.counts, tables)
    cost = _FIELD_BITS + _WORD_BITS * len(symbols.codebook) + sum(table_bits for _, table_bits in made)
    cost += control.picks_bits(split.picks)
    data_bits = sum(
        _data_bits(counts, levels, bits) for counts, levels in zip(split.counts, tables, strict=True)
    )
    return Coding(
        symbols=symbols,
        tables=tables,
        block=split.block,
        picks=split.picks,
        bits=bits,
        data_bits=data_bits,
        cost_bits=cost + data_bits,
        bound_bits=entropy_bits(np.sum(split.counts, axis=0)),
    )


def _table(counts: Array, control: ControlWriter) -> tuple[Array, float]:
    """Return the levels for `counts` with the fewest bits of table and data, and the bits of the table."""
    best, table_bits = control.levels_for(counts)
    best_bits = table_bits + _data_bits(counts, best, MAX_BITS)
    for levels in control.kept(len(counts))[-_TRIED_TABLES:]:
        bits = _REUSE_BITS + _data_bits(counts, levels, MAX_BITS)
        if bits < best_bits:
            best, table_bits, best_bits = levels, _REUSE_BITS, bits
    return best, table_bits


def _data_bits(counts: Array, levels: Array, bits: int) -> float:
    from edgewright.ewz import kernels, tables

    return float(tables.data_bits(counts, kernels.frequencies(levels, bits), bits))


def _precision(planes: Sequence[Array], tables: Sequence[Array]) -> int:
    """Return the fewest bits of precision that cost next to nothing: their tables are decoded faster."""
    costs = {
        bits: sum(_data_bits(counts, levels, bits) for counts, levels in zip(planes, tables, strict=True))
        for bits in range(MIN_BITS, MAX_BITS + 1)
    }
    least = min(costs.values())
    return min(bits for bits, cost in costs.items() if cost <= least * _ENOUGH + 16)


assert MAX_TABLES >= 4  # a table for each byte of a word
