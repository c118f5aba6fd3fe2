"""Raw inputs from files, as a specification takes them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array
from edgewright.processing.specification import RawInput

_NUMBERS = frozenset((".npy", ".csv"))
_MAX_CSV_BYTES = 256 << 20
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
    try:
        if path.suffix.lower() == ".npy":
            array: Array = np.load(path, allow_pickle=False)
        else:
            if path.stat().st_size > _MAX_CSV_BYTES:
                raise DataError(f"{path} has more than {_MAX_CSV_BYTES} bytes. Give an .npy.")
            with warnings.catch_warnings(action="error"):  # that a file is empty is only warned of
                array = np.loadtxt(path, delimiter=",", dtype=np.float64, ndmin=1)
    except (OSError, ValueError, EOFError, UserWarning) as err:
        raise DataError(f"{path} cannot be read as numbers: {err}. An .npy or a .csv is expected.") from err
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path} holds {array.dtype}, but numbers are expected.")
    return array.astype(row.dtype)
