"""Files of LiteRT: read strictly, normalised, rewritten without a change of what they compute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewright.backends import litert_file
from edgewright.backends.litert import LiteRTBackend
from edgewright.core.artifact import Artifact
from edgewright.core.errors import ConversionError, FormatMismatchError, IntegrityError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Target
from edgewright.core.tensors import Array

pytestmark = pytest.mark.toolchain("ai_edge_litert", "ai_edge_quantizer")

BACKEND = LiteRTBackend()


def source(path: Path, precision: str) -> Program:
    """Return a program for a file whose signature is read here, in the file's order."""
    inputs, outputs = litert_file.signature(litert_file.read(path))
    return Program(
        path=path,
        format="tflite",
        inputs=inputs,
        outputs=outputs,
        sha256="0" * 64,
        origin=str(path),
        origin_format="tflite",
        precision=precision,
    )


def convert(path: Path, precision: str, workdir: Path) -> Artifact:
    target = Target(runtime="litert", precision=Precision(precision))
    return BACKEND.convert(source(path, precision), target, None, workdir)


def run(artifact: Artifact, inputs: dict[str, Array]) -> Array:
    session = BACKEND.open(artifact, artifact.target)
    return session.run(inputs)[session.outputs[0].name]


def random_inputs(artifact: Artifact) -> dict[str, Array]:
    draw = np.random.default_rng(7)
    return {
        s.name: draw.integers(-100, 100, [d or 1 for d in s.shape]).astype(s.dtype) for s in artifact.inputs
    }


def quantization(model: litert_file.Model, ports: str) -> tuple[float, int]:
    """Return scale and zero point of the first input or output."""
    graph = model.subgraphs[0]
    q = graph.tensors[getattr(graph, ports)[0]].quantization
    assert q is not None and q.scale is not None and q.zeroPoint is not None
    return float(q.scale[0]), int(q.zeroPoint[0])


def test_a_quantized_file_passes_through(assets: Path, tmp_path: Path) -> None:
    path = assets / "models/mlperf-tiny/kws_dscnn_int8.tflite"
    artifact = convert(path, "w8a8", tmp_path)
    untouched = replace(artifact, files=(path,))
    inputs = random_inputs(artifact)
    np.testing.assert_array_equal(run(artifact, inputs), run(untouched, inputs))
    assert artifact.inputs[0].dtype == "int8"
    assert any(note.startswith("input") and "real =" in note for note in artifact.notes)


def test_open_sizes_of_outputs_stay_open(assets: Path, tmp_path: Path) -> None:
    face = assets / "models" / "ultraface-slim" / "version-slim-320_without_postprocessing.tflite"
    artifact = convert(face, "fp32", tmp_path)
    assert [spec.shape for spec in artifact.inputs] == [(1, 240, 320, 3)]
    assert [spec.shape for spec in artifact.outputs] == [(1, None, 4), (1, None, 2)]
    assert run(artifact, random_inputs(artifact)).shape == (1, 4420, 4)


def test_an_old_file_runs_once_it_is_normalised(assets: Path, tmp_path: Path) -> None:
    path = assets / "models/tflite-micro/person_detect.tflite"
    with pytest.raises(ConversionError, match="quantized_dimension"):
        BACKEND.open(replace(convert(path, "w8a8", tmp_path / "a"), files=(path,)), Target(runtime="litert"))
    artifact = convert(path, "w8a8", tmp_path / "b")
    assert run(artifact, random_inputs(artifact)).shape == artifact.outputs[0].shape


def test_float_inputs_and_outputs_go_around_the_quantized_ones(assets: Path, tmp_path: Path) -> None:
    path = assets / "models/mlperf-tiny/kws_dscnn_int8.tflite"
    plain = convert(path, "w8a8", tmp_path / "plain")
    model = litert_file.read(plain.path)
    scale, zero = quantization(model, "inputs")
    assert litert_file.float_io(model) == 2
    inputs, outputs = litert_file.signature(model)
    assert {spec.dtype for spec in (*inputs, *outputs)} == {"float32"}
    assert inputs[0].name == plain.inputs[0].name
    path = tmp_path / "float.tflite"
    litert_file.write(model, path)
    wrapped = replace(plain, files=(path,), inputs=inputs, outputs=outputs)
    quantized = random_inputs(plain)
    name = plain.inputs[0].name
    want = run(plain, quantized).astype(np.float32)
    got = run(wrapped, {name: (quantized[name].astype(np.float32) - zero) * np.float32(scale)})
    out_scale, out_zero = quantization(litert_file.read(plain.path), "outputs")
    np.testing.assert_allclose(got, (want - out_zero) * np.float32(out_scale), atol=1e-6)


def test_writing_what_was_read_computes_the_same_and_repeats(assets: Path, tmp_path: Path) -> None:
    path = assets / "models/mlperf-tiny/ic_resnet8_fp32.tflite"
    first, second = tmp_path / "1.tflite", tmp_path / "2.tflite"
    litert_file.write(litert_file.read(path), first)
    litert_file.write(litert_file.read(first), second)
    assert first.read_bytes() == second.read_bytes()


def test_constants_behind_the_tables_are_read(assets: Path, tmp_path: Path) -> None:
    from ai_edge_quantizer import quantizer, recipe

    path = assets / "models/mlperf-tiny/ic_resnet8_fp32.tflite"
    plain = tmp_path / "plain.tflite"
    model = litert_file.read(path)
    litert_file.normalise(model)
    litert_file.write(model, plain)
    out = tmp_path / "int8.tflite"
    quantizer.Quantizer(str(plain), recipe.weight_only_wi8_afp32()).quantize().export_model(str(out))
    again = tmp_path / "again.tflite"
    litert_file.write(litert_file.read(out), again)
    signature = litert_file.signature(model)
    target = Target(runtime="litert", precision=Precision.W8)
    template = convert(path, "fp32", tmp_path / "fp32")
    x = {signature[0][0].name: np.full([d or 1 for d in signature[0][0].shape], 90, np.float32)}
    results = [run(replace(template, files=(file,), target=target), x) for file in (out, again)]
    np.testing.assert_array_equal(*results)


def test_custom_operators_are_named(assets: Path, tmp_path: Path) -> None:
    path = assets / "models/coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    with pytest.raises(ConversionError, match="edgetpu-custom-op"):
        convert(path, "w8a8", tmp_path)
    assert not (tmp_path / "model.tflite").exists()


def test_broken_bytes_are_told_apart(assets: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(b"\x00" * 64)
    with pytest.raises(FormatMismatchError, match="TFL3"):
        litert_file.read(path)
    whole = (assets / "models/tflite-micro/hello_world_float.tflite").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match="Get the file again"):
        litert_file.read(path)


def test_real_values_are_told_without_two_signs() -> None:
    assert litert_file.real_text(0.5, -128) == "0.5 * (q + 128)"
    assert litert_file.real_text(0.5, 7) == "0.5 * (q - 7)"
    assert litert_file.real_text(0.00390625, 0) == "0.00390625 * q"
