"""Names of classes: out of a file of lines, or out of the files that converters pack behind a `.tflite`."""

from __future__ import annotations

from pathlib import Path

from edgewright.core.errors import FormatMismatchError, IntegrityError, UsageError
from edgewright.microcontrollers.graph import Graph
from edgewright.sources.embedded import read_tflite_notes

MAX_LABELS = 10_000
MAX_LABEL_CHARACTERS = 128
_MAX_BYTES = 1 << 20
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
    """Return the labels packed behind the `.tflite` at `path`: the text file that its metadata name, or the only one.

    They must fit an output. Models without them, or with a damaged archive, have none: what is packed behind a model
    does not decide whether it can be converted.
    """
    try:
        notes = read_tflite_notes(path)
    except (FormatMismatchError, IntegrityError):
        return ()
    named = dict.fromkeys(note.labels for note in notes.outputs if note.labels)
    texts = [notes.files[name] for name in named or notes.files if name in notes.files and _is_text(name)]
    fitting = [labels for labels in map(_parsed, texts) if len(labels) in _class_counts(graph)]
    return fitting[0] if len(fitting) == 1 else ()


def c_string(text: str) -> str:
    """Return `text` as a string literal of C: UTF-8, every byte that is not plain as three octal digits."""
    parts = [
        character if character in _PLAIN else "".join(f"\\{byte:03o}" for byte in character.encode())
        for character in text
    ]
    return f'"{"".join(parts)}"'


def _is_text(name: str) -> bool:
    return name.lower().endswith(".txt")


def _parsed(content: bytes) -> tuple[str, ...]:
    """Return the labels in `content`, none where it holds something else."""
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
