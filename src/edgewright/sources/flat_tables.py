"""The bounded reader of flatbuffers, for files that are not MNN's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgewright.backends.mnn_file import Table
from edgewright.core.errors import FormatMismatchError, IntegrityError

MAX_BYTES = 2 << 30


def read_root(path: Path, identifier: bytes, title: str) -> Table:
    """Return the root table of the flatbuffer at `path`, whose bytes 4..8 begin with `identifier`.

    Args:
        title: what the file should be, for the message.
    Raises:
        FormatMismatchError: too large, or another kind of file.
        IntegrityError: the root lies outside the file.
    """
    size = path.stat().st_size
    if not 8 <= size <= MAX_BYTES:
        raise FormatMismatchError(f"{path} has {size} bytes; {title} of 8 to {MAX_BYTES} bytes is read.")
    content = path.read_bytes()
    if not content[4:8].startswith(identifier):
        raise FormatMismatchError(
            f"{path} is not {title}: bytes 4..8 are {content[4:8]!r}, expected {identifier!r}. Build it again."
        )
    root = int.from_bytes(content[:4], "little")
    if root + 4 > size:
        raise IntegrityError(f"{path} is damaged: its root is at byte {root} of {size}. Build it again.")
    return Table(memoryview(content), root)


@contextmanager
def damage_of(path: Path) -> Iterator[None]:
    """Name `path` in what the reader says of a damaged file."""
    try:
        yield
    except IntegrityError as err:
        raise IntegrityError(
            str(err).replace("the .mnn file", path.name).replace("Convert", "Build")
        ) from err
