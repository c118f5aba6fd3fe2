"""Real float32 models as C: LiteRT Micro's outputs, bit by bit or within 1e-5 where there are exponentials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.microcontrollers.c_models import open_model

from edgewright.microcontrollers import oracle, proof
from edgewright.microcontrollers.emit import compile_model, golden_inputs

MODELS = {
    "trained_lstm": "tflite-micro/trained_lstm.tflite",
    "hello_world": "tflite-micro/hello_world_float.tflite",
    "dtln_mask": "dtln/model_1.tflite",
    "dtln_frame": "dtln/model_2.tflite",
    "gestures": "hand-gesture/keypoint_classifier.tflite",
}
pytestmark = pytest.mark.toolchain("ai_edge_litert")


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_the_interpreters(name: str, assets: Path, tmp_path: Path) -> None:
    if not oracle.is_installed():
        pytest.skip("needs the interpreter; run: edgewright toolchain install tflm")
    path = assets / "models" / MODELS[name]
    model = compile_model(path, name=name)
    rows = golden_inputs(model)[:4]
    expected = oracle.run(path, rows)
    assert not expected.refusal
    made = open_model(model, tmp_path)
    for row, want in zip(rows, expected.outputs, strict=True):
        for got, right in zip(made.run(row), want, strict=True):
            assert got.any()
            assert proof.agree(got, right, is_exact=model.is_exact)
    assert model.is_exact == (name == "hello_world")
    assert model.plan.arena_bytes <= expected.activation_bytes


def test_infinite_outputs_hide_nothing() -> None:
    want = np.array([1, np.inf, np.nan, -np.inf], dtype=np.float32)
    assert proof.agree(want.copy(), want, is_exact=False)
    for position, value in ((0, 1.1), (0, np.nan), (1, 5), (1, -np.inf), (2, 0)):
        wrong = want.copy()
        wrong[position] = value
        assert not proof.agree(wrong, want, is_exact=False)
