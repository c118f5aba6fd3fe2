"""LiteRT -> ONNX, operators whose parameters have many combinations: each is what LiteRT makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.bridges.tflite_cases import F, build, check, floats
from tests.bridges.tflite_files import const

from edgewright.bridges import tflite_run
from edgewright.core.errors import ConversionError

pytestmark = [pytest.mark.toolchain("ai_edge_litert", "onnx", "onnxruntime"), pytest.mark.slow]

FEW = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SHAPE = (3, 5, 4)


@FEW
@given(
    begin=st.tuples(*[st.integers(-6, 6)] * 3),
    end=st.tuples(*[st.integers(-6, 6)] * 3),
    stride=st.tuples(*[st.sampled_from([1, 2, -1, -2])] * 3),
    begin_mask=st.integers(0, 7),
    end_mask=st.integers(0, 7),
    shrink=st.integers(0, 7),
    ellipsis=st.sampled_from([0, 0, 1, 2, 4]),
    new=st.sampled_from([0, 0, 1, 2, 4]),
)
def test_strided_slices(
    tmp_path: Path,
    begin: tuple[int, ...],
    end: tuple[int, ...],
    stride: tuple[int, ...],
    begin_mask: int,
    end_mask: int,
    shrink: int,
    ellipsis: int,
    new: int,
) -> None:
    shrink &= ~(ellipsis | new)
    begin = tuple(b % 3 if shrink >> i & 1 else b for i, b in enumerate(begin))
    stride = tuple(1 if shrink >> i & 1 else s for i, s in enumerate(stride))
    path = build(
        tmp_path / "one.tflite",
        "STRIDED_SLICE",
        [F(shape=SHAPE), const(begin), const(end), const(stride)],
        [F()],
        "StridedSliceOptions",
        8,
        beginMask=begin_mask,
        endMask=end_mask,
        shrinkAxisMask=shrink,
        ellipsisMask=ellipsis,
        newAxisMask=new & ~ellipsis,
    )
    try:
        reference = tflite_run.Reference(path, name="one").run([np.zeros(SHAPE, dtype=np.float32)])
    except ConversionError:
        return  # LiteRT itself refuses this combination
    if reference[0].size:
        check(path)


@FEW
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.integers(1, 2),
    channels=st.integers(1, 3),
)
def test_convolutions_pad_as_litert_does(
    tmp_path: Path,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: int,
    channels: int,
) -> None:
    options = {
        "padding": 0,
        "strideH": stride[0],
        "strideW": stride[1],
        "dilationHFactor": dilation,
        "dilationWFactor": dilation,
    }
    reads = [F(shape=(1, *size, channels)), floats(2, *kernel, channels), floats(2)]
    check(build(tmp_path / "one.tflite", "CONV_2D", reads, [F()], "Conv2DOptions", 2, **options))


@FEW
@given(
    before=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    after=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    mode=st.sampled_from(["", "alignCorners", "halfPixelCenters"]),
)
def test_bilinear_sizes(tmp_path: Path, before: tuple[int, int], after: tuple[int, int], mode: str) -> None:
    options = {mode: True} if mode else {}
    reads = [F(shape=(1, *before, 2)), const(list(after))]
    check(
        build(tmp_path / "one.tflite", "RESIZE_BILINEAR", reads, [F()], "ResizeBilinearOptions", 3, **options)
    )


@FEW
@given(pads=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=3))
def test_pads(tmp_path: Path, pads: list[tuple[int, int]]) -> None:
    check(build(tmp_path / "one.tflite", "PAD", [F(shape=SHAPE), const(pads)], [F()], "", 1))
