"""Arrays from files that anybody may have written."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import DataError, RecipeError
from edgewright.processing.media import read_image
from edgewright.processing.raw import read_raw
from edgewright.processing.specification import RawInput, read_labels, read_specification

NUMBERS = np.arange(6, dtype=np.float32).reshape(2, 3)
ROW = RawInput(name="x", kind="tensor", shape=(2, 3))


def npy(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=array.dtype.kind == "O")
    return stream.getvalue()


def head(shape: str) -> bytes:
    """Return the head of an .npy of this shape, and 24 bytes."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n".encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(24)


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr("a.npy", npy(NUMBERS))
    return stream.getvalue()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<i4", ">i2", "u1"])
def test_numbers_of_any_type_are_read(tmp_path: Path, dtype: str) -> None:
    for array in (NUMBERS.astype(dtype), np.asfortranarray(NUMBERS.astype(dtype))):
        (tmp_path / "x.npy").write_bytes(npy(array))
        made = read_raw(ROW, tmp_path / "x.npy")
        assert made.dtype == np.float32 and made.tolist() == NUMBERS.tolist()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not begin"),
        (pickle.dumps([1.0]), "does not begin"),
        (archive(), "does not begin"),
        (npy(NUMBERS)[:-1], "truncated"),
        (npy(np.full(3, {}, dtype=object)), "objects"),
        (npy(np.zeros((0, 3))), "0 numbers"),
        (npy(NUMBERS.astype("U4")), "numbers are expected"),
        (npy(NUMBERS * 1j), "numbers are expected"),
        (head("9999999999, 3"), "truncated"),
        (head("2147483648, 2147483648, 4"), "truncated"),
        (head("-1, 3"), "broken"),
        (head("True, 3"), "broken"),
        (head("4L, 3L"), "broken"),
        (head("(" * 900), "broken"),
        (head("__import__('os'),"), "broken"),
    ],
)  # fmt: skip
def test_a_broken_npy_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_raw(ROW, tmp_path / "x.npy")


@pytest.mark.parametrize("values", [[1.0, 300.0], [-1.0, 2.0], [0.5, 1.0], [np.nan, 1.0], [1e30, 0.0]])
def test_numbers_that_the_type_does_not_hold_are_refused(tmp_path: Path, values: list[float]) -> None:
    row = RawInput(name="x", kind="tensor", shape=(2,), dtype="uint8")
    np.save(tmp_path / "x.npy", np.array(values))
    (tmp_path / "x.csv").write_text("".join(f"{value}\n" for value in values))
    for name in ("x.npy", "x.csv"):
        with pytest.raises(DataError, match="uint8, the type of input 'x', does not hold"):
            read_raw(row, tmp_path / name)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.npy"
    os.mkfifo(pipe)
    for refused in (lambda: read_raw(ROW, pipe), lambda: read_image(pipe)):
        with pytest.raises(DataError, match="is no file"):
            refused()
    for refused_text in (lambda: read_labels(pipe), lambda: read_specification(pipe)):
        with pytest.raises(RecipeError, match="is no file"):
            refused_text()
