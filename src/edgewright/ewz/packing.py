"""Pack an artifact into one `.ewz`, and unpack it again."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.core.errors import FormatMismatchError, IntegrityError, UsageError
from edgewright.core.files import MAX_MODEL_BYTES, write_aside
from edgewright.ewz.container import FREE_BYTES, MAX_FILES, MAX_GROWTH, SUFFIX, is_safe_name, require_packages

if TYPE_CHECKING:
    from edgewright.ewz.reading import Header
    from edgewright.ewz.writing import CodedRange

# Artifacts of two files: the one that is named, and the weights beside it.
_WEIGHTS_BESIDE = {".xml": ".bin", ".param": ".bin"}


@dataclass(frozen=True, kw_only=True)
class PackReport:
    """What was packed, and what takes how many bytes.

    Attributes:
        source_bytes: all files on disk.
        packed_bytes: the `.ewz`: header_bytes + control_bytes (places, tables) + rest_bytes + weight_bytes.
        digest: of the content, as an artifact's record has it.
        ranges: of weights, in the order of the content.
    """

    path: Path
    files: tuple[str, ...]
    source_bytes: int
    packed_bytes: int
    header_bytes: int
    control_bytes: int
    rest_bytes: int
    weight_bytes: int
    digest: str
    ranges: tuple[CodedRange, ...]

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return {
            "path": str(self.path),
            "files": list(self.files),
            "source_bytes": self.source_bytes,
            "packed_bytes": self.packed_bytes,
            "ratio": self.source_bytes / self.packed_bytes,
            "header_bytes": self.header_bytes,
            "control_bytes": self.control_bytes,
            "rest_bytes": self.rest_bytes,
            "weight_bytes": self.weight_bytes,
            "sha256": self.digest,
            "ranges": [
                {
                    "name": r.name,
                    "size_bytes": r.size_bytes,
                    "kind": r.kind,
                    "entropy_bytes": round(r.entropy_bytes, 2),
                    "coded_bytes": round(r.coded_bytes, 2),
                }
                for r in self.ranges
            ],
        }


@dataclass(frozen=True, kw_only=True)
class UnpackReport:
    """The files that were written, all checked."""

    files: tuple[Path, ...]
    packed_bytes: int
    source_bytes: int
    digest: str

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return {
            "files": [str(file) for file in self.files],
            "packed_bytes": self.packed_bytes,
            "source_bytes": self.source_bytes,
            "sha256": self.digest,
        }


def pack(source: Path, out: Path | None = None) -> PackReport:
    """Pack the artifact at `source` losslessly and return what it takes.

    Args:
        source: a file (the weights beside an OpenVINO .xml or an ncnn .param come with it), or a folder.
        out: the `.ewz`; default: beside the source, with the suffix added to its name.
    Raises:
        UsageError: nothing there, an empty folder, a link or a special file in it, or `out` cannot be written.
        UnavailableError: numba or zstandard is not installed.
    """
    require_packages()
    from edgewright.ewz.writing import write_container

    files = _files(source)
    path = source.with_name(source.name + SUFFIX) if out is None else out
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder, but a file is to be written. Name it, e.g. --out {path / 'model.ewz'}."
        )
    if any(path.resolve() == file.resolve() for file in files.values()):
        raise UsageError(f"{path} is one of the files to pack. Choose another with --out.")
    with _readable(source), write_aside(path) as aside, aside.open("wb") as stream:
        written = write_container(list(files.items()), stream)
    return PackReport(
        path=path,
        files=tuple(files),
        source_bytes=sum(file.stat().st_size for file in files.values()),
        packed_bytes=path.stat().st_size,
        header_bytes=written.header_bytes,
        control_bytes=written.control_bytes,
        rest_bytes=written.rest_bytes,
        weight_bytes=written.weight_bytes,
        digest=written.digest,
        ranges=written.ranges,
    )


def packed_bytes(files: Mapping[str, Path]) -> int:
    """Return how many bytes `files` (name in the container -> path) take as `.ewz`, without writing it.

    Raises:
        UnavailableError: numba or zstandard is not installed.
    """
    require_packages()
    from edgewright.ewz.writing import write_container

    counter = _Counter()
    write_container(sorted(files.items()), counter)
    return counter.size


def read_packed(path: Path) -> Header:
    """Return the header of the `.ewz` at `path`: its files, their sizes and the digest of their content.

    Raises:
        UsageError: no such file.
        FormatMismatchError, IntegrityError: it is no `.ewz`, or its header is broken.
    """
    from edgewright.ewz.reading import read_header

    with _opened(path) as stream, _named(path):
        return read_header(stream)


def unpack(source: Path, out: Path, *, limit_bytes: int | None = None) -> UnpackReport:
    """Write the files of the `.ewz` at `source` into the folder `out`, once all of them are checked.

    Args:
        limit_bytes: what it may unpack to; default: 64 MiB, or 1,024 times its own size.
    Raises:
        UsageError: no such file, a file that is there already, or a folder that cannot be written.
        FormatMismatchError: it is no `.ewz`.
        IntegrityError: it is broken, or would unpack to more than `limit_bytes`; nothing is written.
        UnavailableError: numba or zstandard is not installed.
    """
    require_packages()
    from edgewright.ewz.reading import read_chunks

    header = read_packed(source)
    packed = source.stat().st_size
    limit = max(FREE_BYTES, MAX_GROWTH * packed) if limit_bytes is None else limit_bytes
    if header.size_bytes > limit:
        raise IntegrityError(
            f"{source} has {packed} bytes, but promises to unpack to {header.size_bytes}; at most {limit} are "
            "unpacked. If you trust it, allow more with --limit-mb."
        )
    tops = sorted({entry.name.partition("/")[0] for entry in header.entries})
    for top in tops:
        if os.path.lexists(out / top):
            raise UsageError(f"{out / top} exists already. Remove it, or choose another folder with --out.")
    with _folder_aside(out) as aside:
        with _opened(source) as stream, _named(source):
            for chunk in read_chunks(stream):
                target = aside / chunk.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("ab") as file:
                    file.write(chunk.content)
        for top in tops:
            (aside / top).rename(out / top)
    return UnpackReport(
        files=tuple(out / entry.name for entry in header.entries),
        packed_bytes=packed,
        source_bytes=header.size_bytes,
        digest=header.digest,
    )


def _files(source: Path) -> dict[str, Path]:
    """Return the files to pack by their name in the container, sorted by it."""
    if not os.path.lexists(source):
        raise UsageError(f"{source} does not exist. Check the path.")
    if source.is_dir():
        name = source.resolve().name
        found = {}
        for path in source.rglob("*"):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise UsageError(f"{path} is neither a plain file nor a folder. Remove it, or pack one file.")
            if path.is_file():
                found[f"{name}/{path.relative_to(source).as_posix()}"] = path
        if not found:
            raise UsageError(f"{source} holds no file. There is nothing to pack.")
    else:
        found = {source.name: source}
        beside = _WEIGHTS_BESIDE.get(source.suffix.lower())
        if beside and source.with_suffix(beside).is_file():
            found[source.with_suffix(beside).name] = source.with_suffix(beside)
        if not source.is_file():
            raise UsageError(f"{source} is neither a file nor a folder.")
    if len(found) > MAX_FILES:
        raise UsageError(f"{source} holds {len(found)} files; at most {MAX_FILES} are packed.")
    for name in found:
        if not is_safe_name(name):
            raise UsageError(
                f"{source} holds a file {name!r}, a name that not every system can write. Rename it."
            )
    size = sum(path.stat().st_size for path in found.values())
    if size > MAX_MODEL_BYTES:
        raise UsageError(f"{source} has {size} bytes; at most {MAX_MODEL_BYTES} are packed.")
    return dict(sorted(found.items()))


class _Counter:
    """Counts what is written and forgets it."""

    size = 0

    def write(self, content: bytes, /) -> int:
        self.size += len(content)
        return len(content)


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    if not path.is_file():
        raise UsageError(f"{path} is not a file. Check the path.")
    try:
        stream = path.open("rb")
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}.") from err
    with stream:
        yield stream


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as err:
        raise UsageError(f"{err.filename or source} cannot be read: {err.strerror}.") from err


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name `path` in what the reader says of its content."""
    try:
        yield
    except FormatMismatchError as err:
        raise FormatMismatchError(f"{path} is not read as .ewz: {err}.") from err
    except IntegrityError as err:
        raise IntegrityError(f"{path} is damaged: {err}. Download it again.") from err


@contextmanager
def _folder_aside(out: Path) -> Iterator[Path]:
    """Give a temporary folder inside `out`, gone afterwards."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".ewz-", dir=out, ignore_cleanup_errors=True) as name:
            yield Path(name)
    except OSError as err:
        raise UsageError(
            f"cannot write into {out}: {err.strerror or err}. Free space or choose another folder with --out."
        ) from err
