"""Names of classes: out of a file of lines, or out of the archive that converters append to a `.tflite`."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from edgewright.core.errors import UsageError
from edgewright.microcontrollers.graph import Graph

MAX_LABELS = 10_000
MAX_LABEL_CHARACTERS = 128
_MAX_BYTES = 1 << 20
_MAX_MEMBERS = 64
# What may stand in a string literal as it is: printable ASCII without ", \ and ? (which begins a trigraph).
_PLAIN = frozenset(chr(code) for code in range(0x20, 0x7F)) - set('"\\?')


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the labels in the text file at `path`, one a line; empty lines at its end do not count.

    Raises:
        UsageError: there is no such file, it is too large, not UTF-8, empty, or has an empty or overlong line.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as err:
        raise UsageError(f"the labels {path} cannot be read: {err.strerror}. Check the path.") from err
    try:
        return _parse(content)
    except ValueError as err:
        raise UsageError(
            f"the labels {path} cannot be used: {err}. Expected is UTF-8 with one name a line."
        ) from err


def check_labels(labels: tuple[str, ...], graph: Graph) -> None:
    """Check that an output of `graph` has one value for each label along its last axis.

    Raises:
        UsageError: none has.
    """
    sizes = _class_counts(graph)
    if len(labels) not in sizes:
        raise UsageError(
            f"there are {len(labels)} labels, but the outputs tell {', '.join(map(str, sizes)) or 'no'} classes apart. "
            "Give one label for each."
        )


def embedded_labels(path: Path, graph: Graph) -> tuple[str, ...]:
    """Return the labels in the archive behind the flatbuffer at `path`: the one text file whose lines fit an output.

    Models without an archive, or with one that is damaged or fits nothing, have none: what is appended to a model
    does not decide whether it can be converted.
    Source: TensorFlow Lite Metadata, "associated files" (a zip archive at the end of the model file).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist()[:_MAX_MEMBERS] if one.file_size <= _MAX_BYTES]
            texts = [_member(archive, one) for one in members if one.filename.lower().endswith(".txt")]
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
        return ()
    fitting = [labels for labels in texts if len(labels) in _class_counts(graph)]
    return fitting[0] if len(fitting) == 1 else ()


def c_string(text: str) -> str:
    """Return `text` as a string literal of C: UTF-8, every byte that is not plain as three octal digits."""
    parts = [
        character if character in _PLAIN else "".join(f"\\{byte:03o}" for byte in character.encode())
        for character in text
    ]
    return f'"{"".join(parts)}"'


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[str, ...]:
    with archive.open(member) as stream:
        content = stream.read(_MAX_BYTES + 1)  # the archive's own word for its size is not enough
    try:
        return _parse(content)
    except ValueError:
        return ()


def _parse(content: bytes) -> tuple[str, ...]:
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES} bytes")
    lines = [line.strip() for line in content.decode("utf-8-sig").rstrip().split("\n")]
    if len(lines) > MAX_LABELS:
        raise ValueError(f"it has {len(lines)} lines, at most {MAX_LABELS} are taken")
    for number, line in enumerate(lines, start=1):
        if not 0 < len(line) <= MAX_LABEL_CHARACTERS or "\0" in line:
            raise ValueError(f"line {number} is not 1 to {MAX_LABEL_CHARACTERS} characters long")
    return tuple(lines)


def _class_counts(graph: Graph) -> tuple[int, ...]:
    shapes = [graph.tensor(index).shape for index in graph.outputs]
    return tuple(shape[-1] for shape in shapes if shape)
