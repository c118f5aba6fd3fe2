"""C of the steps from a model's tensors to boxes."""

from __future__ import annotations

import numpy as np

from edgewright.processing.anchors import DecodeAnchors
from edgewright.processing.boxes import DecodeEndToEnd, DecodeSsdOutputs, JoinBoxes
from edgewright.processing.c_site import CValue, Site
from edgewright.processing.c_text import c_double, c_float
from edgewright.processing.grids import DecodeGrid, DecodeYolo
from edgewright.processing.nms import Nms
from edgewright.processing.step import Step
from edgewright.processing.values import ValueType

_FILE = "ew_boxes"
_FORMATS = {"xyxy": "EW_XYXY", "yxyx": "EW_YXYX", "xywh": "EW_XYWH", "cxcywh": "EW_CXCYWH"}
_CENTRES = {"linear": "EW_LINEAR", "sigmoid": "EW_SIGMOID", "tanh": "EW_TANH"}
_OBJECTS = {"first": "EW_OBJECT_FIRST", "after_box": "EW_OBJECT_AFTER_BOX", "none": "EW_OBJECT_NONE"}
_MODES = {"hard": "EW_HARD", "linear": "EW_SOFT_LINEAR", "gaussian": "EW_SOFT_GAUSSIAN"}
_PART_BYTES = 20  # of ew_nms.c


def join_boxes(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "join_boxes"."""
    assert isinstance(step, JoinBoxes)
    boxes, scores = given
    value = site.value(made)
    site.call(
        "ew_join_boxes", boxes, scores, boxes.bound[0], scores.bound[1], int(step.background), _FORMATS[step.format],
        step.height, step.width, value, file=_FILE,
    )  # fmt: skip
    return value


def decode_ssd_outputs(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "decode_ssd_outputs"."""
    assert isinstance(step, DecodeSsdOutputs)
    boxes, classes, scores = given[:3]
    count = boxes.bound[0]
    rows = site.length()
    value = site.value(made, rows=rows, bound=(count, 6))
    site.call(
        f"{rows} = ew_decode_ssd_outputs", boxes, classes, scores, given[3] if len(given) == 4 else "NULL", count,
        _FORMATS[step.format], step.height, step.width, c_float(step.score), value, site.buffer(32 * count), file=_FILE,
    )  # fmt: skip
    return value


def decode_end_to_end(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "decode_end_to_end"."""
    assert isinstance(step, DecodeEndToEnd)
    (have,) = given
    count, columns = have.bound
    rows = site.length()
    value = site.value(made, rows=rows, bound=(count, columns))
    site.call(
        f"{rows} = ew_decode_end_to_end", have, count, columns, _FORMATS[step.format], step.height, step.width,
        c_float(step.score), value, site.buffer((4 * columns + 8) * count), file=_FILE,
    )  # fmt: skip
    return value


def decode_anchors(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "decode_anchors"."""
    assert isinstance(step, DecodeAnchors)
    offsets, scores = given
    value = site.value(made)
    shapes: list[int] = []
    pitches: list[float] = []
    sizes: list[float] = []
    for stride, pairs in zip(step.strides, step.sizes, strict=True):
        rows, columns = -(-step.height // stride), -(-step.width // stride)
        shapes += [rows, columns, len(pairs) // 2]
        pitches += [stride, stride] if step.grid == "stride" else [step.width / columns, step.height / rows]
        sizes += pairs
    clips = (step.width, step.height) if step.clip else (0, 0)
    site.call(
        "ew_decode_anchors", offsets, scores, scores.bound[1], int(step.background), len(step.strides),
        site.table(np.array(shapes, dtype=np.int32)), site.table(np.array(pitches, dtype=np.float64)),
        site.table(np.array(sizes, dtype=np.float64)), int(step.order == "cycxhw"), c_float(step.centre_variance),
        c_float(step.size_variance), c_double(clips[0]), c_double(clips[1]), value, file=_FILE,
    )  # fmt: skip
    return value


def decode_grid(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "decode_grid"."""
    assert isinstance(step, DecodeGrid)
    (have,) = given
    value = site.value(made)
    grids = step.grids(have.bound)
    cells = sum(rows * columns for rows, columns in grids)
    channels = have.bound[0 if step.layout == "chw" else -1]
    channel_step, cell_step = (cells, 1) if step.layout == "chw" else (1, channels)
    pitches = [
        (step.strides[number],) * 2 if step.strides else (step.width / columns, step.height / rows)
        for number, (rows, columns) in enumerate(grids)
    ]
    record = site.record(
        "ew_grid",
        (
            cells, channels, channel_step, cell_step, _CENTRES[step.centre], int(step.size == "exp"),
            _OBJECTS[step.objectness], int(step.activation == "sigmoid"), c_double(step.objectness_power),
            c_double(step.class_power), c_float(step.width), c_float(step.height),
        ),
    )  # fmt: skip
    site.call(
        "ew_decode_grid", have, record, len(grids), site.table(np.array(grids, dtype=np.int32)),
        site.floats(np.array(pitches, dtype=np.float64)), value, file=_FILE,
    )  # fmt: skip
    return value


def decode_yolo(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "decode_yolo"."""
    assert isinstance(step, DecodeYolo)
    (have,) = given
    value = site.value(made)
    count, channels = have.bound if step.layout == "rows" else have.bound[::-1]
    site.call(
        "ew_decode_yolo", have, count, channels, int(step.layout == "rows"), int(step.head == "v5"), step.keypoints,
        step.height, step.width, value, file=_FILE,
    )  # fmt: skip
    return value


def nms(site: Site, step: Step, given: tuple[CValue, ...], made: ValueType) -> CValue:
    """Make the C of "nms"."""
    assert isinstance(step, Nms)
    (have,) = given
    count, columns = have.bound
    classes = have.type.classes
    assert classes is not None
    most = min(step.before, count * (classes if step.multi_label else 1))
    rows = site.length()
    value = site.value(made, rows=rows, bound=(min(step.limit, most), columns - classes + 2))
    record = site.record(
        "ew_nms_options",
        (
            count, classes, columns, _MODES[step.mode], int(step.per_class), int(step.multi_label),
            min(step.limit, most), most, c_float(step.iou), c_float(step.score), c_double(step.sigma),
        ),
    )  # fmt: skip
    site.call(f"{rows} = ew_nms", have, record, value, site.buffer(_PART_BYTES * most), file="ew_nms")
    return value
