"""From a `.ewz` back to the files, as a stream: every length is checked before memory is taken for it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from edgewright.core.errors import FormatMismatchError, IntegrityError
from edgewright.core.tensors import Array
from edgewright.ewz.choice import MAX_BITS, MIN_BITS
from edgewright.ewz.container import (
    CHECK_BYTES,
    DIGEST_BYTES,
    FRAME_BYTES,
    MAGIC,
    MAX_FILES,
    MAX_NAME_BYTES,
    RANGE_DIGEST_BYTES,
    VERSION,
    Entry,
    check_entries,
    content_digest,
)
from edgewright.ewz.control import MAX_TABLES, ControlReader, Field
from edgewright.ewz.rest import Method, unpack_rest
from edgewright.ewz.symbols import MAX_STRIDE, WORD_BYTES, Kind, Symbols, to_bytes

_MAX_VARINT_BYTES = 6
_LAST_KIND, _LAST_METHOD = max(Kind), max(Method)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a `.ewz` promises: its files, and the digest of their content (see `content_digest`)."""

    entries: tuple[Entry, ...]
    digest: str

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size_bytes for entry in self.entries)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The next bytes of one file, 1 to 16 MiB; or none, of an empty file."""

    name: str
    content: bytes


class _Source:
    """Reads exact lengths, and keeps the check over all that was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.check = 0

    def take(self, size: int, what: str) -> bytes:
        content = self._stream.read(size)
        if len(content) != size:
            raise IntegrityError(f"it ends in {what}: {size} bytes are promised, {len(content)} are there")
        self.check = zlib.crc32(content, self.check)
        return content

    def varint(self, what: str, limit: int) -> int:
        value = 0
        for place in range(_MAX_VARINT_BYTES):
            (byte,) = self.take(1, what)
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                if byte == 0 and place:
                    break  # a longer spelling of a smaller number
                if value > limit:
                    raise IntegrityError(f"{what} is {value}; at most {limit} is possible")
                return value
        raise IntegrityError(f"{what} is no number that a writer makes")

    def is_at_end(self) -> bool:
        return not self._stream.read(1)


def read_header(stream: BinaryIO) -> Header:
    """Return the header of the `.ewz` that `stream` begins with.

    Raises:
        FormatMismatchError: no `.ewz`, or of a later version.
        IntegrityError: broken.
    """
    return _header(_Source(stream))


def read_chunks(stream: BinaryIO) -> Iterator[Chunk]:
    """Yield the content of all files in order; the last word on them comes at the end, when all was checked.

    Takes memory for one frame: at most about 16 MiB of content, its packed form, and the tables.

    Raises:
        FormatMismatchError: no `.ewz`, or of a later version.
        IntegrityError: broken; what was yielded before may be wrong too, unless its range had a digest.
    """
    source = _Source(stream)
    header = _header(source)
    control = ControlReader()
    hashes = [hashlib.sha256() for _ in header.entries]
    number = 0
    left = header.entries[0].size_bytes
    remaining = header.size_bytes

    def empty() -> Iterator[Chunk]:
        nonlocal number, left
        while left == 0 and number < len(header.entries):
            if header.entries[number].size_bytes == 0:
                yield Chunk(name=header.entries[number].name, content=b"")
            number += 1
            left = header.entries[number].size_bytes if number < len(header.entries) else 0

    yield from empty()
    while remaining:
        for piece in _frame(source, control, remaining):
            remaining -= len(piece)
            at = 0
            while at < len(piece):
                part = piece[at : at + left]
                hashes[number].update(part)
                yield Chunk(name=header.entries[number].name, content=part)
                at += len(part)
                left -= len(part)
                if left == 0:
                    yield from empty()
    check = source.check
    if source.take(CHECK_BYTES, "its check") != check.to_bytes(CHECK_BYTES, "little"):
        raise IntegrityError("its check does not fit its bytes")
    if not source.is_at_end():
        raise IntegrityError("something stands after its end")
    digest = content_digest(header.entries, [found.digest() for found in hashes]).hex()
    if digest != header.digest:
        raise IntegrityError(
            f"its content has digest {digest[:16]}..., but {header.digest[:16]}... is promised"
        )


def _header(source: _Source) -> Header:
    magic = source.take(len(MAGIC), "its first bytes")
    if magic != MAGIC:
        raise FormatMismatchError(f"it begins with {magic!r}, but a .ewz with {MAGIC!r}")
    (version,) = source.take(1, "its version")
    if version != VERSION:
        raise FormatMismatchError(f"it has version {version}, but {VERSION} is read here")
    entries = []
    for _ in range(source.varint("the number of files", MAX_FILES)):
        name = source.take(source.varint("the length of a name", MAX_NAME_BYTES), "a file name")
        try:
            text = name.decode("utf-8")
        except UnicodeDecodeError as err:
            raise IntegrityError(f"it names a file {name[:80]!r}, which is not UTF-8") from err
        entries.append(Entry(name=text, size_bytes=source.varint("the size of a file", 1 << 40)))
    check_entries(entries)
    return Header(entries=tuple(entries), digest=source.take(DIGEST_BYTES, "its digest").hex())


def _frame(source: _Source, control: ControlReader, remaining: int) -> Iterator[bytes]:
    """Yield the content of the next frame in pieces."""
    most = min(remaining, FRAME_BYTES)
    # No writer makes a part larger than the content it stands for, but for the control of tiny ranges.
    sizes = [source.varint("the size of a frame", 2 * most + 1024) for _ in range(3)]
    parts = [source.take(size, "a frame") for size in sizes]
    control.start(parts[0])
    size = control.integer(Field.FRAME, most - 1) + 1
    words = _Words(parts[2])
    # The rest comes with the description of all ranges, which is read first.
    pending: list[tuple[int, _Described]] = []
    at = 0
    while gap := control.integer(Field.GAP, size - at + 1):
        gap -= 1
        described = _describe(control, size - at - gap)
        at += gap + described.size_bytes
        pending.append((gap, described))
    coded = sum(described.size_bytes for _, described in pending)
    rest = unpack_rest(control.integer(Field.METHOD, _LAST_METHOD), parts[1], size - coded)
    taken = 0
    for gap, described in pending:
        if gap:
            yield rest[taken : taken + gap]
        taken += gap
        content = words.decode(described)
        if hashlib.sha256(content).digest()[:RANGE_DIGEST_BYTES] != described.digest:
            raise IntegrityError("a range does not have the digest that is promised")
        yield content
    if taken < len(rest):
        yield rest[taken:]
    words.finish()


@dataclass(frozen=True, kw_only=True)
class _Described:
    kind: Kind
    count: int
    size_bytes: int
    codebook: tuple[int, ...]
    stride: int
    bits: int
    tables: tuple[Array, ...]
    block: int
    picks: Array
    digest: bytes


def _describe(control: ControlReader, room: int) -> _Described:
    number, fours, stride, bits, tables = control.integers(
        {
            Field.KIND: _LAST_KIND,
            Field.COUNT: room // 2,
            Field.STRIDE: MAX_STRIDE - 1,
            Field.BITS: MAX_BITS - MIN_BITS,
            Field.TABLES: MAX_TABLES - 1,
        }
    )
    kind, count, stride = Kind(number), 4 * fours, stride + 1
    size_bytes = count * WORD_BYTES[kind] // (2 if kind is Kind.NIBBLES else 1)
    if count == 0 or count % (4 * stride) or size_bytes > room:
        raise IntegrityError(f"its control says a range of {count} symbols in {stride} strides")
    codebook: tuple[int, ...] = ()
    alphabet = 16 if kind is Kind.NIBBLES else 256
    if kind in (Kind.WORDS16, Kind.WORDS32):
        alphabet = control.integer(Field.CODEBOOK, 255) + 1
        codebook = tuple(control.word(WORD_BYTES[kind]) for _ in range(alphabet))
    levels = tuple(control.table(alphabet) for _ in range(tables + 1))
    block = count
    picks: Array = np.zeros(1, dtype=np.int64)
    if tables:
        block = 4 * (control.integer(Field.BLOCK, count // 4 - 1) + 1)
        picks = control.picks(-(-count // block), tables + 1)
    return _Described(
        kind=kind,
        count=count,
        size_bytes=size_bytes,
        codebook=codebook,
        stride=stride,
        bits=bits + MIN_BITS,
        tables=levels,
        block=block,
        picks=picks,
        digest=control.digest(RANGE_DIGEST_BYTES),
    )


class _Words:
    """The words of a frame, decoded range by range."""

    def __init__(self, content: bytes) -> None:
        from edgewright.ewz import kernels

        self._kernels = kernels
        state_bytes = 4 * kernels.STATES
        if content and (len(content) < state_bytes or len(content) % 2):
            raise IntegrityError(f"a frame has {len(content)} bytes of words")
        self._states = np.frombuffer(content[:state_bytes], dtype="<u4").astype(np.int64)
        if (self._states < kernels.RANS_LOW).any():
            raise IntegrityError("a frame begins with a state that no writer makes")
        words = np.frombuffer(content[state_bytes:], dtype="<u2")
        self._end = len(words)
        self._words = np.concatenate([words, np.zeros(kernels.STATES, dtype=np.uint16)])
        self._at = 0
        self._frequency = np.zeros((MAX_TABLES, kernels.MAX_ALPHABET), dtype=np.int64)
        self._start = np.zeros_like(self._frequency)
        self._slot = np.zeros((MAX_TABLES, 1 << MAX_BITS), dtype=np.uint8)

    def decode(self, described: _Described) -> bytes:
        if not len(self._states):
            raise IntegrityError("a frame has ranges, but no words")
        for i, levels in enumerate(described.tables):
            self._kernels.fill_table(
                levels, described.bits, self._frequency[i], self._start[i], self._slot[i]
            )
        values = np.empty(described.count, dtype=np.uint8)
        self._at = self._kernels.rans_decode(
            self._words, self._at, self._end, self._states, described.picks, described.block,
            self._slot, self._frequency, self._start, described.bits, values,
        )  # fmt: skip
        if self._at < 0:
            raise IntegrityError("the words of a frame end too early")
        return to_bytes(
            Symbols(
                kind=described.kind,
                values=values,
                alphabet=len(described.tables[0]),
                codebook=described.codebook,
                stride=described.stride,
            )
        )

    def finish(self) -> None:
        """Check that all words were used, and that the states are again those that the writer began with."""
        if self._at != self._end or (self._states != self._kernels.RANS_LOW).any():
            raise IntegrityError("the words of a frame do not end where they should")
