"""Made-up raw inputs: of the sizes that a specification fixes, and of others where it leaves them open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.colour_model import SIZE, colour_specification

from edgewright.core.tensors import TensorSpec
from edgewright.processing.processor import Processor, Signature, plan
from edgewright.processing.specification import RawInput
from edgewright.processing.synthetic import synthetic_raw, synthetic_shape

SIGNATURE = Signature(
    inputs=(TensorSpec(name="pixels", shape=(1, 3, SIZE, SIZE), dtype="float32"),),
    outputs=(TensorSpec(name="means", shape=(1, 3), dtype="float32"),),
)


@pytest.mark.parametrize(("fixed", "expected"), [((0, 0), (61, 47, 3)), ((20, 30), (20, 30, 3))])
def test_image_has_the_size_that_the_specification_fixes(
    fixed: tuple[int, int], expected: tuple[int, ...]
) -> None:
    open_size = colour_specification()
    row = replace(open_size.inputs[0], height=fixed[0], width=fixed[1])
    checked = plan(replace(open_size, inputs=(row,)), SIGNATURE)
    made = synthetic_raw(row, 1, synthetic_shape(row, checked, sides=(61, 47)))
    assert made.shape == expected
    assert made.dtype == np.uint8
    assert set(Processor(checked).prepare({row.name: made})) == {"pixels"}


def test_numbers_are_of_the_type_of_their_input() -> None:
    row = RawInput(name="codes", kind="tensor", shape=(4,), dtype="int32")
    assert synthetic_raw(row, 0, (4,)).dtype == np.int32
