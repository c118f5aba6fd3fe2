"""OpenVINO: each precision changes what it says, keeps the numbers, and refuses what it cannot do."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.backends import programs

from edgewright.backends import onnx_graph, openvino_file
from edgewright.backends.openvino import OpenVINOBackend
from edgewright.core.artifact import Artifact
from edgewright.core.contracts import Backend
from edgewright.core.errors import ConversionError, DataError, FormatMismatchError, IntegrityError
from edgewright.core.program import Program
from edgewright.core.target import Precision, Quantizer, Target
from edgewright.core.tensors import Array

pytestmark = pytest.mark.toolchain("torch", "openvino", "nncf", "onnx", "litert_torch")

BACKEND = OpenVINOBackend()


def target(precision: str, **changes: object) -> Target:
    return replace(Target(runtime="openvino", precision=Precision(precision)), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openvino")


@pytest.fixture(scope="module")
def cnn(folder: Path) -> Program:
    return programs.cnn_pt2(folder / "cnn")


@pytest.fixture(scope="module")
def cnn_tflite(folder: Path) -> Program:
    return programs.cnn_tflite(folder / "cnn")


@pytest.fixture(scope="module")
def cnn_onnx(folder: Path) -> Program:
    return programs.cnn_onnx(folder / "cnn")


@pytest.fixture(scope="module")
def fp32(cnn: Program, folder: Path) -> Artifact:
    return BACKEND.convert(cnn, target("fp32"), None, folder / "fp32")


def images(count: int = 16) -> Array:
    return np.random.default_rng(5).normal(0.3, 1, (count, *programs.CNN_IMAGE)).astype(np.float32)


def expected(batch: Array) -> Array:
    import torch

    with torch.no_grad():
        return programs.cnn_module()(torch.from_numpy(batch)).numpy()


def outputs(artifact: Artifact, batch: Array, *, threads: int = 1) -> Array:
    session = BACKEND.open(artifact, replace(artifact.target, threads=threads))
    name, result = session.inputs[0].name, session.outputs[0].name
    rows = [session.run({name: batch[i : i + 1]})[result] for i in range(len(batch))]
    session.close()
    return np.concatenate(rows)


def snr_db(want: Array, got: Array) -> float:
    noise = np.square(want.astype(np.float64) - got).sum()
    return float(10 * np.log10(np.square(want.astype(np.float64)).sum() / noise))


def test_is_a_backend_that_is_available() -> None:
    assert isinstance(BACKEND, Backend)
    found = BACKEND.probe()
    assert found.is_available and found.versions["openvino"]


@pytest.mark.parametrize("source", ["cnn", "cnn_onnx", "cnn_tflite"])
def test_fp32_keeps_the_numbers_of_every_format(
    source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    program = request.getfixturevalue(source)
    artifact = BACKEND.convert(program, target("fp32"), None, tmp_path)
    assert [file.name for file in artifact.files] == ["model.xml", "model.bin"]
    assert [(s.name, s.shape, s.dtype) for s in artifact.inputs] == [
        (s.name, s.shape, s.dtype) for s in program.inputs
    ]
    assert artifact.outputs[0].name == program.outputs[0].name
    np.testing.assert_allclose(outputs(artifact, images()), expected(images()), atol=2e-5)
    assert set(openvino_file.weight_precisions(artifact.path)) <= {"f32", "i64", "i32"}


def test_dynamic_batch_stays_dynamic(fp32: Artifact) -> None:
    assert fp32.inputs[0].shape == (None, *programs.CNN_IMAGE)
    session = BACKEND.open(fp32, fp32.target)
    got = session.run({"image": images(7)})["logits"]
    np.testing.assert_allclose(got, expected(images(7)), atol=2e-5)


@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_two_inputs_and_outputs_keep_their_order(form: str, tmp_path: Path) -> None:
    program = programs.mlp_pt2(tmp_path) if form == "pt2" else programs.mlp_onnx(tmp_path)
    draw = np.random.default_rng(0)
    feeds = {"left": draw.normal(size=(3, 6)), "right": draw.normal(size=(3, 3))}
    feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
    straight = BACKEND.convert(program, target("fp32"), None, tmp_path / "straight")
    turned = replace(program, inputs=program.inputs[::-1], outputs=program.outputs[::-1])
    results = {}
    for name, artifact in {
        "straight": straight,
        **(
            {"turned": BACKEND.convert(turned, target("fp32"), None, tmp_path / "t")}
            if form == "onnx"
            else {}
        ),
    }.items():
        session = BACKEND.open(artifact, artifact.target)
        results[name] = session.run(feeds)
        assert {n: v.shape for n, v in results[name].items()} == {"joined": (3, 4), "total": (3, 1)}
    assert [spec.name for spec in straight.inputs] == ["left", "right"]
    if form == "onnx":
        assert [spec.name for spec in artifact.inputs] == ["right", "left"]
        for name in ("joined", "total"):
            np.testing.assert_array_equal(results["turned"][name], results["straight"][name])
    else:
        import torch

        with torch.no_grad():
            want = programs.mlp_module()(torch.from_numpy(feeds["left"]), torch.from_numpy(feeds["right"]))
        np.testing.assert_allclose(results["straight"]["joined"], want[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(results["straight"]["total"], want[1].numpy(), atol=1e-5)


def test_the_same_model_gives_the_same_bytes_in_any_process(
    cnn: Program, fp32: Artifact, tmp_path: Path
) -> None:
    again = BACKEND.convert(cnn, target("fp32"), None, tmp_path / "again")
    assert again.sha256 == fp32.sha256
    script = (
        "import json, sys; from pathlib import Path\n"
        "from edgewright.backends.openvino import OpenVINOBackend\n"
        "from edgewright.core.program import Program\n"
        "from edgewright.core.target import Target\n"
        "program, target, folder = json.loads(sys.stdin.read())\n"
        "program, target = Program.from_json(program), Target.from_json(target)\n"
        "print(OpenVINOBackend().convert(program, target, None, Path(folder)).sha256)\n"
    )
    import json

    request = json.dumps([cnn.to_json(), fp32.target.to_json(), str(tmp_path / "other")])
    done = subprocess.run([sys.executable, "-c", script], input=request, capture_output=True, text=True)
    assert done.stdout.split()[-1:] == [fp32.sha256], done.stderr[-2000:]
    text = fp32.path.read_text()
    assert "2026" not in text and str(fp32.path.parent) not in text


@pytest.mark.parametrize("source", ["cnn", "cnn_onnx", "cnn_tflite"])
def test_fp16_stores_halves(
    source: str, fp32: Artifact, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    artifact = BACKEND.convert(request.getfixturevalue(source), target("fp16"), None, tmp_path)
    sizes = openvino_file.weight_precisions(artifact.path)
    assert sizes["f16"] > 20 * sizes.get("f32", 0)
    assert artifact.files[1].stat().st_size < 0.6 * fp32.files[1].stat().st_size
    assert snr_db(expected(images()), outputs(artifact, images())) > 55
    assert any("float32" in note for note in artifact.notes)


@pytest.mark.parametrize("source", ["cnn", "cnn_onnx", "cnn_tflite"])
def test_w8_stores_int8_weights_of_convolutions_too(
    source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    artifact = BACKEND.convert(request.getfixturevalue(source), target("w8"), None, tmp_path)
    sizes = openvino_file.weight_precisions(artifact.path)
    assert sizes["i8"] == 16 * 9 * 2 + 16 * 64 + 64 * 10
    assert snr_db(expected(images()), outputs(artifact, images())) > 35


def test_w8_keeps_scales_of_channels_that_differ_by_thousands(tmp_path: Path) -> None:
    from onnx import numpy_helper

    program = programs.mlp_onnx(tmp_path)
    model = onnx_graph.load(program.path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    scaled = numpy_helper.to_array(weights["second"]) * np.array([1e-6, 1e-4, 1e-2, 1], dtype=np.float32)
    weights["second"].CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), "second"))
    onnx_graph.save(model, program.path)
    draw = np.random.default_rng(6)
    given = {
        name: draw.normal(size=(1, size)).astype(np.float32) for name, size in (("left", 6), ("right", 3))
    }
    joined = {}
    for precision in ("fp32", "w8"):
        artifact = BACKEND.convert(program, target(precision), None, tmp_path / precision)
        joined[precision] = np.asarray(BACKEND.open(artifact, artifact.target).run(given)["joined"])
    for channel in range(4):  # each by itself: the faint ones are nothing beside the others
        assert snr_db(joined["fp32"][:, channel], joined["w8"][:, channel]) > 25


def test_w8_computes_activations_in_float(cnn: Program, tmp_path: Path) -> None:
    artifact = BACKEND.convert(cnn, target("w8"), None, tmp_path)
    session = BACKEND.open(artifact, artifact.target)
    assert int(str(session.property("DYNAMIC_QUANTIZATION_GROUP_SIZE"))) == 0


def test_w4_stores_nibbles_of_the_inner_layers(tmp_path: Path) -> None:
    program = programs.cnn_onnx(tmp_path / "source")
    artifact = BACKEND.convert(program, target("w4"), None, tmp_path / "out")
    sizes = openvino_file.weight_precisions(artifact.path)
    assert sizes["i4"] == 16 * 64 // 2  # the pointwise convolution; the others are small, first or last
    assert sizes["i8"] == 16 * 9 * 2 + 64 * 10
    assert any("52% of the weights have 4 bits, 48% have 8" in note for note in artifact.notes), (
        artifact.notes
    )
    assert snr_db(expected(images()), outputs(artifact, images())) > 15
    again = BACKEND.convert(program, target("w4"), None, tmp_path / "again")
    assert again.sha256 == artifact.sha256


def test_w4_is_refused_where_nothing_is_large_enough(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="4 bits"):
        BACKEND.convert(programs.mlp_onnx(tmp_path), target("w4"), None, tmp_path / "out")


@pytest.mark.parametrize(
    ("shape", "kept"), [((64, 32), (0,)), ((8, 1, 7, 19), (0, 1)), ((5, 6, 3, 31), (1,))]
)
def test_nibbles_are_the_nearest_of_sixteen_levels(shape: tuple[int, ...], kept: tuple[int, ...]) -> None:
    import openvino

    from edgewright.backends import openvino_weights

    values = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    made = openvino_weights._nibbles(values, kept)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    (got,) = openvino.compile_model(openvino.Model([made], []), "CPU", config)([]).values()
    assert got.shape == values.shape
    assert snr_db(values, got) > 17
    rows = got.transpose(*kept, *(axis for axis in range(4) if axis < values.ndim and axis not in kept))
    rows = rows.reshape(int(np.prod([shape[axis] for axis in kept])), -1)
    group = 32 if rows.shape[1] % 32 == 0 else rows.shape[1]
    assert all(len(np.unique(part)) <= 16 for part in rows.reshape(-1, group))


def test_accuracy_control_says_what_it_kept_and_how_well(cnn_onnx: Program, tmp_path: Path) -> None:
    calibration = programs.calibration_for(cnn_onnx, tmp_path)
    wanted = target("w8a8", quantizer=Quantizer.ACCURACY)
    assert BACKEND.quantizer(cnn_onnx, wanted) is Quantizer.ACCURACY
    artifact = BACKEND.convert(cnn_onnx, wanted, calibration, tmp_path / "out")
    note = next(note for note in artifact.notes if "control" in note)
    assert "of 4 layers stay in float32" in note
    assert "top-1 agreement" in note and "64 calibration samples" in note
    with np.load(calibration.path) as archive:
        batch = archive["image"]
    agreement = np.mean(outputs(artifact, batch).argmax(axis=1) == expected(batch).argmax(axis=1))
    assert agreement >= 0.99


def test_accuracy_control_of_values_is_by_closeness(tmp_path: Path) -> None:
    program = programs.mlp_onnx(tmp_path)
    calibration = programs.calibration_for(program, tmp_path)
    wanted = target("w8a8", quantizer=Quantizer.ACCURACY)
    artifact = BACKEND.convert(program, wanted, calibration, tmp_path / "out")
    note = next(note for note in artifact.notes if "control" in note)
    assert "mean closeness" in note and "95%" in note


def test_a_savedmodel_is_read_without_tensorflow(assets: Path, tmp_path: Path) -> None:
    from edgewright.core.tensors import TensorSpec

    folder = assets / "models/mlperf-tiny/kws_dscnn_savedmodel"
    program = Program(
        path=folder,
        format="saved_model",
        inputs=(TensorSpec(name="input_1", shape=(None, 49, 10, 1), dtype="float32"),),
        outputs=(TensorSpec(name="dense", shape=(None, 12), dtype="float32"),),
        sha256="0" * 64,
        origin=str(folder),
        origin_format="saved_model",
    )
    artifact = BACKEND.convert(program, target("fp32"), None, tmp_path / "out")
    assert artifact.inputs[0].shape == (None, 49, 10, 1)
    # Spoken words as the model takes them; the name of a file ends in its class.
    files = sorted((assets / "data/speech-commands-mfcc-int8").glob("*.bin"))
    features = np.stack([np.fromfile(file, dtype=np.int8) for file in files]).reshape(-1, 49, 10, 1)
    labels = np.array([int(file.stem.rpartition("_")[2]) for file in files])
    scores = outputs(artifact, ((features.astype(np.float32) - 83) * np.float32(0.5847029)))
    assert np.mean(scores.argmax(axis=1) == labels) > 0.88
    other = replace(program, signature="training")
    assert "serving_default" in (BACKEND.refuses(other, target("fp32")) or "")


@pytest.mark.parametrize("source", ["cnn_onnx", "cnn_tflite"])
def test_native_w8a8_repeats_and_keeps_the_numbers(
    source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    program = request.getfixturevalue(source)
    calibration = programs.calibration_for(program, tmp_path)
    artifact = BACKEND.convert(program, target("w8a8"), calibration, tmp_path / "a")
    assert openvino_file.weight_precisions(artifact.path)["i8"] == 16 * 9 * 2 + 16 * 64 + 64 * 10
    assert snr_db(expected(images()), outputs(artifact, images())) > 22
    assert BACKEND.convert(program, target("w8a8"), calibration, tmp_path / "b").sha256 == artifact.sha256


def test_pt2e_w8a8_stores_int8_and_computes_in_int8(cnn: Program, tmp_path: Path) -> None:
    from edgewright.compress.quantize import quantize_pt2e

    calibration = programs.calibration_for(cnn, tmp_path)
    quantized = quantize_pt2e(
        cnn, precision=Precision.W8A8, calibration=calibration, workdir=tmp_path / "pt2e"
    )
    artifact = BACKEND.convert(quantized, target("w8a8"), None, tmp_path / "a")
    assert openvino_file.weight_precisions(artifact.path)["i8"] == 16 * 9 * 2 + 16 * 64 + 64 * 10
    assert artifact.inputs[0].shape == (None, *programs.CNN_IMAGE)
    assert snr_db(expected(images()), outputs(artifact, images())) > 22
    session = BACKEND.open(artifact, artifact.target, profile=True)
    kinds = {layer.implementation for layer in session.layers({"image": images(1)})}
    assert any(kind.lower().endswith(("_i8", "_u8")) for kind in kinds), kinds


def test_layers_are_timed_only_when_asked(fp32: Artifact) -> None:
    session = BACKEND.open(fp32, fp32.target, profile=True)
    layers = session.layers({"image": images(1)})
    assert {"Convolution", "FullyConnected"} <= {layer.operator for layer in layers}
    assert all(layer.time_us > 0 and layer.name for layer in layers)
    assert BACKEND.open(fp32, fp32.target).layers({"image": images(1)}) == ()


def test_threads_streams_and_precision_reach_the_runtime(fp32: Artifact) -> None:
    for threads in (1, 2):
        session = BACKEND.open(fp32, replace(fp32.target, threads=threads))
        assert session.property("INFERENCE_NUM_THREADS") == threads
        assert str(session.property("NUM_STREAMS")) == "1"
        assert "float32" in str(session.property("INFERENCE_PRECISION_HINT"))
        assert session.property("ENABLE_CPU_PINNING") is False


def test_outputs_are_copies(fp32: Artifact) -> None:
    session = BACKEND.open(fp32, fp32.target)
    batch = images(2)
    first = session.run({"image": batch[:1]})["logits"]
    kept = first.copy()
    session.run({"image": batch[1:]})
    np.testing.assert_array_equal(first, kept)


def test_wrong_inputs_are_named(fp32: Artifact) -> None:
    session = BACKEND.open(fp32, fp32.target)
    with pytest.raises(DataError, match="image"):
        session.run({"picture": images(1)})
    with pytest.raises(DataError):
        session.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    with pytest.raises(DataError, match="float64"):
        session.run({"image": images(1).astype(np.float64)})
    session.close()
    with pytest.raises(DataError, match="closed"):
        session.run({"image": images(1)})


def test_telemetry_is_off(fp32: Artifact) -> None:
    loaded = sys.modules.get("openvino_telemetry")
    assert loaded is None or loaded.Telemetry.__module__ == "edgewright.backends.openvino_session"


def test_the_silent_telemetry_answers_calls_alone() -> None:
    from edgewright.backends.openvino_session import _SilentTelemetry

    silent = _SilentTelemetry(tid="x", app_name="OVC")
    assert silent.send_event("a", "b", label="c") is None  # type: ignore[operator]
    # The converter compares the real one's backend where there is one; it had been imported before us.
    assert not hasattr(silent, "backend")


def test_who_quantizes_and_what_is_refused(cnn: Program, cnn_onnx: Program) -> None:
    assert BACKEND.quantizer(cnn, target("w8a8")) is Quantizer.PT2E
    assert BACKEND.quantizer(cnn_onnx, target("w8a8")) is Quantizer.NATIVE
    assert BACKEND.quantizer(cnn, target("fp16")) is None
    quantized = replace(cnn_onnx, precision="w8a8")
    assert "already quantized" in (BACKEND.refuses(quantized, target("fp32")) or "")
    assert BACKEND.refuses(quantized, target("w8a8")) is None
    assert "PT2E" in (BACKEND.refuses(cnn_onnx, target("w8a8", quantizer=Quantizer.PT2E)) or "")
    with pytest.raises(ConversionError, match="no calibration"):
        BACKEND.convert(cnn_onnx, target("w8a8"), None, cnn_onnx.path.parent / "none")


def test_unsupported_operator_is_named(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "y")]
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="example.com")
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example.com", 1)]
    path = tmp_path / "odd.onnx"
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    spec = programs._specs({"x": (2,)}, False)[0]
    spec = replace(spec, shape=(2, 2))
    program = programs._file_program(path, "onnx", (spec,), (replace(spec, name="y"),))
    with pytest.raises(ConversionError, match="Frobnicate"):
        BACKEND.convert(program, target("fp32"), None, tmp_path / "out")


def test_broken_topologies_are_refused(fp32: Artifact, tmp_path: Path) -> None:
    content = fp32.path.read_bytes()
    for name, broken, error in (
        ("text", b"not xml", FormatMismatchError),
        ("short", content[: len(content) // 2], FormatMismatchError),
        ("other", b"<html></html>", FormatMismatchError),
        ("entity", b'<!DOCTYPE net [<!ENTITY a "b">]><net>&a;</net>', IntegrityError),
        ("type", content.replace(b'type="Convolution"', b'type="Convolutoin"'), ConversionError),
    ):
        path = tmp_path / f"{name}.xml"
        path.write_bytes(broken)
        path.with_suffix(".bin").write_bytes(fp32.files[1].read_bytes())
        with pytest.raises(error):
            BACKEND.open(fp32.moved((path, path.with_suffix(".bin"))), fp32.target)


def test_broken_sources_are_refused(cnn_onnx: Program, cnn_tflite: Program, tmp_path: Path) -> None:
    for program in (cnn_onnx, cnn_tflite):
        path = tmp_path / program.path.name
        path.write_bytes(program.path.read_bytes()[:300])
        with pytest.raises((ConversionError, IntegrityError, FormatMismatchError)):
            BACKEND.convert(replace(program, path=path), target("fp32"), None, tmp_path / "out")
