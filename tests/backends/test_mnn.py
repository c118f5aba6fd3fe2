"""MNN, in its own environment: numbers against ONNX Runtime, refusals, and files that are the same every time."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs
from tests.backends.in_environment import in_environment

from edgewright.backends import mnn_file
from edgewright.backends.mnn import MnnBackend
from edgewright.backends.reference import ReferenceBackend
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Backend
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError, IntegrityError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array, TensorSpec
from edgewright.testing import check_backend
from edgewright.workers import environments
from edgewright.workers.pool import Worker

pytestmark = pytest.mark.toolchain("torch", "onnx", "onnxruntime")


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    if not environments.is_installed("mnn"):
        pytest.skip("needs MNN; install it with: edgewright toolchain install mnn")
    with Worker("mnn", environment="mnn") as made:
        yield made


@pytest.fixture
def backend(worker: Worker) -> Backend:
    return in_environment(MnnBackend(), worker)


def target(precision: str = "fp32", threads: int = 1) -> Target:
    return Target(runtime="mnn", precision=Precision(precision), threads=threads)


def run(backend: Backend, artifact: Artifact, *arrays: Array) -> list[Array]:
    session = backend.open(artifact, artifact.target)
    try:
        results = session.run({spec.name: array for spec, array in zip(artifact.inputs, arrays, strict=True)})
    finally:
        session.close()
    return [np.asarray(results[spec.name]) for spec in artifact.outputs]


def reference(program: Program, folder: Path, *arrays: Array) -> list[Array]:
    plain = Target(runtime="reference")
    made = ReferenceBackend()
    session = made.open(made.convert(program, plain, None, folder), plain)
    results = session.run({spec.name: array for spec, array in zip(program.inputs, arrays, strict=True)})
    return [np.asarray(results[spec.name]) for spec in program.outputs]


def write_onnx(path: Path, nodes: list[object], inputs: dict[str, int], outputs: dict[str, int]) -> None:
    """Write a graph of opset 18 whose inputs and outputs (name -> element type) are [1, 4]."""
    import onnx
    from onnx import helper

    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, [1, 4]) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, kind, [1, 4]) for name, kind in outputs.items()],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("custom", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)


def test_conformance(backend: Backend, tmp_path: Path) -> None:
    given = [programs.cnn_onnx(tmp_path / "a"), programs.mlp_onnx(tmp_path / "b", is_dynamic=False)]
    report = check_backend(backend, programs=given, calibrations={}, workdir=tmp_path / "work")
    done = {pair.precision for pair in report.converted}
    assert done == {Precision.FP32, Precision.FP16, Precision.W8, Precision.W4}
    assert min(pair.snr_db for pair in report.converted if pair.precision is Precision.FP32) > 110
    assert "mnnquant" in {pair.precision: pair.refusal for pair in report.pairs}[Precision.W8A8]


def test_ultraface_agrees_with_onnx_runtime(
    backend: Backend, assets: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    from edgewright.sources.load import load

    program = load(str(assets / "models/ultraface-slim/version-slim-320.onnx"), workdir=tmp_path)
    image = rng.normal(size=(1, 3, 240, 320)).astype(np.float32)
    expected = reference(program, tmp_path / "reference", image)
    sizes = {}
    for precision, limit in (("fp32", 1e-5), ("fp16", 1e-2), ("w8", 5e-2)):
        artifact = backend.convert(program, target(precision), None, tmp_path / precision)
        sizes[precision] = artifact.size_bytes
        assert artifact.environment == "mnn"
        for want, got in zip(expected, run(backend, artifact, image), strict=True):
            assert np.abs(got - want).max() < limit
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert sizes["w8"] < 0.4 * sizes["fp32"]


def test_integers_are_int32_inside(backend: Backend, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    path = tmp_path / "sum.onnx"
    write_onnx(
        path, [helper.make_node("Add", ["a", "a"], ["b"])], {"a": TensorProto.INT64}, {"b": TensorProto.INT64}
    )
    spec = TensorSpec(name="a", shape=(1, 4), dtype="int64")
    program = replace(
        programs.mlp_onnx(tmp_path), path=path, inputs=(spec,), outputs=(replace(spec, name="b"),)
    )
    artifact = backend.convert(program, target(), None, tmp_path / "out")
    values = np.array([[1, -2, 3, 1 << 20]], dtype=np.int64)
    (got,) = run(backend, artifact, values)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, 2 * values)
    with pytest.raises(DataError, match="beyond int32"):
        run(backend, artifact, values << 20)


def test_unsupported_operators_are_named(backend: Backend, tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    path = tmp_path / "odd.onnx"
    nodes = [
        helper.make_node("Mystery", ["x"], ["t"], domain="custom"),
        helper.make_node("Riddle", ["t"], ["y"], domain="custom"),
    ]
    write_onnx(path, nodes, {"x": TensorProto.FLOAT}, {"y": TensorProto.FLOAT})
    spec = TensorSpec(name="x", shape=(1, 4), dtype="float32")
    program = replace(
        programs.mlp_onnx(tmp_path), path=path, inputs=(spec,), outputs=(replace(spec, name="y"),)
    )
    with pytest.raises(ConversionError, match=r"Mystery, Riddle"):
        backend.convert(program, target(), None, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ConversionError, match=r"odd\.onnx"):
        backend.convert(program, target(), None, tmp_path / "out2")


def test_the_environment_is_not_changed_by_a_conversion(backend: Backend, tmp_path: Path) -> None:
    before = environments.look("mnn")
    backend.convert(programs.mlp_onnx(tmp_path), target("w8"), None, tmp_path / "out")
    after = environments.look("mnn")
    assert (after.state, after.versions) == (before.state, before.versions)


def test_a_build_reaches_mnn(worker: Worker, tmp_path: Path) -> None:
    from tests.small_models import write_data, write_onnx

    from edgewright.pipeline import build

    model = write_onnx(tmp_path / "small.onnx")
    data = write_data(model, tmp_path / "eval.npz")
    built = build(
        model, data=data, to=("mnn",), precision=("fp32", "w8"), metric="top1", out=tmp_path / "out"
    )
    statuses = {str(result.target.precision): str(result.status) for result in built.results}
    assert statuses == {"fp32": "ok", "w8": "ok"}


def test_refusals_need_no_environment(tmp_path: Path) -> None:
    backend = MnnBackend()
    program = programs.mlp_onnx(tmp_path)
    assert "crashes" in str(backend.refuses(program, target("w8a8")))
    assert "float64" in str(
        backend.refuses(replace(program, inputs=(replace(program.inputs[0], dtype="float64"),)), target())
    )
    assert "already w8a8" in str(backend.refuses(replace(program, precision="w8a8"), target("w8")))
    assert backend.quantizer(program, target("w4")) is Quantizer.NATIVE
    assert backend.quantizer(program, target("fp16")) is None
    with pytest.raises(FormatMismatchError, match="tflite"):
        backend.convert(replace(program, format="tflite"), target(), None, tmp_path / "out")


def test_an_absent_environment_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_TOOLCHAINS", str(tmp_path))
    support = MnnBackend().probe()
    assert not support.is_available
    assert support.reason.endswith("edgewright toolchain install mnn")


class Net:
    """A .mnn file with one operator and an identity, written by hand."""

    def __init__(self) -> None:
        uuid = b"0123-4567"
        # vtable of Net: only fields 3 (oplists) and 11 (mnn_uuid)
        slots = [0] * 12
        slots[3], slots[11] = 4, 8
        vtable = struct.pack("<HH12H", 4 + 24, 12, *slots)
        op_vtable = struct.pack("<HH6H", 16, 8, 0, 0, 0, 0, 0, 4)
        body = bytearray(struct.pack("<I", 0) + vtable)
        net = len(body)
        body += struct.pack("<iII", net - 4, 0, 0)
        vector = len(body)
        body += struct.pack("<II", 1, 0)
        op_table = len(body)
        body += op_vtable
        op = len(body)
        body += struct.pack("<ii", op - op_table, 34)
        text = len(body)
        body += struct.pack("<I", len(uuid)) + uuid + b"\0"
        struct.pack_into("<I", body, 0, net)
        struct.pack_into("<I", body, net + 4, vector - (net + 4))
        struct.pack_into("<I", body, net + 8, text - (net + 8))
        struct.pack_into("<I", body, vector + 4, op - (vector + 4))
        self.content, self.uuid, self.vector = body, text + 4, vector


def test_the_random_identity_becomes_one_of_the_content(tmp_path: Path) -> None:
    net = Net()
    path = tmp_path / "model.mnn"
    settled = set()
    for uuid in (b"0123-4567", b"abcdefghi"):
        net.content[net.uuid : net.uuid + 9] = uuid
        path.write_bytes(net.content)
        mnn_file.settle_uuid(path)
        settled.add(path.read_bytes())
    assert len(settled) == 1
    table = mnn_file.read_net(path)
    assert [mnn_file.operator_name(op) for op in table.tables(mnn_file.NET_OPERATORS)] == ["Input"]
    assert len(table.text(mnn_file.NET_UUID)) == 9


def test_damaged_files_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "model.mnn"
    net = Net()
    for cut in range(len(net.content) - 10):
        path.write_bytes(net.content[:cut])
        with pytest.raises((IntegrityError, FormatMismatchError)):
            mnn_file.settle_uuid(path)
    struct.pack_into("<I", net.content, net.vector, 0x7FFFFFFF)
    path.write_bytes(net.content)
    with pytest.raises(IntegrityError, match="promises"):
        mnn_file.read_net(path)
    path.write_bytes(rng.bytes(64))
    with pytest.raises((IntegrityError, FormatMismatchError)):
        mnn_file.read_net(path).tables(mnn_file.NET_OPERATORS)
