"""A model small enough to build in a second, and data that it classifies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CLASSES = 10
SHAPE = (1, 8, 8)


def write_onnx(path: Path, *, seed: int = 0) -> Path:
    """Write a convolution, a ReLU and a matrix: x float32[n, 1, 8, 8] -> logits float32[n, 10]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    kernel = (rng.normal(size=(8, 1, 3, 3)) / 3).astype(np.float32)
    matrix = (rng.normal(size=(8 * 64, CLASSES)) / 20).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Flatten", ["r"], ["f"]),
            helper.make_node("MatMul", ["f", "matrix"], ["logits"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(matrix, "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def arrays(model: Path, *, count: int = 64, seed: int = 1) -> dict[str, np.ndarray]:
    """Return inputs, and as labels the classes that the model itself tells."""
    import onnxruntime

    x = np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return {"x": x, "labels": session.run(None, {"x": x})[0].argmax(axis=1)}


def write_data(model: Path, path: Path, *, count: int = 64, seed: int = 1) -> Path:
    """Write `arrays` of `model` to `path` as .npz."""
    np.savez(path, **arrays(model, count=count, seed=seed))
    return path


def rows(out: Path) -> dict[str, dict[str, object]]:
    """Return the rows of results.json by id."""
    results = json.loads((out / "results.json").read_text())["results"]
    return {row["id"]: row for row in results}
