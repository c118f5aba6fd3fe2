"""ncnn, MNN and TensorRT files are described without their runtimes, and broken ones are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.core.errors import EdgewrightError, FormatMismatchError, IntegrityError
from edgewright.core.target import Precision, Target
from edgewright.sources.inspect_mnn import inspect_mnn
from edgewright.sources.inspect_ncnn import inspect_ncnn
from edgewright.sources.inspect_tensorrt import inspect_tensorrt
from edgewright.sources.load import inspect_artifact
from edgewright.workers import environments
from edgewright.workers.pool import Worker

CNN_PARAMETERS = 16 * 9 + 16 + 16 * 9 + 16 + 16 * 64 + 64 + 640 + 10  # batch norms folded


@pytest.mark.toolchain("torch", "onnx", "ncnn", "pnnx")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_ncnn_counts_what_was_converted(tmp_path: Path, precision: str) -> None:
    from edgewright.backends.ncnn import NcnnBackend

    target = Target(runtime="ncnn", precision=Precision(precision))
    artifact = NcnnBackend().convert(programs.cnn_onnx(tmp_path), target, None, tmp_path / "out")
    found = inspect_artifact(artifact.path)
    assert (found.format, found.precision, found.sha256) == ("ncnn", precision, artifact.sha256)
    assert found.parameters == CNN_PARAMETERS
    assert found.size_bytes == artifact.size_bytes
    assert [(spec.name, spec.shape) for spec in found.inputs] == [("in0", (1, 8, 8))]
    assert [spec.name for spec in found.outputs] == ["out0"]
    assert found.operators["Convolution"] == 2
    assert found.macs is None


def test_ncnn_without_its_weights_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.param"
    path.write_text("7767517\n2 2\nInput data 0 1 data\nLSTM r 1 1 data y 0=8 1=256 2=0\n")
    found = inspect_ncnn(path)
    assert found.precision == "unknown"
    assert found.parameters == 256 + 4 * 8 + 4 * 64
    assert any("model.bin" in note for note in found.notes)
    assert any("not declared" in note for note in found.notes)


@pytest.mark.toolchain("torch", "onnx")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8", "w4"])
def test_mnn_counts_what_was_converted(tmp_path: Path, precision: str) -> None:
    if not environments.is_installed("mnn"):
        pytest.skip("needs MNN; install it with: edgewright toolchain install mnn")
    program = programs.cnn_onnx(tmp_path)
    arguments = {
        "program": program.to_json(),
        "target": Target(runtime="mnn", precision=Precision(precision)).to_json(),
        "workdir": str(tmp_path / "out"),
    }
    with Worker("mnn", environment="mnn") as worker:
        worker.call("edgewright.backends.operations:convert", arguments)
    found = inspect_artifact(tmp_path / "out" / "model.mnn")
    assert (found.format, found.precision) == ("mnn", precision)
    assert found.parameters == CNN_PARAMETERS
    assert [(spec.name, spec.shape[1:], spec.dtype) for spec in found.inputs] == [
        ("image", (1, 8, 8), "float32")
    ]
    assert [spec.name for spec in found.outputs] == ["logits"]
    assert found.operators["Convolution"] == 3
    assert found.operators["ConvolutionDepthwise"] == 1


def test_real_files_of_others_are_described(assets: Path) -> None:
    quantized = inspect_mnn(assets / "models/ultraface-slim/slim-320-quant-ADMM-50.mnn")
    assert quantized.precision == "w8a8"
    assert quantized.operators["ConvInt8"] == 23
    assert [str(spec) for spec in quantized.inputs] == ["input: float32[1, 3, 240, 320]"]
    stored = int(next(note for note in quantized.notes if note.startswith("weights take")).split()[2])
    assert 0.8 * quantized.size_bytes < stored < quantized.size_bytes
    half = inspect_ncnn(assets / "models/fastestdet/FastestDet.param")
    assert (half.precision, half.parameters) == ("fp16", 240_301)
    assert 2 * half.parameters < half.size_bytes
    plain = inspect_ncnn(assets / "models/ultraface-slim/slim_320.param")
    assert (plain.precision, plain.parameters) == ("fp32", 257_916)
    assert [spec.name for spec in plain.outputs] == ["boxes", "scores"]


def test_mutated_and_truncated_mnn_files_do_not_crash_or_hang(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    from tests.backends.test_mnn import Net

    whole = bytes(Net().content)
    path = tmp_path / "model.mnn"
    refused = 0
    for _ in range(400):
        content = bytearray(whole[: int(rng.integers(8, len(whole) + 1))])
        for _ in range(int(rng.integers(0, 4))):
            content[int(rng.integers(0, len(content)))] = int(rng.integers(0, 256))
        path.write_bytes(content)
        try:
            inspect_mnn(path)
        except (IntegrityError, FormatMismatchError):
            refused += 1
    assert refused > 100


def test_mnn_tables_that_hold_one_another_are_bounded(tmp_path: Path) -> None:
    from tests.backends.test_mnn import Net

    net = Net()
    struct.pack_into("<I", net.content, net.vector, 1 << 30)
    path = tmp_path / "model.mnn"
    path.write_bytes(net.content)
    with pytest.raises(IntegrityError, match="promises"):
        inspect_mnn(path)


def test_mutated_ncnn_files_do_not_crash_or_hang(tmp_path: Path, rng: np.random.Generator) -> None:
    lines = [
        "7767517",
        "4 4",
        "Input in0 0 1 in0 0=8 1=8 2=1",
        "Convolution c 1 1 in0 a 0=16 1=3 5=1 6=144",
        "Gemm g 1 1 a b 4=0 5=1 6=1 7=5 8=48 9=16 10=4",
        "Softmax s 1 1 b out0 0=0",
        "",
    ]
    whole = "\n".join(lines).encode()
    path = tmp_path / "model.param"
    refused = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            content[int(rng.integers(0, len(content)))] = int(rng.integers(0, 256))
        path.write_bytes(content)
        try:
            assert inspect_ncnn(path).parameters >= 0
        except EdgewrightError:
            refused += 1
    assert refused > 50


def test_an_engine_is_opaque_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    head = bytearray(b"ptrt" + bytes(60))
    head[24:28] = bytes((10, 13, 0, 35))
    path.write_bytes(head + bytes(100))
    found = inspect_tensorrt(path)
    assert found.size_bytes == 164
    assert "10.13.0.35" in found.notes[0]
    assert "opaque" in found.macs_reason
    path.write_bytes(b"ONNX" + bytes(200))
    with pytest.raises(FormatMismatchError, match="no TensorRT engine"):
        inspect_tensorrt(path)
    path.write_bytes(b"ptrt")
    with pytest.raises(FormatMismatchError, match="no TensorRT engine"):
        inspect_tensorrt(path)


def test_a_truncated_executorch_program_is_told_by_its_header(tmp_path: Path) -> None:
    # Segments of 64 bytes from byte 64 on; the extended header is ExecuTorch's "eh00" of 32 bytes.
    numbers = b"".join(number.to_bytes(8, "little") for number in (48, 64, 64))
    head = (40).to_bytes(4, "little") + b"ET12" + b"eh00" + (32).to_bytes(4, "little") + numbers
    path = tmp_path / "model.pte"
    path.write_bytes(head.ljust(100, b"\0"))
    with pytest.raises(IntegrityError, match="has 100 bytes, but states 128"):
        inspect_artifact(path)
