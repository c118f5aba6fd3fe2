"""Read .npz archives that nobody vouches for: no pickles, no zip bombs, no sizes taken on trust."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from edgewright.core.errors import DataError, first_line
from edgewright.core.files import write_aside
from edgewright.core.tensors import MAX_RANK, Array

MAX_MEMBERS = 256
MAX_TOTAL_BYTES = 16 << 30
# Deflate cannot exceed 1032:1; real recordings and images stay below 50:1, sparse masks below 200:1.
MAX_RATIO = 200
_RATIO_FREE_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
_NUMERIC_KINDS = "biuf"


def read_npz(path: Path) -> dict[str, Array]:
    """Return the arrays of the archive at `path`, name -> array, in the archive's order.

    Only bool, integer and float arrays are read; a pickled object array is refused unread.

    Raises:
        DataError: not an archive, broken, too large, compressed beyond 200:1, or with an array
            that is not numeric or whose header promises another size than is stored.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check_members(path, members)
            return {member.filename[: -len(".npy")]: _read(path, archive, member) for member in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as err:
        raise DataError(
            f"{path} is not a readable .npz archive: {err}. Write it again with numpy.savez."
        ) from err
    except MemoryError as err:
        raise DataError(f"{path} does not fit into memory. Give fewer samples.") from err
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err.strerror or err}.") from err


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if not members:
        raise DataError(f"{path} holds no array. Write it with numpy.savez(path, x=..., y=...).")
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{path} holds {len(members)} members; at most {MAX_MEMBERS} are read.")
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise DataError(
            f"{path} holds the same name twice: {sorted(names)}. Write it again with numpy.savez."
        )
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL_BYTES:
        raise DataError(f"{path} unpacks to {total} bytes; at most {MAX_TOTAL_BYTES} are read. Split it.")
    # The directory of an archive can claim anything; what it claims to store cannot exceed the file.
    if sum(member.compress_size for member in members) > path.stat().st_size:
        raise DataError(f"{path} claims to store more bytes than it has. Write it again with numpy.savez.")
    for member in members:
        if not member.filename.endswith(".npy"):
            raise DataError(f"{path} holds {member.filename!r}, which is not an array (.npy). Remove it.")
        ratio = member.file_size / max(member.compress_size, 1)
        if member.file_size > _RATIO_FREE_BYTES and ratio > MAX_RATIO:
            raise DataError(
                f"{path}: {member.filename!r} unpacks {ratio:.0f} times larger than stored; at most "
                f"{MAX_RATIO} is read, as a guard against archive bombs. If the data is real, write it "
                "uncompressed with numpy.savez."
            )


def _read(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """Return one array; its header is checked against the stored size before anything is allocated."""
    what = f"{path}: {member.filename!r}"
    with archive.open(member) as stream:
        try:
            version = npy.read_magic(stream)  # type: ignore[no-untyped-call]
            if version == (1, 0):
                header = npy.read_array_header_1_0(stream)  # type: ignore[no-untyped-call]
            elif version == (2, 0):
                header = npy.read_array_header_2_0(stream)  # type: ignore[no-untyped-call]
            else:
                raise DataError(f"{what} has .npy version {version}; 1.0 and 2.0 are read.")
        except (ValueError, SyntaxError, TypeError, RecursionError, tokenize.TokenError) as err:
            raise DataError(f"{what} has a broken .npy header: {first_line(err)}.") from err
        shape, is_fortran, dtype = header
        if dtype.kind not in _NUMERIC_KINDS or dtype.hasobject or dtype.subdtype is not None:
            raise DataError(
                f"{what} holds {dtype} values; only bool, integer and float arrays are read (object arrays "
                "are pickles, which could run code). Convert it to a numeric array first."
            )
        if len(shape) > MAX_RANK or any(size < 0 for size in shape):
            raise DataError(f"{what} has shape {list(shape)[:20]}, which no data set has.")
        size_bytes = math.prod(shape) * dtype.itemsize
        stored = member.file_size - stream.tell()
        if size_bytes != stored:
            raise DataError(
                f"{what} promises {dtype}{list(shape)}, {size_bytes} bytes, but {stored} are stored. "
                "Write the file again."
            )
        content = bytearray(size_bytes)
        view, filled = memoryview(content), 0
        while chunk := stream.read(_CHUNK_BYTES):
            view[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
    if filled != size_bytes:
        raise DataError(f"{what} ends after {filled} of {size_bytes} bytes. Write the file again.")
    # A bytearray keeps the array writable, as arrays of numpy.load are.
    return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if is_fortran else "C")


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` uncompressed to `path`, atomically; the same arrays give the same bytes.

    Unlike numpy.savez this takes any name ("file" is a parameter there).

    Raises:
        UsageError: the folder cannot be written.
    """
    with write_aside(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w", force_zip64=True) as stream:
                npy.write_array(stream, np.asarray(array), allow_pickle=False)  # type: ignore[no-untyped-call]
