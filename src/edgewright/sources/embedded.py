"""What model files say of themselves: TFLite Metadata with its packed files, and the properties of an ONNX file.

Everything here is a text or a number that somebody wrote into the file; nothing is executed, and all of it is bounded.
Field numbers: tflite-support, metadata_schema.fbs 1.5; tensorflow/lite schema.fbs; onnx.proto.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from edgewright.backends.coreml_wire import entry, fields, message
from edgewright.backends.mnn_file import Table
from edgewright.core.errors import IntegrityError
from edgewright.sources.flat_tables import damage_of, read_root
from edgewright.sources.graph_def import read_proto

MAX_TEXT_BYTES = 1 << 20
_MAX_FILES = 32
_MAX_FILE_BYTES = 4 << 20
_MAX_TENSORS = 64
_MAX_DIRECTORY_BYTES = 1 << 20
_MAX_END_BYTES = 22 + 0xFFFF
_MAX_CHANNELS = 64
_METADATA_NAME = "TFLITE_METADATA"
# Fields of Model, Metadata, Buffer
_MODEL_BUFFERS, _MODEL_METADATA, _METADATA_BUFFER, _BUFFER_DATA = 4, 6, 1, 0
# Fields of ModelMetadata, SubGraphMetadata, TensorMetadata and its parts
_SUBGRAPHS, _INPUTS, _OUTPUTS = 3, 2, 3
_TENSOR_NAME, _TENSOR_CONTENT, _TENSOR_UNITS, _TENSOR_FILES = 0, 3, 4, 6
_CONTENT_TYPE, _CONTENT = 0, 1
_UNIT_TYPE, _UNIT = 0, 1
_FILE_NAME, _FILE_TYPE = 0, 2
_CONTENTS = {1: "feature", 2: "image", 3: "boxes", 4: "audio"}
_NORMALIZATION, _THRESHOLD = 1, 3
_CORNERS = 1
_AXIS_LABELS, _VALUE_LABELS = 2, 3
_ONNX_PROPERTIES = 14


@dataclass(frozen=True, kw_only=True)
class TensorNote:
    """What TFLite Metadata says of one tensor.

    Attributes:
        content: feature, image, boxes, audio; empty where it says nothing.
        colours: of an image.
        mean, std: (x - mean) / std makes the input of raw values, 0..255 for pixels; empty where nothing is said.
        threshold: of a score.
        labels: name of the packed file with a label for each class.
        box_order: places of left, top, right and bottom in a row of boxes; empty where they are no such corners.
        is_unit: the boxes' coordinates are 0..1, not pixels.
    """

    name: str
    content: str = ""
    colours: Literal["rgb", "grey", ""] = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    threshold: float | None = None
    labels: str = ""
    box_order: tuple[int, ...] = ()
    is_unit: bool = True


@dataclass(frozen=True, kw_only=True)
class TfliteNotes:
    """TFLite Metadata of a model's first graph, tensors in their order; `files` are packed behind the model."""

    inputs: tuple[TensorNote, ...] = ()
    outputs: tuple[TensorNote, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


def read_tflite_notes(path: Path) -> TfliteNotes:
    """Return what the `.tflite` at `path` says of its tensors, and the files that are packed behind it.

    Raises:
        FormatMismatchError: it is no `.tflite`.
        IntegrityError: an offset leads outside, or a packed file is broken or too large.
    """
    with damage_of(path):
        model = read_root(path, b"TFL3", "a LiteRT model")
        files = _packed_files(path)
        described = _described(model)
        if described is None:
            return TfliteNotes(files=files)
        return TfliteNotes(
            inputs=_tensors(described, _INPUTS), outputs=_tensors(described, _OUTPUTS), files=files
        )


def read_onnx_properties(path: Path) -> dict[str, str]:
    """Return `metadata_props` of the ONNX file at `path`; the graph is passed over unread.

    Raises:
        FormatMismatchError, IntegrityError: it is too large, or damaged.
    """
    properties: dict[str, str] = {}
    for number, value in fields(read_proto(path)):
        if number != _ONNX_PROPERTIES or len(properties) >= 256:
            continue
        try:
            key, body = entry(message(value))
            if len(body) <= MAX_TEXT_BYTES:
                properties[key] = str(body, "utf-8")
        except UnicodeDecodeError as err:
            raise IntegrityError(f"{path}: a property is not UTF-8: {err.reason}. Export it again.") from err
    return properties


def _described(model: Table) -> Table | None:
    """Return the metadata of the first graph."""
    buffers = model.tables(_MODEL_BUFFERS)
    for row in model.tables(_MODEL_METADATA)[:_MAX_TENSORS]:
        number = row.integer(_METADATA_BUFFER, form="<I")
        if row.text(0) != _METADATA_NAME or number >= len(buffers):
            continue
        start, count = buffers[number].text_at(_BUFFER_DATA)
        if count < 8:
            return None
        content = model.buffer[start : start + count]
        root = int.from_bytes(content[:4], "little")
        if root + 4 > count:
            raise IntegrityError("the metadata is damaged: its root lies outside. Write it again.")
        graphs = Table(content, root).tables(_SUBGRAPHS)
        return graphs[0] if graphs else None
    return None


def _tensors(graph: Table, number: int) -> tuple[TensorNote, ...]:
    return tuple(_tensor(row) for row in graph.tables(number)[:_MAX_TENSORS])


def _tensor(row: Table) -> TensorNote:
    kind, colours = "", 0
    box_order: tuple[int, ...] = ()
    is_unit = True
    content = row.table(_TENSOR_CONTENT)
    if content is not None:
        kind = _CONTENTS.get(content.integer(_CONTENT_TYPE, form="<B"), "")
        properties = content.table(_CONTENT)
        if kind == "image" and properties is not None:
            colours = properties.integer(0, form="<b")
        if kind == "boxes" and properties is not None and properties.integer(1, form="<b") == _CORNERS:
            # The schema's default is left, top, right, bottom.
            box_order = (properties.integers(0) if properties.length(0, 4) <= 4 else ()) or (0, 1, 2, 3)
            is_unit = properties.integer(2, form="<b") == 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    threshold: float | None = None
    for unit in row.tables(_TENSOR_UNITS)[:_MAX_TENSORS]:
        options = unit.table(_UNIT)
        what = unit.integer(_UNIT_TYPE, form="<B")
        if options is not None and what == _NORMALIZATION:
            mean, std = _numbers(options, 0), _numbers(options, 1)
        elif options is not None and what == _THRESHOLD:
            bits = options.integer(0, form="<I")
            threshold = float(np.array(bits, dtype=np.uint32).view(np.float32))
    labels = [
        file.text(_FILE_NAME)
        for file in row.tables(_TENSOR_FILES)[:_MAX_FILES]
        if file.integer(_FILE_TYPE, form="<b") in (_AXIS_LABELS, _VALUE_LABELS)
    ]
    return TensorNote(
        name=row.text(_TENSOR_NAME),
        content=kind,
        colours="rgb" if colours == 1 else "grey" if colours == 2 else "",
        mean=mean,
        std=std,
        threshold=threshold,
        labels=labels[0] if labels else "",
        box_order=box_order,
        is_unit=is_unit,
    )


def _numbers(table: Table, number: int) -> tuple[float, ...]:
    if table.length(number, 4) > _MAX_CHANNELS:
        raise IntegrityError(
            f"the metadata normalizes more than {_MAX_CHANNELS} channels; it is damaged or not of an image."
        )
    return tuple(np.array(table.integers(number), dtype=np.int32).view(np.float32).tolist())


def _packed_files(path: Path) -> dict[str, bytes]:
    """Return name -> content of the files in the ZIP archive behind the model; none where there is no archive."""
    if not zipfile.is_zipfile(path):
        return {}
    _check_directory(path)
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist()[:_MAX_FILES]:
                if info.is_dir() or info.file_size > _MAX_FILE_BYTES:
                    continue
                with archive.open(info) as stream:
                    # What the archive says of the size need not be true.
                    content = stream.read(_MAX_FILE_BYTES + 1)
                if len(content) > _MAX_FILE_BYTES:
                    raise IntegrityError(f"the packed file {info.filename!r:.80} is larger than it says.")
                files[info.filename] = content
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as err:
        raise IntegrityError(
            f"{path}: the files packed behind the model cannot be read: {err}. Pack them again."
        ) from err
    return files


def _check_directory(path: Path) -> None:
    """Raise IntegrityError where the archive's directory, which `zipfile` lists as a whole, is too large.

    Source: APPNOTE.TXT 4.3.16: the end record is within the last 22 + 65535 bytes, the directory's size at its byte 12.
    """
    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(size - _MAX_END_BYTES, 0))
        end = stream.read()
    place = end.rfind(b"PK\x05\x06")
    listed = int.from_bytes(end[place + 12 : place + 16], "little")
    # The locator of a ZIP64 record, which would state another size, stands right before it.
    is_large = end[max(place - 20, 0) : place].startswith(b"PK\x06\x07")
    if place < 0 or is_large or listed > _MAX_DIRECTORY_BYTES:
        raise IntegrityError(
            f"{path}: the archive behind the model has a directory of {listed} bytes; at most "
            f"{_MAX_DIRECTORY_BYTES} are read. Pack fewer files."
        )
