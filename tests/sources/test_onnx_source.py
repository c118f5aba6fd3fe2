"""ONNX sources: signature, precision, external data."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.core.errors import IntegrityError
from edgewright.core.files import sha256_of
from edgewright.sources import inspect_artifact

pytestmark = pytest.mark.toolchain("onnx")


def _with_external(source: Path, folder: Path, location: str) -> Path:
    import onnx

    model = onnx.load(source)
    onnx.external_data_helper.convert_model_to_external_data(
        model, all_tensors_to_one_file=True, location="weights.bin", size_threshold=0
    )
    path = folder / "model.onnx"
    onnx.save(model, path)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_signature_digest_and_macs(tiny_onnx: Path, read) -> None:
    program = read(tiny_onnx)
    assert [str(spec) for spec in program.inputs] == ["x: float32[?, 4]"]
    assert program.sha256 == sha256_of(tiny_onnx)
    found = inspect_artifact(tiny_onnx)
    assert (found.parameters, found.macs) == (15, 12)
    assert dict(found.operators) == {"Gemm": 1, "Relu": 1}
    assert found.dynamic_dims == ("x: dimension 0",)


def test_external_data_is_part_of_the_digest(tiny_onnx: Path, tmp_path: Path, read) -> None:
    path = _with_external(tiny_onnx, tmp_path, "weights.bin")
    before = read(path)
    weights = tmp_path / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[0] ^= 1
    weights.write_bytes(content)
    assert read(path).sha256 != before.sha256
    assert inspect_artifact(path).size_bytes == path.stat().st_size + weights.stat().st_size
    weights.write_bytes(content[:20])
    with pytest.raises(IntegrityError, match="truncated"):
        read(path)
    weights.unlink()
    with pytest.raises(IntegrityError, match="missing"):
        read(path)


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/hostname", "a/../../weights.bin", "..\\weights.bin"]
)
def test_external_data_outside_the_folder_is_refused(
    location: str, tiny_onnx: Path, tmp_path: Path, read
) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    path = _with_external(tiny_onnx, inside, location)
    (tmp_path / "weights.bin").write_bytes((inside / "weights.bin").read_bytes())
    with pytest.raises(IntegrityError, match="outside the model's folder"):
        read(path)


def test_external_data_behind_a_link_is_refused(tiny_onnx: Path, tmp_path: Path, read) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    path = _with_external(tiny_onnx, inside, "weights.bin")
    (inside / "weights.bin").rename(tmp_path / "secret.bin")
    (inside / "weights.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(IntegrityError, match="no regular file"):
        read(path)


def test_a_quantized_graph_is_w8a8(tmp_path: Path, read) -> None:
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "height", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, "height", 4])],
        [
            helper.make_tensor("s", TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("z", TensorProto.UINT8, [], [3]),
        ],
    )
    path = tmp_path / "q.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    program = read(path)
    assert program.precision == "w8a8"
    assert program.notes == ("input 'x' is dynamic in dimension 2 (height)",)
    assert inspect_artifact(path).parameters == 0
