"""From a `.ewz` back to the files, as a stream: every length is checked before memory is taken for it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from edgewright.core.errors import FormatMismatchError, IntegrityError
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
from edgewright.ewz.rest import unpack_rest

if TYPE_CHECKING:
    from edgewright.ewz.decoding import FrameDecoder

_MAX_VARINT_BYTES = 6


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
    from edgewright.ewz.decoding import FrameDecoder

    source = _Source(stream)
    header = _header(source)
    decoder = FrameDecoder()
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
        frame = _frame(source, decoder, remaining)
        remaining -= len(frame)
        at = 0
        while at < len(frame):
            part = frame[at : at + left]
            hashes[number].update(part)
            yield Chunk(name=header.entries[number].name, content=bytes(part))
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


def _frame(source: _Source, decoder: FrameDecoder, remaining: int) -> memoryview:
    """Return the content of the next frame, whose ranges have the digests that are promised."""
    most = min(remaining, FRAME_BYTES)
    # No writer makes a part larger than the content it stands for, but for the control of tiny ranges.
    sizes = [source.varint("the size of a frame", 2 * most + 1024) for _ in range(3)]
    control, packed, words = (source.take(size, "a frame") for size in sizes)
    decoded = decoder.decode(control, words, most)
    content = decoded.content.data
    rest = unpack_rest(decoded.method, packed, len(content) - decoded.coded_bytes)
    at = taken = 0
    for span in decoded.spans:
        start, end, digest = span.tolist()
        found = hashlib.sha256(content[start:end]).digest()[:RANGE_DIGEST_BYTES]
        if int.from_bytes(found, "big") != digest:
            raise IntegrityError("a range does not have the digest that is promised")
        content[at:start] = rest[taken : taken + start - at]
        taken += start - at
        at = end
    content[at:] = rest[taken:]
    return content
