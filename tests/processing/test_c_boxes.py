"""The C core makes of a detector's tensors, of scores and of masks what numpy makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.processing.c_cases import Row, both, finishing, needs_compiler

from edgewright.core.tensors import Array

pytestmark = needs_compiler
LETTERBOX: Row = {"step": "letterbox", "height": 64, "width": 96}
NMS: Row = {"step": "nms", "iou": 0.4, "score": 0.3, "limit": 40}


def close(made: Array, wanted: Array) -> bool:
    """The same rows in the same order; floats at most 1e-5 of the range apart, integers equal."""
    assert made.dtype == wanted.dtype and made.shape == wanted.shape, (made.shape, wanted.shape)
    if made.dtype.kind != "f" or not made.size:
        return bool(np.array_equal(made, wanted))
    return float(np.abs(made.astype(np.float64) - wanted).max()) <= 1e-5 * max(float(np.ptp(wanted)), 1e-6)


def boxes_of(generator: np.random.Generator, count: int, *, side: float = 64.0) -> Array:
    first = generator.uniform(0, side, (count, 2))
    return np.concatenate([first, first + generator.uniform(1, side / 2, (count, 2))], axis=1).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("outputs", "rows"),
    [
        ({"a": ((200, 4), "float32"), "b": ((200, 4), "float32")},
         [{"step": "join_boxes", "background": True}, NMS, {"step": "to_source"}]),
        ({"a": ((200, 4), "float32"), "b": ((200, 3), "float32")},
         [{"step": "join_boxes", "format": "cxcywh"}, {**NMS, "mode": "linear", "per_class": False}]),
        ({"a": ((200, 4), "float32"), "b": ((200, 3), "float32")},
         [{"step": "join_boxes", "format": "yxyx", "height": 2, "width": 3},
          {**NMS, "mode": "gaussian", "multi_label": True, "before": 90}]),
        ({"a": ((100, 4), "float32"), "b": ((100,), "float32"), "c": ((100,), "float32"), "d": ((1,), "float32")},
         [{"step": "decode_ssd_outputs", "format": "xyxy"}, {"step": "to_source"}]),
        ({"a": ((50, 12), "float32")}, [{"step": "decode_end_to_end", "format": "xywh"}, {"step": "to_source"}]),
        ({"a": ((120, 4), "float32"), "b": ((120, 2), "float32")},
         [{"step": "decode_anchors", "height": 64, "width": 96, "strides": [16, 32],
           "sizes": [[10, 16, 24, 24.5, 31, 80], [32, 48, 64, 96, 50, 120, 7, 9, 8, 11, 12, 13, 90, 30, 1, 2]],
           "clip": True, "background": True}, NMS, {"step": "to_source"}]),
        ({"a": ((15, 8, 12), "float32")},
         [{"step": "decode_grid", "height": 64, "width": 96, "centre": "tanh", "size": "sigmoid",
           "objectness": "first", "activation": "sigmoid", "objectness_power": 0.6, "class_power": 0.4}, NMS]),
        ({"a": ((126, 9), "float32")},
         [{"step": "decode_grid", "height": 64, "width": 96, "layout": "rows", "strides": [8, 16, 32],
           "activation": "sigmoid"}, NMS, {"step": "to_source"}]),
        ({"a": ((4 + 5 + 6, 77), "float32")}, [{"step": "decode_yolo", "keypoints": 2}, NMS, {"step": "to_source"}]),
        ({"a": ((77, 10), "float32")},
         [{"step": "decode_yolo", "head": "v5", "layout": "rows", "height": 3, "width": 2}, NMS]),
        ({"a": ((16, 24, 21), "float32")}, [{"step": "argmax"}, {"step": "to_source", "fill": 255}]),
        ({"a": ((300, 8, 12), "int16")}, [{"step": "argmax", "axis": "first"}, {"step": "to_source"}]),
        ({"a": ((16, 24), "int32")}, [{"step": "mask"}]),
        ({"a": ((1, 16, 24), "float32")}, [{"step": "mask"}, {"step": "to_source"}]),
        ({"a": ((7, 16, 24), "float32")},
         [{"step": "heatmap_keypoints", "height": 64, "width": 96, "refine": True}, {"step": "to_source"}]),
        ({"a": ((16, 24, 7), "float32")}, [{"step": "heatmap_keypoints", "height": 64, "width": 96, "layout": "hwc"}]),
        ({"a": ((17, 3), "float32")}, [{"step": "keypoints", "format": "yxs", "height": 64, "width": 96}]),
        ({"a": ((17, 2), "float32")}, [{"step": "keypoints", "format": "xy"}, {"step": "to_source"}]),
        ({"a": ((300,), "float32")}, [{"step": "softmax"}, {"step": "top_k", "k": 5, "threshold": 0.01}]),
        ({"a": ((300,), "int8")}, [{"step": "dequantize", "scale": 0.1, "zero_point": 3}, {"step": "top_k"}]),
        ({"a": ((40, 6), "float32")}, [{"step": "ctc", "blank": -1}]),
        ({"a": ((9,), "float32")}, [{"step": "smooth", "runs": 2, "hold": 3}, {"step": "threshold", "on": 0.4}]),
        ({"a": ((9,), "float32")}, [{"step": "smooth", "runs": 2, "hold": 3}]),
    ],
)  # fmt: skip
def test_results_are_those_of_numpy(
    outputs: Mapping[str, tuple[tuple[int, ...], str]], rows: Sequence[Row], tmp_path: Path
) -> None:
    checked = finishing(outputs, rows, prepare=[LETTERBOX], shape=(64, 96, 3))
    pair = both(checked, tmp_path, max_side=512)
    generator = np.random.default_rng(7)
    found = 0
    for run in range(6):
        given = {}
        for name, (shape, dtype) in outputs.items():
            if dtype != "float32":
                given[name] = generator.integers(-100, 300 if dtype != "int8" else 100, shape).astype(dtype)
            elif shape[-1:] == (4,) and len(shape) == 2:
                given[name] = boxes_of(generator, shape[0])
            elif shape == (1,):
                given[name] = np.array([[30, np.nan, -3, 1e30, 0, 99][run]], dtype=np.float32)
            else:
                given[name] = generator.standard_normal(shape).astype(np.float32)
                if rows[0]["step"] == "decode_yolo":
                    given[name] = np.abs(given[name]) * np.float32(20 if run % 2 else 1)
        if run == 4:
            for array in given.values():
                if array.dtype.kind == "f":
                    array.flat[:: max(array.size // 7, 1)] = [
                        np.nan,
                        np.inf,
                        -np.inf,
                        1e38,
                        0.0,
                        5.0,
                        1.0,
                        2.0,
                    ][: len(array.flat[:: max(array.size // 7, 1)])]
        height, width = generator.integers(20, 300, 2)
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        with np.errstate(all="ignore"):
            wanted, made = pair.finished({"image": image}, given)
        found += wanted.size
        finite = np.isfinite(wanted).all() if wanted.dtype.kind == "f" else True
        assert close(made, wanted) if finite else np.allclose(made, wanted, rtol=1e-5, equal_nan=True)
    assert found
