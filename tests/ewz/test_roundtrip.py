"""Round trips of `.ewz`: every byte comes back, whatever the bytes are."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.core.errors import UsageError
from edgewright.ewz import pack, packed_bytes, read_packed, unpack
from edgewright.ewz.reading import read_chunks
from edgewright.ewz.writing import write_container

SEED = 7


def packed(content: bytes, folder: Path, name: str = "model.bin") -> bytes:
    """Return `content` as a container of one file."""
    path = folder / name
    path.write_bytes(content)
    stream = io.BytesIO()
    write_container([(name, path)], stream)
    return stream.getvalue()


def content_of(container: bytes) -> bytes:
    return b"".join(chunk.content for chunk in read_chunks(io.BytesIO(container)))


def weights(kind: str, count: int = 20_000) -> bytes:
    """Return weights as models have them."""
    random = np.random.default_rng(SEED)
    floats = random.normal(0, 0.05, count).astype(np.float32)
    codebook = np.sort(random.normal(0, 0.1, 16)).astype(np.float32)
    clustered = codebook[np.clip(random.normal(8, 2.5, count), 0, 15).astype(int)]
    made = {
        "int8": np.clip(np.rint(floats * 600), -127, 127).astype(np.int8),
        "nibbles": random.binomial(15, 0.4, count).astype(np.uint8)
        | random.binomial(15, 0.4, count).astype(np.uint8) << 4,
        "float32": floats,
        "float16": floats.astype(np.float16),
        "clustered": clustered,
        "clustered16": clustered.astype(np.float16),
        "sparse": np.where(random.random(count) < 0.97, np.float32(0), clustered),
        "noise": random.integers(0, 256, count, dtype=np.uint8),
        "constant": np.full(count, 3, dtype=np.uint8),
        "text": np.frombuffer(b"layer weights bias " * (count // 19), dtype=np.uint8),
    }
    return made[kind].tobytes()


KINDS = (
    "int8",
    "nibbles",
    "float32",
    "float16",
    "clustered",
    "clustered16",
    "sparse",
    "noise",
    "constant",
    "text",
)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back(kind: str, tmp_path: Path) -> None:
    content = b"begin" + weights(kind) + b"end"
    assert content_of(packed(content, tmp_path)) == content


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mixture_comes_back(data: st.DataObject, tmp_path: Path) -> None:
    pieces = data.draw(
        st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 400), st.integers(0, 9000)), max_size=5)
    )
    content = b"".join(weights(kind)[start : start + size] for kind, start, size in pieces)
    content += data.draw(st.binary(max_size=300))
    assert content_of(packed(content, tmp_path)) == content


@pytest.mark.parametrize(
    ("kind", "most_bits"),
    [
        # bits per weight of the source's own entropy, computed from its counts below
        ("int8", 8),
        ("clustered", 32),
        ("sparse", 32),
    ],
)
def test_weights_take_their_entropy(kind: str, most_bits: int, tmp_path: Path) -> None:
    content = weights(kind, 200_000)
    words = np.frombuffer(content, dtype=f"<u{most_bits // 8}")
    _, counts = np.unique(words, return_counts=True)
    bound = float((counts * np.log2(len(words) / counts)).sum()) / 8
    size = len(packed(content, tmp_path))
    assert bound < size < 1.01 * bound + 200  # header, digest and codebook


def test_a_file_larger_than_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewright.ewz.writing.FRAME_BYTES", 30_000)
    content = weights("int8", 50_000) + weights("float32", 20_000)
    assert content_of(packed(content, tmp_path)) == content


def test_a_folder_comes_back_with_its_names(tmp_path: Path) -> None:
    folder = tmp_path / "model.mlpackage"
    (folder / "Data" / "weights").mkdir(parents=True)
    files = {"Manifest.json": b"{}", "Data/empty": b"", "Data/weights/weight.bin": weights("float16")}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    report = pack(folder)
    assert report.path == tmp_path / "model.mlpackage.ewz"
    assert report.packed_bytes == report.path.stat().st_size
    assert report.packed_bytes == (
        report.header_bytes + report.control_bytes + report.rest_bytes + report.weight_bytes
    )
    assert packed_bytes({f"model.mlpackage/{name}": folder / name for name in files}) == report.packed_bytes
    out = unpack(report.path, tmp_path / "device")
    assert [str(p.relative_to(tmp_path / "device")) for p in out.files] == sorted(
        f"model.mlpackage/{name}" for name in files
    )
    for name, content in files.items():
        assert (tmp_path / "device" / "model.mlpackage" / name).read_bytes() == content
    assert sorted(p.name for p in (tmp_path / "device").iterdir()) == ["model.mlpackage"]


def test_the_weights_beside_a_topology_come_along(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text('<net><data offset="64" size="20000"/></net>')
    (tmp_path / "model.bin").write_bytes(bytes(64) + weights("int8"))
    report = pack(tmp_path / "model.xml", tmp_path / "m.ewz")
    assert report.files == ("model.bin", "model.xml")
    assert [r.size_bytes for r in report.ranges] == [20000]


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(weights("int8"))
    report = pack(path)
    assert report.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_packed(report.path).digest == report.digest
    assert read_packed(report.path).size_bytes == report.source_bytes


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    assert packed(weights("sparse"), tmp_path) == packed(weights("sparse"), tmp_path)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"x")
    report = pack(path)
    with pytest.raises(UsageError, match="exists already"):
        unpack(report.path, tmp_path)
    with pytest.raises(UsageError, match="one of the files to pack"):
        pack(path, path)


def test_what_cannot_be_packed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        pack(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no file"):
        pack(tmp_path / "empty")
    (tmp_path / "empty" / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="neither a plain file"):
        pack(tmp_path / "empty")
