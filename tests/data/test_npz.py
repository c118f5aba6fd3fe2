"""Archives from strangers: every broken or hostile one is a DataError, never a crash, a pickle or a bomb."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import DataError
from edgewright.core.tensors import Array
from edgewright.data import npz
from edgewright.data.npz import read_npz, write_npz


def _npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int64", "bool", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_what_numpy_wrote(tmp_path: Path, dtype: str, order: str) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 2, dtype=dtype, order=order)
    np.savez_compressed(tmp_path / "x.npz", x=array, scalar=array[0, 0, 0], empty=array[:0])
    found = read_npz(tmp_path / "x.npz")
    assert list(found) == ["x", "scalar", "empty"]
    np.testing.assert_array_equal(found["x"], array)
    assert found["x"].dtype == array.dtype and found["x"].flags.writeable
    assert found["scalar"].shape == () and found["empty"].shape == (0, 3, 4)


def test_numpy_reads_what_we_wrote_with_any_name_and_the_same_bytes(tmp_path: Path) -> None:
    arrays = {"file": np.arange(3), "serving/x:0": np.ones((2, 2), np.float32)}
    write_npz(tmp_path / "a.npz", arrays)
    write_npz(tmp_path / "b.npz", arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert sorted(found) == sorted(arrays)
        np.testing.assert_array_equal(found["serving/x:0"], arrays["serving/x:0"])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


class _Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickled_objects_are_refused_unread(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    np.savez(tmp_path / "x.npz", x=np.array([_Trap(sprung)], dtype=object))
    with pytest.raises(DataError, match="pickles"):
        read_npz(tmp_path / "x.npz")
    assert not sprung.exists()


def test_text_and_records_are_refused(tmp_path: Path) -> None:
    for array in (np.array(["cat"]), np.zeros(2, dtype=[("a", "f4")]), np.zeros(2, complex)):
        np.savez(tmp_path / "x.npz", x=array)
        with pytest.raises(DataError, match="only bool, integer and float"):
            read_npz(tmp_path / "x.npz")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as stream:
        stream.write(_npy(np.zeros(0, np.uint8)))
        for _ in range(80):
            stream.write(bytes(1 << 20))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="archive bombs"):
        read_npz(path)


def test_too_much_in_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(1000))
    monkeypatch.setattr(npz, "MAX_TOTAL_BYTES", 4000)
    with pytest.raises(DataError, match="at most 4000"):
        read_npz(tmp_path / "x.npz")


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    path = _archive(tmp_path / "x.npz", {f"{k}.npy": _npy(np.zeros(1)) for k in range(npz.MAX_MEMBERS + 1)})
    with pytest.raises(DataError, match="257 members"):
        read_npz(path)


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("x.npy", _npy(np.zeros(2)))
        archive.writestr("x.npy", _npy(np.ones(2)))
    with pytest.raises(DataError, match="twice"):
        read_npz(path)


def _header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            _header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}\n") + b"\0" * 8,
            "promises",
        ),
        (_header("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}\n") + b"\0" * 8, "promises"),
        (_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}\n") + b"\0" * 8, "shape"),
        (_header("{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 3000 + "}\n"), "header"),
        (_header("{'descr': '<f4'}\n"), "header"),
        (_header("__import__('os')\n"), "header"),
        (b"\x93NUMPY\x09\x00", "version"),
        (b"no array", "header"),
        (b"", "header"),
    ],
)
def test_a_broken_array_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_npz(_archive(tmp_path / "x.npz", {"x.npy": content}))


def test_no_archive_no_array_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    for path, message in (
        (tmp_path / "text.npz", "not a readable"),
        (_archive(tmp_path / "empty.npz", {}), "no array"),
        (_archive(tmp_path / "other.npz", {"readme.txt": b"x"}), "not an array"),
        (tmp_path / "absent.npz", "cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            read_npz(path)


def test_every_truncation_and_many_mutations_are_data_errors_or_the_same_arrays(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    array = rng.normal(size=(6, 5)).astype(np.float32)
    np.savez_compressed(tmp_path / "x.npz", x=array, y=np.arange(6))
    whole = (tmp_path / "x.npz").read_bytes()
    broken = tmp_path / "broken.npz"
    for end in range(0, len(whole), 3):
        broken.write_bytes(whole[:end])
        with pytest.raises(DataError):
            read_npz(broken)
    refused = 0
    for _ in range(600):
        mutated = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            mutated[int(rng.integers(len(mutated)))] ^= int(rng.integers(1, 256))
        broken.write_bytes(mutated)
        try:
            found = read_npz(broken)
        except DataError:
            refused += 1
            continue
        # What is read passed its checksum, so its content is the original (a name or a date may differ).
        assert any(np.array_equal(value, array) for value in found.values())
    assert refused > 300


def test_a_directory_that_claims_more_than_the_file_has(tmp_path: Path) -> None:
    content = bytearray(_archive(tmp_path / "x.npz", {"x.npy": _npy(np.zeros(9))}).read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 20 : directory + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="claims to store more"):
        read_npz(tmp_path / "x.npz")
