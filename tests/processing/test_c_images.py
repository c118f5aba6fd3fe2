"""The C core makes of an image what numpy makes of it, byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.processing.c_cases import Row, both, needs_compiler, preparing

from edgewright.processing.specification import RawInput

pytestmark = needs_compiler
NORMALIZE: Row = {"step": "normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
LAYOUT: Row = {"step": "layout", "layout": "chw"}


def resize(method: str, **options: object) -> Row:
    return {"step": "resize", "height": 45, "width": 77, "method": method, **options}


@pytest.mark.parametrize(
    ("rows", "shape", "dtype"),
    [
        ([{"step": "short_side", "size": 64}, {"step": "crop", "height": 56, "width": 50}, NORMALIZE, LAYOUT],
         (3, 56, 50), "float32"),
        ([{"step": "short_side", "size": 64, "antialias": True}, {"step": "crop", "height": 56, "width": 56},
          NORMALIZE], (56, 56, 3), "float32"),
        ([resize("bicubic", antialias=True)], (45, 77, 3), "uint8"),
        ([resize("bicubic")], (45, 77, 3), "uint8"),
        ([resize("area"), LAYOUT], (3, 45, 77), "uint8"),
        ([{"step": "channels", "order": "bgr"}, resize("nearest")], (45, 77, 3), "uint8"),
        ([{"step": "crop", "fraction": 0.7}, resize("bilinear", corners="align"), NORMALIZE], (45, 77, 3), "float32"),
        ([{"step": "crop", "fraction": 0.8, "square": True}, resize("nearest", corners="asymmetric")],
         (45, 77, 3), "uint8"),
        ([{"step": "letterbox", "height": 64, "width": 96, "fill": [1, 2, 3]}, {"step": "channels", "order": "bgr"},
          NORMALIZE, LAYOUT], (3, 64, 96), "float32"),
        ([{"step": "channels", "order": "grey"},
          {"step": "letterbox", "height": 64, "width": 96, "antialias": True, "anchor": "top_left"},
          {"step": "scale", "factor": [1 / 255]}, {"step": "quantize", "scale": 0.0039, "zero_point": -128}],
         (64, 96, 1), "int8"),
        ([{"step": "resize", "height": 60, "width": 50}, NORMALIZE,
          {"step": "resize", "height": 30, "width": 33, "method": "bicubic", "antialias": True}],
         (30, 33, 3), "float32"),
        ([{"step": "letterbox", "height": 60, "width": 50}, {"step": "crop", "height": 40, "width": 40},
          {"step": "resize", "height": 30, "width": 33, "method": "area"}, {"step": "channels", "order": "grey"},
          {"step": "cast"}], (30, 33, 1), "float32"),
    ],
)  # fmt: skip
def test_pixels_are_those_of_numpy(
    rows: Sequence[Row], shape: tuple[int, ...], dtype: str, tmp_path: Path
) -> None:
    pair = both(preparing(RawInput(name="image", kind="image"), rows, shape, dtype), tmp_path)
    generator = np.random.default_rng(3)
    for height, width in [(60, 60), (61, 301), (257, 63), (45, 77), (480, 641), (64, 96), (1500, 70)]:
        if min(height, width) < 45 and "crop" in str(rows):
            continue
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        wanted, made = pair.prepared({"image": image})
        assert made.dtype == wanted.dtype and made.shape == wanted.shape
        assert np.array_equal(made, wanted), f"{width}x{height}"
