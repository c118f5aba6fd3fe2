"""Bare model files as artifacts: everything that belongs to a model is part of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.colour_model import write_colour_model

from edgewright.artifact_files import read_artifact
from edgewright.core.errors import EdgewrightError

pytest.importorskip("onnx")


@pytest.mark.parametrize("place", ["weights.bin", "data/weights.bin"])
def test_weights_in_another_file_belong_to_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(write_colour_model(tmp_path / "whole.onnx"))
    scale = numpy_helper.from_array(np.ones(3, np.float32), "scale")
    model.graph.initializer.append(scale)
    model.graph.node[-1].output[0] = "bare"
    model.graph.node.append(helper.make_node("Mul", ["bare", "scale"], ["means"]))
    (tmp_path / place).parent.mkdir(exist_ok=True)
    onnx.save(
        model, str(tmp_path / "model.onnx"), save_as_external_data=True, location=place, size_threshold=0
    )
    whole = read_artifact(tmp_path / "whole.onnx")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "model.onnx", Path("model.onnx")):
        artifact = read_artifact(path)
        assert artifact.names == ("model.onnx", place)
        assert artifact.size_bytes == sum(file.stat().st_size for file in artifact.files)
        artifact.verify_digest()
        assert artifact.inputs == whole.inputs
    assert whole.names == ("whole.onnx",)


def test_a_bare_file_of_openvino_tells_its_signature(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    model = openvino.convert_model(str(write_colour_model(tmp_path / "colours.onnx")))
    openvino.save_model(model, str(tmp_path / "colours.xml"), compress_to_fp16=False)
    artifact = read_artifact(tmp_path / "colours.xml")
    assert list(map(str, (*artifact.inputs, *artifact.outputs))) == [
        "pixels: float32[1, 3, 8, 8]",
        "means: float32[1, 3]",
    ]
    assert [file.name for file in artifact.files] == ["colours.xml", "colours.bin"]
    (tmp_path / "colours.xml").write_text("<net")
    with pytest.raises(EdgewrightError, match="colours"):
        read_artifact(tmp_path / "colours.xml")
