"""Weights are found where the format says they are; elsewhere by statistics; damage is no obstacle."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.ewz.test_roundtrip import weights
from tests.small_models import write_onnx

from edgewright.ewz.ranges import Range, find_ranges


def found(path: Path) -> list[Range]:
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    ranges = find_ranges(path, content)
    ends = [0, *(r.start + r.size_bytes for r in ranges)]
    assert all(end <= r.start for end, r in zip(ends, ranges, strict=False))
    assert ends[-1] <= len(content)
    return ranges


@pytest.mark.toolchain("onnx")
def test_onnx_initializers(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    assert {r.name: r.size_bytes for r in found(path)} == {"kernel": 4 * 8 * 9, "matrix": 4 * 512 * 10}
    content = path.read_bytes()
    for size in (10, len(content) // 2, len(content) - 5):
        path.write_bytes(content[:size])
        found(path)


def test_safetensors_and_stored_zip_members(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"I8","shape":[20000],"data_offsets":[0,20000]},"__metadata__":{}}'
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + weights("int8"))
    assert found(path) == [Range(start=8 + len(header), size_bytes=20000, name="a")]
    path.write_bytes(struct.pack("<Q", 1 << 40) + header)
    assert found(path) == []

    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        archive.writestr("m/data/weights/w", weights("int8"))
        archive.writestr("m/text", "x" * 500, compress_type=zipfile.ZIP_DEFLATED)
    (r,) = found(tmp_path / "m.pt2")
    assert (tmp_path / "m.pt2").read_bytes()[r.start : r.start + r.size_bytes] == weights("int8")


def test_the_topology_beside_tells(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(bytes(64) + weights("int8"))
    constants = ((64, 9000), (9064, 100), (1, 9), (70, 9), (99999, 999))
    (tmp_path / "m.xml").write_text("".join(f'<data offset="{at}" size="{size}"/>' for at, size in constants))
    assert [(r.start, r.size_bytes) for r in found(tmp_path / "m.bin")][:2] == [(64, 9000), (9064, 100)]


def test_core_ml_blobs(tmp_path: Path) -> None:
    record = struct.pack("<IIQQ", 0xDEADBEEF, 4, 20000, 128)
    (tmp_path / "weight.bin").write_bytes(bytes(64) + record.ljust(64, b"\0") + weights("int8"))
    assert [(r.start, r.size_bytes) for r in found(tmp_path / "weight.bin")] == [(128, 20000)]


def test_litert_buffers(assets: Path) -> None:
    path = assets / "models" / "mlperf-tiny" / "ic_resnet8_int8.tflite"
    ranges = found(path)
    assert sum(r.size_bytes for r in ranges if "Conv2D" in r.name or "conv2d" in r.name) > 70_000


def test_unknown_files_are_cut_where_their_statistics_change(tmp_path: Path) -> None:
    path = tmp_path / "m.engine"
    path.write_bytes(weights("text") + weights("int8") + weights("float32"))
    edges = [r.start for r in found(path)]
    text, int8 = len(weights("text")), len(weights("int8"))
    assert any(abs(edge - text) <= 2048 for edge in edges)
    assert any(abs(edge - text - int8) <= 2048 for edge in edges)
