"""From artifact files to a `.ewz`."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgewright.ewz.choice import GRANULE_BYTES, MIN_BITS, Coding, choose
from edgewright.ewz.container import (
    FRAME_BYTES,
    RANGE_DIGEST_BYTES,
    Entry,
    check_entries,
    content_digest,
    header_bytes,
    varint,
)
from edgewright.ewz.control import ControlWriter, Field
from edgewright.ewz.ranges import Range, find_ranges
from edgewright.ewz.rest import pack_rest
from edgewright.ewz.symbols import WORD_BYTES


@dataclass(frozen=True, kw_only=True)
class CodedRange:
    """What became of one range; `entropy_bytes` is the zero-order bound of its symbols, tables not counted.

    Attributes:
        name: of the tensor, where the file's format tells it.
        kind: of its symbols; "rest" where it was left to the rest.
        coded_bytes: its share of the words; the tables are in the control.
    """

    name: str
    size_bytes: int
    kind: str
    entropy_bytes: float
    coded_bytes: float


@dataclass(frozen=True, kw_only=True)
class Written:
    """What the parts of a `.ewz` take."""

    ranges: tuple[CodedRange, ...]
    header_bytes: int
    control_bytes: int
    rest_bytes: int
    weight_bytes: int
    digest: str


class Stream(Protocol):
    """What takes the bytes of a container."""

    def write(self, content: bytes, /) -> int:
        """Take `content`."""
        ...


class _Sink:
    """Writes and keeps the check over everything written."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.check = 0

    def write(self, content: bytes) -> int:
        self._stream.write(content)
        self.check = zlib.crc32(content, self.check)
        return len(content)


def write_container(files: Sequence[tuple[str, Path]], stream: Stream) -> Written:
    """Write `files` (name in the container, path), sorted by name, to `stream`.

    Raises:
        IntegrityError: a name that a container must not hold.
        OSError: a file cannot be read or the stream cannot be written.
    """
    entries = [Entry(name=name, size_bytes=path.stat().st_size) for name, path in files]
    check_entries(entries)
    from edgewright.core.files import sha256_of

    digest = content_digest(entries, [bytes.fromhex(sha256_of(path)) for _, path in files])
    sink = _Sink(stream)
    header = sink.write(header_bytes(entries, digest))
    control = ControlWriter()
    coded: list[CodedRange] = []
    sizes = np.zeros(3, dtype=np.int64)
    for content, ranges in _frames(files):
        frame, found = _frame(content, ranges, control)
        coded += found
        sizes += [len(part) for part in frame]
        for part in frame:
            header += sink.write(varint(len(part)))
        for part in frame:
            sink.write(part)
    stream.write(sink.check.to_bytes(4, "little"))
    return Written(
        ranges=tuple(coded),
        header_bytes=header + 4,
        control_bytes=int(sizes[0]),
        rest_bytes=int(sizes[1]),
        weight_bytes=int(sizes[2]),
        digest=digest.hex(),
    )


def _frames(files: Sequence[tuple[str, Path]]) -> Iterator[tuple[bytes, list[Range]]]:
    """Yield the content in frames, each with the ranges in it by their place in the frame."""
    content = bytearray()
    ranges: list[Range] = []
    for _, path in files:
        data = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
        found = find_ranges(path, data)
        at = 0
        while at < len(data):
            end = min(len(data), at + FRAME_BYTES - len(content))
            for r in found:
                first, last = max(r.start, at), min(r.start + r.size_bytes, end)
                if first < last:
                    ranges.append(
                        Range(start=first - at + len(content), size_bytes=last - first, name=r.name)
                    )
            content += data[at:end].tobytes()
            at = end
            if len(content) == FRAME_BYTES:
                yield bytes(content), ranges
                content, ranges = bytearray(), []
    if content:
        yield bytes(content), ranges


def _frame(
    content: bytes, ranges: Sequence[Range], control: ControlWriter
) -> tuple[tuple[bytes, bytes, bytes], list[CodedRange]]:
    chosen: list[tuple[Range, Coding]] = []
    records: list[CodedRange] = []
    control.integer(Field.FRAME, len(content) - 1)
    at = 0
    rest = bytearray()
    for r in ranges:
        data = content[r.start : r.start + r.size_bytes // GRANULE_BYTES * GRANULE_BYTES]
        coding = choose(data, control)
        if coding is None:
            records.append(_record(r, data, None))
            continue
        control.integer(Field.GAP, r.start - at + 1)
        rest += content[at : r.start]
        _describe(coding, hashlib.sha256(data).digest()[:RANGE_DIGEST_BYTES], control)
        chosen.append((r, coding))
        records.append(_record(r, data, coding))
        at = r.start + len(data)
    control.integer(Field.GAP, 0)
    rest += content[at:]
    method, packed = pack_rest(bytes(rest))
    control.integer(Field.METHOD, method)
    return (control.finish(), packed, _words([coding for _, coding in chosen])), records


def _describe(coding: Coding, digest: bytes, control: ControlWriter) -> None:
    symbols = coding.symbols
    control.integer(Field.KIND, symbols.kind)
    control.integer(Field.COUNT, len(symbols.values) // 4)
    control.integer(Field.STRIDE, symbols.stride - 1)
    control.integer(Field.BITS, coding.bits - MIN_BITS)
    control.integer(Field.TABLES, len(coding.tables) - 1)
    if symbols.codebook:
        control.integer(Field.CODEBOOK, len(symbols.codebook) - 1)
        for word in symbols.codebook:
            control.word(word, WORD_BYTES[symbols.kind])
    for levels in coding.tables:
        control.table(levels)
    if len(coding.tables) > 1:
        control.integer(Field.BLOCK, coding.block // 4 - 1)
        control.picks(coding.picks)
    control.digest(digest)


def _words(codings: Sequence[Coding]) -> bytes:
    """Return the words of all ranges of a frame: the four first states, then what refills them."""
    from edgewright.ewz import kernels

    if not codings:
        return b""
    states = np.full(kernels.STATES, kernels.RANS_LOW, dtype=np.int64)
    most = max(len(coding.symbols.values) for coding in codings)
    out = np.zeros(most + 8, dtype=np.uint16)
    parts: list[bytes] = []
    for coding in reversed(codings):
        frequency = np.zeros((len(coding.tables), kernels.MAX_ALPHABET), dtype=np.int64)
        start = np.zeros_like(frequency)
        slot = np.zeros(1 << coding.bits, dtype=np.uint8)
        for i, levels in enumerate(coding.tables):
            kernels.fill_table(levels, coding.bits, frequency[i], start[i], slot)
        at = kernels.rans_encode(
            coding.symbols.values,
            coding.picks,
            coding.block,
            frequency,
            start,
            coding.bits,
            states,
            out,
            len(out),
        )
        parts.append(out[at:].astype("<u2").tobytes())
    return states.astype("<u4").tobytes() + b"".join(reversed(parts))


def _record(r: Range, data: bytes, coding: Coding | None) -> CodedRange:
    if coding is None:
        return CodedRange(name=r.name, size_bytes=len(data), kind="rest", entropy_bytes=0.0, coded_bytes=0.0)
    symbols = coding.symbols
    return CodedRange(
        name=r.name,
        size_bytes=len(data),
        kind=symbols.kind.name.lower() + (f"/{symbols.stride}" if symbols.stride > 1 else ""),
        entropy_bytes=coding.bound_bits / 8,
        coded_bytes=coding.data_bits / 8,
    )
