"""The preset for any tensors: names that a specification takes, quantized numbers as real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import FormatMismatchError
from edgewright.core.tensors import Arrays, TensorSpec
from edgewright.processing import presets
from edgewright.processing.presets import Quantization, Subject
from edgewright.processing.processor import Processor, plan
from edgewright.processing.signature import Signature
from edgewright.processing.specification import read_specification, write_specification


def subject(
    inputs: dict[str, tuple[tuple[int | None, ...], str]],
    outputs: dict[str, tuple[tuple[int | None, ...], str]],
    quantization: dict[str, Quantization] | None = None,
) -> Subject:
    """Return a model with tensors of such shapes and dtypes."""
    ends = [
        tuple(TensorSpec(name=name, shape=shape, dtype=dtype) for name, (shape, dtype) in rows.items())
        for rows in (inputs, outputs)
    ]
    signature = Signature(inputs=ends[0], outputs=ends[1])
    return Subject(path=Path("m.tflite"), signature=signature, quantization=quantization or {})


def test_quantized_numbers_are_handed_over_as_real_ones(tmp_path: Path) -> None:
    scales = {"x": Quantization(scale=0.5, zero_point=-3), "y": Quantization(scale=0.25, zero_point=1)}
    model = subject({"x": ((1, 2), "int8")}, {"y": ((1, 2), "int8")}, scales)
    made = presets.make("tensors", {"": model})
    assert read_specification(write_specification(made, tmp_path)) == made
    seen: list[Arrays] = []

    def execute(name: str, inputs: Arrays) -> Arrays:
        seen.append(dict(inputs))
        return {"y": np.array([[1, 9]], dtype=np.int8)}

    results = Processor(plan(made, model.signature)).run({"x": np.float32([1.0, -2.0])}, execute)
    assert seen[0]["x"].tolist() == [[-1, -7]] and results["y"].tolist() == [0.0, 2.0]


def test_names_become_those_of_a_specification() -> None:
    model = subject(
        {"serving_default_x:0": ((1, 4), "float32"), "X/a": ((1,), "int32"), "9": ((1, None), "float32")},
        {"PartitionedCall:0": ((1, 2), "float32"), "partitionedcall:1": ((1, 2), "float32"), "": ((1, 1), "int64")},
    )  # fmt: skip
    made = presets.make("tensors", {"": model})
    assert [row.name for row in made.inputs] == ["x", "X_a", "input_9"]
    assert [flow.name for flow in made.results] == ["PartitionedCall", "partitionedcall_2", "output"]
    assert [row.dtype for row in made.inputs] == ["float32", "int32", "float32"]
    plan(made, model.signature)


def test_a_type_that_no_app_hands_over_is_refused() -> None:
    with pytest.raises(FormatMismatchError, match="float16"):
        presets.make("tensors", {"": subject({"x": ((1, 2), "float16")}, {"y": ((1, 2), "float32")})})


def test_it_is_no_guess_of_what_a_model_is_about() -> None:
    model = subject({"x": ((1, 7), "float32")}, {"y": ((1, 3), "float32")})
    assert presets.fitting({"": model}) == []
