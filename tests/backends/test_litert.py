"""LiteRT: each precision changes what it says, keeps the numbers, and refuses what it cannot do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends import litert_file, vendor
from edgewright.backends.litert import LiteRTBackend
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Backend
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError, IntegrityError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array

pytestmark = pytest.mark.toolchain("torch", "litert_torch", "ai_edge_litert", "ai_edge_quantizer")

BACKEND = LiteRTBackend()


def target(precision: str, **changes: object) -> Target:
    return replace(Target(runtime="litert", precision=Precision(precision)), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("litert")


@pytest.fixture(scope="module")
def cnn(folder: Path) -> Program:
    return programs.cnn_pt2(folder / "cnn")


@pytest.fixture(scope="module")
def mlp(folder: Path) -> Program:
    return programs.mlp_pt2(folder / "mlp")


@pytest.fixture(scope="module")
def fp32(cnn: Program, folder: Path) -> Artifact:
    return BACKEND.convert(cnn, target("fp32"), None, folder / "fp32")


@pytest.fixture(scope="module")
def file_program(fp32: Artifact) -> Program:
    """The CNN as a `.tflite` source."""
    return Program(
        path=fp32.path,
        format="tflite",
        inputs=fp32.inputs,
        outputs=fp32.outputs,
        sha256=fp32.sha256,
        origin=str(fp32.path),
        origin_format="tflite",
    )


def images(count: int = 16) -> Array:
    return np.random.default_rng(5).normal(0.3, 1, (count, 1, *programs.CNN_IMAGE)).astype(np.float32)


def expected(batch: Array) -> Array:
    import torch

    with torch.no_grad():
        return programs.cnn_module()(torch.from_numpy(batch[:, 0])).numpy()


def outputs(artifact: Artifact, batch: Array, *, threads: int = 1) -> Array:
    session = BACKEND.open(artifact, replace(artifact.target, threads=threads))
    rows = [session.run({session.inputs[0].name: sample})[session.outputs[0].name] for sample in batch]
    session.close()
    return np.concatenate(rows)


def types_of(artifact: Artifact) -> set[int]:
    model = litert_file.read(artifact.path)
    return {
        tensor.type
        for graph in model.subgraphs
        for tensor in graph.tensors
        if model.buffers[tensor.buffer].data is not None and len(model.buffers[tensor.buffer].data) >= 640
    }


def snr_db(want: Array, got: Array) -> float:
    noise = np.square(want.astype(np.float64) - got).sum()
    return float(10 * np.log10(np.square(want.astype(np.float64)).sum() / noise))


def test_is_a_backend_that_is_available() -> None:
    assert isinstance(BACKEND, Backend)
    found = BACKEND.probe()
    assert found.is_available and found.versions["ai-edge-litert"]


def test_fp32_keeps_the_numbers_and_the_names(cnn: Program, fp32: Artifact) -> None:
    assert [spec.name for spec in fp32.inputs] == ["image"]
    assert fp32.inputs[0].shape == (1, *programs.CNN_IMAGE)
    assert "batch made static: 1" in fp32.notes
    assert fp32.source_sha256 == cnn.sha256
    assert {"ai-edge-litert", "litert-torch", "torch"} <= set(fp32.toolchain)
    np.testing.assert_allclose(outputs(fp32, images()), expected(images()), atol=2e-5)


def test_two_inputs_and_outputs_keep_their_order(mlp: Program, tmp_path: Path) -> None:
    import torch

    artifact = BACKEND.convert(mlp, target("fp32"), None, tmp_path)
    session = BACKEND.open(artifact, artifact.target)
    assert [spec.name for spec in session.inputs] == ["left", "right"]
    assert [(spec.name, spec.shape) for spec in session.outputs] == [("joined", (1, 4)), ("total", (1, 1))]
    draw = np.random.default_rng(0)
    left, right = (draw.normal(size=(1, n)).astype(np.float32) for n in (6, 3))
    got = session.run({"left": left, "right": right})
    with torch.no_grad():
        want = programs.mlp_module()(torch.from_numpy(left), torch.from_numpy(right))
    np.testing.assert_allclose(got["joined"], want[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(got["total"], want[1].numpy(), atol=1e-5)


def test_conversion_repeats_to_the_byte(cnn: Program, fp32: Artifact, tmp_path: Path) -> None:
    again = BACKEND.convert(cnn, target("fp32"), None, tmp_path / "elsewhere")
    assert again.sha256 == fp32.sha256
    assert str(tmp_path).encode() not in again.path.read_bytes()


def test_tflite_source_gives_the_same_numbers(file_program: Program, fp32: Artifact, tmp_path: Path) -> None:
    artifact = BACKEND.convert(file_program, target("fp32"), None, tmp_path)
    np.testing.assert_array_equal(outputs(artifact, images()), outputs(fp32, images()))
    assert "torch" not in artifact.toolchain


@pytest.mark.parametrize("source", ["cnn", "file_program"])
def test_fp16_stores_halves(
    source: str, fp32: Artifact, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    artifact = BACKEND.convert(request.getfixturevalue(source), target("fp16"), None, tmp_path)
    assert types_of(artifact) == {1}
    assert artifact.size_bytes < fp32.size_bytes
    got, want = outputs(artifact, images()), expected(images())
    assert snr_db(want, got) > 55
    assert not np.array_equal(got, outputs(fp32, images()))
    assert any("float16" in note for note in artifact.notes)


@pytest.mark.parametrize("source", ["cnn", "file_program"])
def test_w8_stores_int8_and_computes_in_float(
    source: str, fp32: Artifact, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    artifact = BACKEND.convert(request.getfixturevalue(source), target("w8"), None, tmp_path)
    assert types_of(artifact) == {9}
    assert not litert_file.has_int8_compute(litert_file.read(artifact.path))
    assert artifact.size_bytes < fp32.size_bytes
    assert snr_db(expected(images()), outputs(artifact, images())) > 35
    assert "ai-edge-quantizer" in artifact.toolchain


def test_native_w8a8_computes_in_int8_and_takes_floats(file_program: Program, tmp_path: Path) -> None:
    calibration = programs.calibration_for(file_program, tmp_path)
    artifact = BACKEND.convert(file_program, target("w8a8"), calibration, tmp_path / "a")
    assert {spec.dtype for spec in (*artifact.inputs, *artifact.outputs)} == {"float32"}
    assert litert_file.has_int8_compute(litert_file.read(artifact.path))
    assert snr_db(expected(images()), outputs(artifact, images())) > 22
    again = BACKEND.convert(file_program, target("w8a8"), calibration, tmp_path / "b")
    assert again.sha256 == artifact.sha256


def test_pt2e_w8a8_computes_in_int8_and_takes_floats(cnn: Program, fp32: Artifact, tmp_path: Path) -> None:
    from edgewright.compress.quantize import quantize_pt2e

    calibration = programs.calibration_for(cnn, tmp_path)
    quantized = quantize_pt2e(
        cnn, precision=Precision.W8A8, calibration=calibration, workdir=tmp_path / "pt2e"
    )
    artifact = BACKEND.convert(quantized, target("w8a8"), None, tmp_path / "a")
    assert {spec.dtype for spec in (*artifact.inputs, *artifact.outputs)} == {"float32"}
    assert types_of(artifact) == {9}
    assert litert_file.has_int8_compute(litert_file.read(artifact.path))
    assert snr_db(expected(images()), outputs(artifact, images())) > 22
    again = BACKEND.convert(quantized, target("w8a8"), None, tmp_path / "b")
    assert again.sha256 == artifact.sha256


def test_w8a8_without_samples_is_refused(file_program: Program, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="no calibration"):
        BACKEND.convert(file_program, target("w8a8"), None, tmp_path)


def test_who_quantizes(cnn: Program, file_program: Program) -> None:
    assert BACKEND.quantizer(cnn, target("w8a8")) is Quantizer.PT2E
    assert BACKEND.quantizer(cnn, target("w8a8", quantizer=Quantizer.NATIVE)) is Quantizer.NATIVE
    assert BACKEND.quantizer(file_program, target("w8a8")) is Quantizer.NATIVE
    assert BACKEND.quantizer(cnn, target("fp32")) is None
    assert BACKEND.quantizer(replace(file_program, precision="w8a8"), target("w8a8")) is None


def test_refusals_say_why(cnn: Program, file_program: Program) -> None:
    onnx = replace(cnn, format="onnx")
    assert "reads pt2, tflite" in (BACKEND.refuses(onnx, target("fp32")) or "")
    quantized = replace(file_program, precision="w8a8")
    assert "already quantized" in (BACKEND.refuses(quantized, target("fp16")) or "")
    assert BACKEND.refuses(quantized, target("w8a8")) is None
    assert "npu" in (BACKEND.refuses(cnn, target("fp32", accelerator=("npu",))) or "")
    with pytest.raises(FormatMismatchError, match="already quantized"):
        BACKEND.convert(quantized, target("fp32"), None, Path("unused"))


def test_threads_do_not_change_the_numbers_much_and_reach_the_runtime(fp32: Artifact) -> None:
    np.testing.assert_allclose(outputs(fp32, images(), threads=2), outputs(fp32, images()), atol=1e-6)


def test_outputs_are_copies(fp32: Artifact) -> None:
    session = BACKEND.open(fp32, fp32.target)
    batch = images(2)
    first = session.run({"image": batch[0]})["logits"]
    kept = first.copy()
    session.run({"image": batch[1]})
    np.testing.assert_array_equal(first, kept)
    assert session.layers({"image": batch[0]}) == ()


def test_wrong_inputs_are_named(fp32: Artifact) -> None:
    session = BACKEND.open(fp32, fp32.target)
    with pytest.raises(DataError, match="image"):
        session.run({"picture": images(1)[0]})
    with pytest.raises(DataError):
        session.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    with pytest.raises(DataError):
        session.run({"image": images(1)[0].astype(np.int8)})
    session.close()
    with pytest.raises(DataError, match="closed"):
        session.run({"image": images(1)[0]})


def test_unsupported_operator_is_named(folder: Path) -> None:
    import torch
    from torch import nn

    class Spectral(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(x)

    path = folder / "svd.pt2"
    exported = torch.export.export(Spectral().eval(), (torch.zeros(4, 4),))
    torch.export.save(exported, path)
    spec = programs._specs({"x": (4,)}, False)
    program = Program(
        path=path,
        format="pt2",
        inputs=(replace(spec[0], shape=(4, 4)),),
        outputs=(replace(spec[0], name="y", shape=(4,)),),
        sha256="0" * 64,
        origin="x",
        origin_format="pt2",
    )
    with pytest.raises(ConversionError, match="svd"):
        BACKEND.convert(program, target("fp32"), None, folder / "svd")


def test_broken_files_are_refused(file_program: Program, tmp_path: Path) -> None:
    content = file_program.path.read_bytes()
    for name, broken, error in (
        ("text", b"not a model at all", FormatMismatchError),
        ("short", content[: len(content) // 3], (IntegrityError, ConversionError)),
        ("head", content[:16], IntegrityError),
    ):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(broken)
        with pytest.raises(error):
            BACKEND.convert(replace(file_program, path=path), target("fp32"), None, tmp_path / name)


def test_dynamic_inner_dimension_is_refused(cnn: Program, tmp_path: Path) -> None:
    spec = replace(cnn.inputs[0], shape=(None, 1, None, 8))
    with pytest.raises(ConversionError, match="dynamic dimension"):
        BACKEND.convert(replace(cnn, inputs=(spec,)), target("fp32"), None, tmp_path)


def test_versions_come_from_metadata() -> None:
    assert "no-such-package" not in vendor.versions(["no-such-package", "numpy"])
    lacking = vendor.support(["no-such-package"], extra="litert")
    assert not lacking.is_available and "pip install 'edgewright[litert]'" in lacking.reason
