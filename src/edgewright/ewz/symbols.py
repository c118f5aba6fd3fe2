"""Bytes of a weight tensor as symbols of a small alphabet, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

MAX_STRIDE = 1 << 16


class Kind(IntEnum):
    """What a symbol stands for."""

    BYTES = 0
    NIBBLES = 1  # two of a byte, the lower first
    WORDS16 = 2  # an index into a codebook of 2-byte words, little-endian
    WORDS32 = 3  # an index into a codebook of 4-byte words


WORD_BYTES = {Kind.BYTES: 1, Kind.NIBBLES: 1, Kind.WORDS16: 2, Kind.WORDS32: 4}


@dataclass(frozen=True, kw_only=True)
class Symbols:
    """A range as symbols.

    Attributes:
        values: uint8, in the order of coding: first every `stride`-th symbol, then those after them, ...
        alphabet: how many symbols there are: 256, 16, or the size of the codebook.
        codebook: of words, ascending; empty for bytes and nibbles.
    """

    kind: Kind
    values: Bytes
    alphabet: int
    codebook: tuple[int, ...] = ()
    stride: int = 1


def from_bytes(content: bytes, kind: Kind, stride: int = 1) -> Symbols | None:
    """Return `content` as symbols; None where it cannot be: too many different words, or no whole number of them."""
    if len(content) % (WORD_BYTES[kind] * (stride if kind is not Kind.NIBBLES else 1)):
        return None
    codebook: tuple[int, ...] = ()
    alphabet = 256
    values = np.frombuffer(content, dtype=np.uint8)
    if kind is Kind.NIBBLES:
        values = np.stack([values & 15, values >> 4], axis=1).reshape(-1)
        alphabet = 16
    elif kind is not Kind.BYTES:
        words = np.frombuffer(content, dtype=f"<u{WORD_BYTES[kind]}")
        if len(np.unique(words[:4096])) > 256:
            return None
        found = np.unique(words)
        if len(found) > 256:
            return None
        values = np.searchsorted(found, words).astype(np.uint8)
        codebook = tuple(found.tolist())
        alphabet = len(codebook)
    return Symbols(
        kind=kind, values=_by_stride(values, stride), alphabet=alphabet, codebook=codebook, stride=stride
    )


def by_stride(symbols: Symbols, stride: int) -> Symbols:
    """Return symbols of stride 1 in the order of `stride`, which divides their number."""
    assert symbols.stride == 1
    return replace(symbols, values=_by_stride(symbols.values, stride), stride=stride)


def _by_stride(values: Bytes, stride: int) -> Bytes:
    return np.ascontiguousarray(values.reshape(-1, stride).T).reshape(-1) if stride > 1 else values
