"""Raw inputs from files, as a specification takes them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError

import numpy as np

from edgewright.core.errors import DataError, first_line
from edgewright.core.tensors import Array
from edgewright.processing.specification import RawInput
from edgewright.processing.values import MAX_VALUES

_NUMBERS = frozenset((".npy", ".csv"))
_MAX_CSV_BYTES = 256 << 20
# What numpy raises of a head that anybody may have written.
_BROKEN_HEAD = (ValueError, TypeError, EOFError, OverflowError, MemoryError, TokenError, Warning)
_MAGIC = b"\x93NUMPY"
# What is taken from a folder; a file that is named may have any suffix.
RAW_SUFFIXES: Mapping[str, frozenset[str]] = {
    "image": frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")),
    "audio": frozenset((".wav",)),
    "series": _NUMBERS,
    "landmarks": _NUMBERS,
    "tensor": _NUMBERS,
}


def read_raw(row: RawInput, path: Path) -> Array:
    """Return the array of the file at `path` for the input `row`.

    An image, a WAV, an .npy, or a .csv of numbers whose rows are the first axis.

    Raises:
        DataError: it cannot be read, or is not what the input takes.
    """
    from edgewright.processing.audio_files import read_audio
    from edgewright.processing.media import read_image

    if row.kind == "image":
        return read_image(path, order=row.order)
    if row.kind == "audio":
        return read_audio(path, rate_hz=row.rate_hz)
    if not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path} is no file. An .npy or a .csv is expected.")
    try:
        array = _read_npy(path) if path.suffix.lower() == ".npy" else _read_csv(path)
    except (OSError, ValueError, UserWarning) as err:
        reason = first_line(err).partition("; use")[0]
        raise DataError(
            f"{path} cannot be read as numbers: {reason}. An .npy or a .csv is expected."
        ) from err
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path} holds {array.dtype}, but numbers are expected.")
    with np.errstate(all="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as such
        made: Array = array.astype(row.dtype)
        is_held = made.dtype.kind == "f" or bool((made == array).all())
    if not is_held:
        raise DataError(
            f"{path} holds numbers that {row.dtype}, the type of input {row.name!r}, does not hold."
        )
    return made


def _read_npy(path: Path) -> Array:
    """Return the array of an .npy. It is mapped, not read: what its head promises must be there."""
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin as an .npy")  # but perhaps as a pickle, or an archive
    try:
        with warnings.catch_warnings(action="error"):  # of heads that Python 2 wrote, of sides beyond 64 bits
            mapped: Array = np.load(path, allow_pickle=False, mmap_mode="r")
    except _BROKEN_HEAD as err:
        raise ValueError("it is broken, truncated, or holds objects") from err
    if not 1 <= mapped.size <= MAX_VALUES:
        raise ValueError(f"it has {mapped.size} numbers, where 1..{MAX_VALUES} are taken")
    return np.array(mapped)


def _read_csv(path: Path) -> Array:
    if path.stat().st_size > _MAX_CSV_BYTES:
        raise ValueError(f"it has more than {_MAX_CSV_BYTES} bytes")
    with warnings.catch_warnings(action="error"):  # that a file is empty is only warned of
        return np.loadtxt(path, delimiter=",", dtype=np.float64, ndmin=1)
