"""A classifier whose answers are known: the mean of each colour is its score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgewright.core.tensors import Array
from edgewright.processing.registry import read_step
from edgewright.processing.specification import Flow, RawInput, ResultFlow, Specification

LABELS = ("red", "green", "blue")
SIZE = 8


def write_colour_model(path: Path) -> Path:
    """Write an ONNX file: pixels float32 [1, 3, 8, 8] -> means float32 [1, 3]."""
    from onnx import TensorProto, checker, helper, save

    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    means = helper.make_tensor_value_info("means", TensorProto.FLOAT, [1, 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
    ]
    graph = helper.make_graph(nodes, "colours", [pixels], [means])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, str(path))
    return path


def colour_specification(order: str = "rgb") -> Specification:
    """Return the specification for it; with another `order` it is wrong."""
    steps = (
        {"step": "resize", "height": SIZE, "width": SIZE},
        {"step": "channels", "order": order},
        {"step": "normalize", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
        {"step": "layout", "layout": "chw"},
    )
    best = ({"step": "softmax"}, {"step": "top_k", "k": 3})
    return Specification(
        task="classification",
        inputs=(RawInput(name="image", kind="image", order="rgb"),),
        tensors=(
            Flow(name="pixels", sources=("image",), steps=tuple(read_step(s, what="test") for s in steps)),
        ),
        results=(
            ResultFlow(
                name="colours",
                sources=("means",),
                steps=tuple(read_step(s, what="test") for s in best),
                labels=LABELS,
            ),
        ),
    )


def plain_image(red: int, green: int, blue: int, *, height: int = 21, width: int = 33) -> Array:
    """Return an image of one colour, uint8 [height, width, 3]."""
    return np.broadcast_to(np.array([red, green, blue], dtype=np.uint8), (height, width, 3)).copy()
