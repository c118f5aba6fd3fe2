"""Presets for boxes: SSD, YOLO, FastestDet, UltraFace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgewright.core.errors import FormatMismatchError
from edgewright.core.tensors import TensorSpec
from edgewright.processing.anchors import DecodeAnchors
from edgewright.processing.boxes import DecodeEndToEnd, DecodeSsdOutputs, JoinBoxes
from edgewright.processing.grids import DecodeGrid, DecodeYolo
from edgewright.processing.image_input import (
    HALF,
    IMAGE,
    ImageInput,
    image_input,
    misfit,
    output_flow,
    pixels_to,
)
from edgewright.processing.metadata import export_notes, labels_inside
from edgewright.processing.nms import Nms
from edgewright.processing.preset_labels import COCO, FACE
from edgewright.processing.presets import Subject, from_tensor, only
from edgewright.processing.resize import Letterbox, Resize
from edgewright.processing.source import ToSource
from edgewright.processing.specification import Flow, ResultFlow, Specification
from edgewright.processing.step import Step
from edgewright.processing.tensors import Reshape

_YOLO_STRIDES = (8, 16, 32)
_LITERT_SUFFIXES = (".tflite", ".lite")
_FACE_STRIDES = (8, 16, 32, 64)
_FACE_SIZES = ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))
_FACE_SCORE, _FACE_IOU = 0.7, 0.3


def ssd(models: Mapping[str, Subject]) -> Specification:
    """Boxes of a TensorFlow detector with its post-processing inside: outputs boxes, classes, scores, count.

    The image is stretched to the model's size, -1..1. The outputs are in this order, as those of
    TFLite_Detection_PostProcess.

    Raises:
        FormatMismatchError: the model has other outputs.
    """
    subject = only("ssd", models)
    image = image_input("ssd", subject.signature, side=300)
    outputs = subject.signature.outputs
    shapes = [tuple(size for size in output.shape[1:]) for output in outputs]
    rows = shapes[0][0] if shapes[0] else None
    if len(outputs) != 4 or shapes[:3] != [(rows, 4), (rows,), (rows,)]:
        raise misfit(
            "ssd",
            *outputs,
            expected="the outputs boxes [1, n, 4], classes [1, n], scores [1, n] and count [1]",
        )
    step = DecodeSsdOutputs(height=image.height, width=image.width)
    names = tuple(output.name for output in outputs)
    return _boxes(
        (pixels_to(subject, image, (_stretched(image),), mean=HALF, std=HALF),),
        _Found(sources=names, steps=(step,), labels=labels_inside(subject)),
    )


def yolo(models: Mapping[str, Subject]) -> Specification:
    """Boxes of an exported YOLO v3 to v12 or YOLO26, by the shape of its output; classes by its metadata or COCO's.

    Letterbox with grey 114, 0..1, RGB. Outputs: [1, 4 + classes + 3 keypoints, n] (v8 on), [1, n, 5 + classes] (v5),
    [1, n, 6 + 3 keypoints] (end to end). A `.tflite` holds coordinates of 0..1, other files pixels, as Ultralytics
    exports them.

    Raises:
        FormatMismatchError: the model has another output, or is for masks or turned boxes.
    """
    subject = only("yolo", models)
    image = image_input("yolo", subject.signature, side=640)
    notes = export_notes(subject)
    if notes.task not in ("", "detect", "pose"):
        raise FormatMismatchError(
            f"preset 'yolo' is for boxes and poses, but {subject.path} is for the task {notes.task!r}."
        )
    (output,) = _outputs("yolo", subject, 1)
    is_unit = subject.path.suffix.lower() in _LITERT_SUFFIXES
    height, width = (image.height, image.width) if is_unit else (0, 0)
    if len(output.shape) != 3:
        raise misfit("yolo", output, expected="[1, channels, n] or [1, n, channels]")
    _, first, last = output.shape
    cells = sum(-(-image.height // s) * -(-image.width // s) for s in _YOLO_STRIDES)
    steps: tuple[Step, ...]
    if last is not None and last == 6 + 3 * notes.keypoints and (first is None or first <= 1000):
        steps = (DecodeEndToEnd(height=height, width=width),)
        classes = None
    elif first == 3 * cells and last is not None:
        steps = (
            DecodeYolo(head="v5", layout="rows", height=height, width=width), Nms(iou=0.45, limit=300)
        )  # fmt: skip
        classes = last - 5
    elif first is not None and (last in (None, cells) or first < (last or 0)):
        steps = (
            DecodeYolo(head="v8", keypoints=notes.keypoints, height=height, width=width),
            Nms(iou=0.7, limit=300),
        )
        classes = first - 4 - 3 * notes.keypoints
    else:
        raise misfit("yolo", output, expected=f"{cells} columns (v8) or {3 * cells} rows (v5) of candidates")
    labels = labels_inside(subject) if classes is None else _labels(subject, classes)
    moves = (Letterbox(height=image.height, width=image.width),)
    return _boxes(
        (pixels_to(subject, image, moves),),
        _Found(
            sources=(output.name,), steps=(*from_tensor(subject, output), *steps), labels=labels,
            has_keypoints=notes.keypoints > 0,
        ),
    )  # fmt: skip


def fastestdet(models: Mapping[str, Subject]) -> Specification:
    """Boxes of FastestDet: stretched, BGR, 0..1; one grid with objectness, box and classes.

    Source: dog-qiuqiu/FastestDet, module/detector.py and utils/tool.py: score = objectness**0.6 * class**0.4.

    Raises:
        FormatMismatchError: the model has another output.
    """
    subject = only("fastestdet", models)
    image = image_input("fastestdet", subject.signature, side=352)
    (output,) = _outputs("fastestdet", subject, 1)
    if len(output.shape) != 4 or None in output.shape[1:] or (output.shape[1] or 0) < 6:
        raise misfit("fastestdet", output, expected="[1, 5 + classes, rows, columns]")
    step = DecodeGrid(
        height=image.height, width=image.width, centre="tanh", size="sigmoid",
        objectness="first", objectness_power=0.6, class_power=0.4,
    )  # fmt: skip
    labels = _labels(subject, (output.shape[1] or 0) - 5)
    return _boxes(
        (pixels_to(subject, image, (_stretched(image),), order="bgr"),),
        _Found(
            sources=(output.name,),
            steps=(*from_tensor(subject, output), step, Nms(score=0.65, iou=0.45)),
            labels=labels,
        ),
    )


def ultraface(models: Mapping[str, Subject]) -> Specification:
    """Faces of UltraFace with its decoding inside: outputs of scores [1, n, 2] and corners [1, n, 4] of 0..1.

    Stretched, RGB, (x - 127) / 128.

    Raises:
        FormatMismatchError: the model has other outputs.
    """
    subject = only("ultraface", models)
    image = image_input("ultraface", subject.signature)
    boxes, scores = _faces("ultraface", subject)
    values, sources = _named(subject, boxes, scores)
    join = JoinBoxes(background=True, height=image.height, width=image.width)
    return _boxes(
        (_face_pixels(subject, image),),
        _Found(
            sources=sources, steps=(join, Nms(score=_FACE_SCORE, iou=_FACE_IOU)), labels=FACE, values=values
        ),
    )


def ultraface_raw(models: Mapping[str, Subject]) -> Specification:
    """Faces of UltraFace without its decoding: offsets [1, n, 4] from its anchors and scores [1, n, 2].

    Stretched, RGB, (x - 127) / 128; the scores are those after the model's softmax.

    Raises:
        FormatMismatchError: the model has other outputs.
    """
    subject = only("ultraface_raw", models)
    image = image_input("ultraface_raw", subject.signature)
    boxes, scores = _faces("ultraface_raw", subject)
    step = DecodeAnchors(
        height=image.height,
        width=image.width,
        strides=_FACE_STRIDES,
        sizes=tuple(tuple(float(side) for side in sides for _ in range(2)) for sides in _FACE_SIZES),
        grid="image",
        clip=True,
        background=True,
    )
    count = step.anchor_count()
    for tensor in (boxes, scores):
        if tensor.shape[1] not in (None, count):
            raise misfit("ultraface_raw", tensor, expected=f"{count} rows for its size")
    # A converted file often leaves the number of rows open.
    values, sources = _named(
        subject, boxes, scores, rows=count if None in (boxes.shape[1], scores.shape[1]) else 0
    )
    return _boxes(
        (_face_pixels(subject, image),),
        _Found(
            sources=sources, steps=(step, Nms(score=_FACE_SCORE, iou=_FACE_IOU)), labels=FACE, values=values
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a detector's outputs go through."""

    sources: tuple[str, ...]
    steps: tuple[Step, ...]
    labels: tuple[str, ...] = ()
    values: tuple[Flow, ...] = ()
    has_keypoints: bool = False


def _boxes(tensors: tuple[Flow, ...], found: _Found) -> Specification:
    return Specification(
        task="keypoints" if found.has_keypoints else "detection",
        inputs=(IMAGE,),
        tensors=tensors,
        values=found.values,
        results=(
            ResultFlow(
                name="boxes", sources=found.sources, steps=(*found.steps, ToSource()), labels=found.labels
            ),
        ),
    )


def _outputs(preset: str, subject: Subject, count: int) -> tuple[TensorSpec, ...]:
    outputs = subject.signature.outputs
    if len(outputs) != count:
        raise misfit(preset, *outputs, expected=f"{count} output" + "s" * (count > 1))
    return outputs


def _labels(subject: Subject, classes: int) -> tuple[str, ...]:
    """Return the names of so many classes: the file's own, COCO's, or none."""
    found = labels_inside(subject)
    if len(found) == classes:
        return found
    return COCO if classes == len(COCO) else ()


def _stretched(image: ImageInput) -> Resize:
    return Resize(height=image.height, width=image.width)


def _face_pixels(subject: Subject, image: ImageInput) -> Flow:
    return pixels_to(subject, image, (_stretched(image),), mean=(127.0,), std=(128.0,), divisor=1.0)


def _faces(preset: str, subject: Subject) -> tuple[TensorSpec, TensorSpec]:
    """Return the outputs with the boxes and the scores."""
    outputs = _outputs(preset, subject, 2)
    boxes = [output for output in outputs if len(output.shape) == 3 and output.shape[2] == 4]
    scores = [output for output in outputs if len(output.shape) == 3 and output.shape[2] == 2]
    if len(boxes) != 1 or len(scores) != 1:
        raise misfit(preset, *outputs, expected="an output [1, n, 4] and one [1, n, 2]")
    return boxes[0], scores[0]


def _named(
    subject: Subject, boxes: TensorSpec, scores: TensorSpec, *, rows: int = 0
) -> tuple[tuple[Flow, ...], tuple[str, str]]:
    """Return (values to add, names of boxes and scores in float32), with `rows` rows where it is not 0."""
    box_steps, score_steps = ((Reshape(shape=(rows, n)),) if rows else () for n in (4, 2))
    box_values, box_name = output_flow(subject, boxes, *box_steps, name="raw_boxes")
    score_values, score_name = output_flow(subject, scores, *score_steps, name="raw_scores")
    return (*box_values, *score_values), (box_name, score_name)
