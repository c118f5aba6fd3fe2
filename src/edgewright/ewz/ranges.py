"""Where the weights of a file are: ranges of bytes. What is missed costs bytes, and never the content."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgewright.core.errors import EdgewrightError
from edgewright.core.tensors import Array
from edgewright.ewz.segments import find_segments

_MIN_BYTES = 64
_MIN_SEARCHED_BYTES = 4096  # of what no reader names
_MAX_HEADER_BYTES = 64 << 20
_MAX_DEPTH = 8
_MAX_MEMBERS = 1 << 16
# What reading a damaged file raises.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
_BLOB_SENTINEL = 0xDEADBEEF
_BLOB_RECORD = struct.Struct("<IIQQ")
_OFFSET = re.compile(rb'\boffset="(\d{1,15})"')
_SIZE = re.compile(rb'\bsize="(\d{1,15})"')
_DATA = re.compile(rb"<data\b[^>]*>")


@dataclass(frozen=True, kw_only=True)
class Range:
    """A piece of a file that is coded by itself; `name` is the tensor's where the format tells it."""

    start: int
    size_bytes: int
    name: str = ""


def find_ranges(path: Path, content: Array) -> list[Range]:
    """Return the ranges of `content` (uint8) to be coded by themselves, ascending and apart from one another.

    A file that is damaged, or of no known format, is searched by its statistics alone.
    """
    named: list[Range] = []
    reader = _reader(path, bytes(content[:16]))
    if reader is not None:
        try:
            named = _apart(reader(path, memoryview(content.data)), len(content))
        except (EdgewrightError, zipfile.BadZipFile, *_DAMAGE):
            named = []  # not ours to tell here: it packs all the same
    found: list[Range] = []
    at = 0
    for r in [*named, Range(start=len(content), size_bytes=0)]:
        if r.start - at >= _MIN_SEARCHED_BYTES:
            found += [Range(start=at + s, size_bytes=n) for s, n in find_segments(content[at : r.start])]
        if r.size_bytes:
            found.append(r)
        at = r.start + r.size_bytes
    return found


def _apart(ranges: Iterator[Range], end: int) -> list[Range]:
    """Return `ranges` sorted, without those that are short, lie outside or reach into another."""
    kept: list[Range] = []
    for r in sorted(ranges, key=lambda r: (r.start, -r.size_bytes)):
        last = kept[-1].start + kept[-1].size_bytes if kept else 0
        if r.size_bytes >= _MIN_BYTES and r.start >= last and r.start + r.size_bytes <= end:
            kept.append(r)
    return kept


def _reader(path: Path, head: bytes) -> Callable[[Path, memoryview], Iterator[Range]] | None:
    suffix = path.suffix.lower()
    if head[4:8] == b"TFL3":
        return _tflite
    if head[4:8] == b"ORTM":
        return _ort
    if suffix == ".onnx":
        return lambda _, content: _onnx(content, 0, len(content), _MODEL, 0)
    if suffix == ".safetensors":
        return _safetensors
    if head[:4] == b"PK\x03\x04":
        return _zip
    if suffix == ".bin" and path.with_suffix(".xml").is_file():
        return _openvino
    if suffix == ".bin" and path.name == "weight.bin":
        return _coreml
    return None


def _tflite(_: Path, content: memoryview) -> Iterator[Range]:
    from edgewright.backends.mnn_file import Table

    root = Table(content, int.from_bytes(content[:4], "little"))
    names: dict[int, str] = {}
    for graph in root.tables(2):
        for tensor in graph.tables(0):
            names.setdefault(tensor.integer(2, form="<I"), tensor.text(3)[:200])
    for number, buffer in enumerate(root.tables(4)):
        start, size = buffer.text_at(0)
        if size == 0:
            start, size = buffer.integer(1, form="<Q"), buffer.integer(2, form="<Q")
        yield Range(start=start, size_bytes=size, name=names.get(number, f"buffer {number}"))


def _ort(_: Path, content: memoryview) -> Iterator[Range]:
    from edgewright.backends.mnn_file import Table

    model = Table(content, int.from_bytes(content[:4], "little")).table(1)
    graph = None if model is None else model.table(7)
    for tensor in [] if graph is None else graph.tables(0):
        start, size = tensor.text_at(4)
        yield Range(start=start, size_bytes=size, name=tensor.text(0)[:200])


# Field -> what is inside, of the messages of onnx.proto on the way to tensors; True: weights as bytes.
_Message = dict[int, "_Message | bool"]
_TENSOR: _Message = {4: True, 5: True, 7: True, 9: True, 10: True}
_ATTRIBUTE: _Message = {5: _TENSOR, 10: _TENSOR}
_GRAPH: _Message = {1: {5: _ATTRIBUTE}, 5: _TENSOR}
_ATTRIBUTE[6] = _GRAPH
_MODEL: _Message = {7: _GRAPH, 25: {1: _GRAPH}}
_TENSOR_NAME = 8


def _onnx(content: memoryview, at: int, end: int, message: _Message, depth: int) -> Iterator[Range]:
    """Yield the weights below the protobuf message in content[at:end]."""
    if depth > _MAX_DEPTH:
        return
    found: list[tuple[int, int]] = []
    name = ""
    while at < end:
        key, at = _varint(content, at)
        wire = key & 7
        if wire == 0:
            _, at = _varint(content, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _varint(content, at)
            if at + size > end:
                raise ValueError("a field leads outside")
            inside = message.get(key >> 3)
            if inside is True:
                found.append((at, size))
            elif isinstance(inside, dict):
                yield from _onnx(content, at, at + size, inside, depth + 1)
            elif message is _TENSOR and key >> 3 == _TENSOR_NAME:
                name = bytes(content[at : at + min(size, 200)]).decode(errors="replace")
            at += size
        else:
            raise ValueError("a group")
    for start, size in found:
        yield Range(start=start, size_bytes=size, name=name)


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        byte = int(content[at + place])
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number without an end")


def _safetensors(_: Path, content: memoryview) -> Iterator[Range]:
    size = int.from_bytes(content[:8], "little")
    if size > min(_MAX_HEADER_BYTES, len(content)):
        raise ValueError("a header that leads outside")
    for name, record in json.loads(bytes(content[8 : 8 + size])).items():
        if name != "__metadata__":
            first, last = (int(offset) for offset in record["data_offsets"])
            yield Range(start=8 + size + first, size_bytes=last - first, name=name[:200])


def _zip(path: Path, content: memoryview) -> Iterator[Range]:
    """Yield the members that are stored as they are; those of .pt2 and TorchScript files are."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()[:_MAX_MEMBERS]
    for member in members:
        at = member.header_offset
        if member.compress_type != zipfile.ZIP_STORED or bytes(content[at : at + 4]) != b"PK\x03\x04":
            continue
        start = at + 30 + sum(struct.unpack_from("<HH", content, at + 26))
        yield Range(start=start, size_bytes=member.file_size, name=member.filename[-200:])


def _openvino(path: Path, _: memoryview) -> Iterator[Range]:
    with path.with_suffix(".xml").open("rb") as stream:
        topology = stream.read(_MAX_HEADER_BYTES)
    for element in _DATA.findall(topology):
        offset, size = _OFFSET.search(element), _SIZE.search(element)
        if offset and size:
            yield Range(start=int(offset[1]), size_bytes=int(size[1]), name=f"constant at {int(offset[1])}")


def _coreml(_: Path, content: memoryview) -> Iterator[Range]:
    """Yield the blobs of a Core ML weight file: a header of 64 bytes, then records of 64 before their values."""
    at = 64
    while at + 64 <= len(content):
        sentinel, _kind, size, start = _BLOB_RECORD.unpack_from(content, at)
        if sentinel != _BLOB_SENTINEL or start < at + 64:
            return
        yield Range(start=start, size_bytes=size, name=f"blob at {at}")
        at = -(-(start + size) // 64) * 64
