"""Inspection of real models against published figures, and of OpenVINO's XML."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.core.errors import FormatMismatchError, IntegrityError
from edgewright.sources import Inspection, inspect_artifact
from edgewright.workers.pool import Worker

MLPERF = "models/mlperf-tiny/"


def _inspect(worker: Worker, read, path: Path) -> Inspection:
    reply = worker.call("edgewright.sources.operations:inspect", {"program": read(path).to_json()})
    record = reply["inspection"]
    assert isinstance(record, dict)
    inspection = Inspection.from_json(record)
    assert inspection.to_json() == record
    return inspection


@pytest.mark.toolchain("ai_edge_litert")
@pytest.mark.parametrize(
    ("name", "macs", "parameters", "precision"),
    [
        ("kws_dscnn_int8", 2_656_768, 22_604, "w8a8"),
        ("ic_resnet8_int8", 12_501_632, 77_706, "w8a8"),
        ("ic_resnet8_fp32", 12_501_632, 77_706, "fp32"),
        ("vww_mobilenet_96_int8", 7_489_664, 210_850, "w8a8"),
        # Called fp32 by its makers, but its weights are int8.
        ("kws_dscnn_fp32", 2_656_768, 22_604, "w8"),
    ],
)
def test_the_mlperf_tiny_reference_figures(
    name: str, macs: int, parameters: int, precision: str, assets: Path, worker: Worker, read
) -> None:
    found = _inspect(worker, read, assets / MLPERF / f"{name}.tflite")
    assert (found.macs, found.parameters, found.precision) == (macs, parameters, precision)
    assert sum(layer.macs or 0 for layer in found.layers) == macs


@pytest.mark.toolchain("ai_edge_litert", "onnx")
def test_every_model_of_the_assets_is_read_and_described(assets: Path, worker: Worker, read) -> None:
    paths = sorted([*assets.glob("models/**/*.tflite"), *assets.glob("models/**/*.onnx")])
    assert len(paths) >= 20
    read(paths[0])
    pid = worker.pid
    for path in paths:
        found = _inspect(worker, read, path)
        assert found.size_bytes == path.stat().st_size
        assert sum(found.operators.values()) == len(found.layers) > 0
        assert (found.macs is None) == bool(found.macs_reason)
        assert sum(layer.parameters for layer in found.layers) == found.parameters
    assert worker.pid == pid


@pytest.mark.toolchain("onnx")
def test_real_onnx_models(assets: Path, worker: Worker, read) -> None:
    face = _inspect(worker, read, assets / "models/ultraface-slim/version-slim-320.onnx")
    assert [spec.name for spec in face.inputs] == ["input"]
    assert any("184 graph inputs are initialisers" in note for note in face.notes)
    voice = _inspect(worker, read, assets / "models/silero-vad/silero_vad.onnx")
    assert [str(spec) for spec in voice.inputs] == [
        "input: float32[?, ?]",
        "state: float32[2, ?, 128]",
        "sr: int64[]",
    ]
    assert voice.operators["If"] >= 1
    assert voice.macs is None
    assert "not known" in voice.macs_reason


@pytest.mark.toolchain("ai_edge_litert", "onnx")
def test_the_same_network_has_the_same_macs_in_every_format(assets: Path, worker: Worker, read) -> None:
    for onnx, tflite in (
        ("dtln/model_1.onnx", "dtln/model_1.tflite"),
        ("dtln/model_2.onnx", "dtln/model_2.tflite"),
        (
            "ultraface-slim/version-slim-320.onnx",
            "ultraface-slim/version-slim-320_without_postprocessing.tflite",
        ),
    ):
        left = _inspect(worker, read, assets / "models" / onnx)
        right = _inspect(worker, read, assets / "models" / tflite)
        assert left.macs == right.macs
        assert left.macs is not None


@pytest.mark.toolchain("ai_edge_litert")
def test_custom_operators_are_listed_and_not_guessed(assets: Path, worker: Worker, read) -> None:
    audio = _inspect(worker, read, assets / "models/tflite-micro/audio_preprocessor_int8.tflite")
    assert "1 custom operators 'SignalWindow'" in audio.notes
    assert audio.macs is None
    edge_tpu = _inspect(worker, read, assets / "models/coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite")
    assert edge_tpu.notes == (
        "1 custom operators 'edgetpu-custom-op'",
        "compiled for the Edge TPU: chip beagle, runtime 12 or newer, 566,912 bytes of parameters, "
        "executables: 1 execution-only, 1 parameter-caching",
        "no operator stays on the CPU",
    )
    person = _inspect(worker, read, assets / "models/tflite-micro/person_detect.tflite")
    assert str(person.inputs[0]) == "input: int8[1, 96, 96, 1]"


@pytest.mark.toolchain("torch", "openvino")
def test_pt2_and_openvino_agree(tiny_pt2: Path, tmp_path: Path, worker: Worker, read) -> None:
    import openvino
    import torch

    module = torch.export.load(tiny_pt2).module()
    source = _inspect(worker, read, tiny_pt2)
    model = openvino.convert_model(torch.export.load(tiny_pt2), example_input=(torch.zeros(2, 3, 8, 8),))
    model.reshape([1, 3, 8, 8])
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    found = inspect_artifact(tmp_path / "model.xml")
    # 64 positions x 4 x 27, 36 x 4 x 9 of the depthwise convolution, 4 x 2 of the head.
    assert source.macs == found.macs == 64 * 4 * 27 + 36 * 4 * 9 + 8
    assert source.parameters == sum(p.numel() for p in module.parameters()) == 112 + 8 + 40 + 10
    assert found.inputs[0].shape == (1, 3, 8, 8)
    assert (found.precision, found.format) == ("fp32", "openvino")
    assert found.size_bytes == sum(file.stat().st_size for file in tmp_path.glob("model.*"))


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        ('<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "b">]><net/>', IntegrityError, "document type"),
        ('<net><layers><layer id="0"', IntegrityError, "damaged XML"),
        ("<html><body/></html>", FormatMismatchError, "not an OpenVINO IR"),
        (
            '<net><layers><layer id="0" name="x" type="Add"/></layers><edges><edge from-layer="7" to-layer="0"/>'
            "</edges></net>",
            IntegrityError,
            "joins layers",
        ),
    ],
)
def test_hostile_xml_is_refused(content: str, error: type[Exception], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_text(content)
    with pytest.raises(error, match=reason):
        inspect_artifact(path)
    path.write_bytes(content.encode("utf-16"))
    with pytest.raises((IntegrityError, FormatMismatchError)):
        inspect_artifact(path)
