"""The specification that a model's own metadata tells: TFLite Metadata, Ultralytics' exports, ONNX image properties.

Nothing is guessed: where the metadata leaves a step open, there is no specification. Texts of a file are read by their
grammar and never executed.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgewright.core.errors import FormatMismatchError, IntegrityError
from edgewright.core.tensors import TensorSpec
from edgewright.processing.boxes import BoxFormat, DecodeSsdOutputs
from edgewright.processing.image_input import HALF, IMAGE, ImageInput, image_input, output_flow, pixels_to
from edgewright.processing.images import Crop
from edgewright.processing.masks import Argmax
from edgewright.processing.presets import Subject, from_tensor
from edgewright.processing.resize import Resize, ShortSide
from edgewright.processing.scores import TopK
from edgewright.processing.source import ToSource
from edgewright.processing.specification import (
    MAX_LABELS,
    Flow,
    ResultFlow,
    Specification,
    Task,
    checked_labels,
)
from edgewright.processing.step import Step
from edgewright.sources.embedded import TensorNote, TfliteNotes, read_onnx_properties, read_tflite_notes

_LITERT_SUFFIXES = (".tflite", ".lite")
_EXPORT_FILES = ("metadata.json", "temp_meta.txt")
_MAX_TEXT = 1 << 20
_MAX_KEYPOINTS = 1000
_MAX_TITLE = 80
# One entry of {0: 'person', 1: "potter's wheel"}, as Python writes a dictionary.
_ENTRY = re.compile(
    r"""\s*["']?(\d{1,6})["']?\s*:\s*('(?:[^'\\\n]|\\.){0,600}'|"(?:[^"\\\n]|\\.){0,600}")\s*(,|\})"""
)
_NUMBER = re.compile(r"\d{1,6}")
_FORMATS: Mapping[tuple[int, ...], BoxFormat] = {(0, 1, 2, 3): "xyxy", (1, 0, 3, 2): "yxyx"}
# Words in the names that TFLite Metadata gives the outputs of a detector.
_DETECTOR = ("location", "categor", "score", "number")


@dataclass(frozen=True, kw_only=True)
class ExportNotes:
    """What Ultralytics writes into an export; empty where the file says nothing.

    Attributes:
        task: detect, segment, pose, classify, obb.
        names: of the classes.
        keypoints: of each box.
    """

    task: str = ""
    names: tuple[str, ...] = ()
    keypoints: int = 0


def infer(subject: Subject) -> Specification | None:
    """Return the specification that the file of `subject` tells of itself; None where it tells none or too little.

    Raises:
        FormatMismatchError: it tells of a task that there are no steps for, or of tensors that the model does not have.
        IntegrityError, UsageError: its metadata is damaged.
    """
    if not subject.path.is_file():
        return None
    notes = export_notes(subject)
    if notes.task:
        return _from_export(subject, notes)
    if subject.path.suffix.lower() in _LITERT_SUFFIXES:
        return _from_tflite(subject, read_tflite_notes(subject.path))
    if subject.path.suffix.lower() == ".onnx":
        return _from_properties(subject, read_onnx_properties(subject.path))
    return None


def labels_inside(subject: Subject) -> tuple[str, ...]:
    """Return the names of the classes that the file of `subject` holds; none where it holds none."""
    notes = export_notes(subject)
    if notes.names or not _is_litert(subject.path):
        return notes.names
    found = read_tflite_notes(subject.path)
    for output in found.outputs:
        if output.labels in found.files:
            return _labels(found, output, subject.path)
    return ()


def export_notes(subject: Subject) -> ExportNotes:
    """Return what Ultralytics wrote into the file of `subject`.

    Raises:
        IntegrityError: it is not in the form that Ultralytics writes.
    """
    path = subject.path
    texts: dict[str, str] = {}
    if path.suffix.lower() == ".onnx" and path.is_file():
        texts = read_onnx_properties(path)
    elif _is_litert(path):
        files = read_tflite_notes(path).files
        for name in _EXPORT_FILES:
            if name in files and len(files[name]) <= _MAX_TEXT:
                texts = _export_texts(files[name], path)
    if "task" not in texts or "names" not in texts:
        return ExportNotes()
    keypoints = [int(number) for number in _NUMBER.findall(texts.get("kpt_shape", "")[:_MAX_TITLE])]
    if keypoints and (len(keypoints) != 2 or keypoints[1] != 3 or keypoints[0] > _MAX_KEYPOINTS):
        raise IntegrityError(
            f"{path}: its metadata has keypoints of the shape {keypoints}; [count, 3] is expected. Export it again."
        )
    return ExportNotes(
        task=texts["task"][:_MAX_TITLE],
        names=read_names(texts["names"], what=str(path)),
        keypoints=keypoints[0] if keypoints else 0,
    )


def read_names(text: str, *, what: str) -> tuple[str, ...]:
    """Return the names in a dictionary as Python or JSON writes it: {0: 'person', 1: 'bicycle'}.

    Raises:
        IntegrityError: it is something else, or leaves out a number.
    """
    names: dict[int, str] = {}
    place = text.find("{") + 1
    is_closed = False
    while place and not is_closed and len(text) <= _MAX_TEXT and len(names) < MAX_LABELS:
        entry = _ENTRY.match(text, place)
        if entry is None:
            break
        try:
            # One quoted string of bounded length: nothing in it nests.
            names[int(entry[1])] = str(ast.literal_eval(entry[2]))
        except (ValueError, SyntaxError) as err:
            raise IntegrityError(f"{what}: the name of class {entry[1]} is no string: {err}.") from err
        place, is_closed = entry.end(), entry[3] == "}"
    if not is_closed or text[place:].strip() or sorted(names) != list(range(len(names))):
        raise IntegrityError(
            f"{what}: its metadata has the names {text[:_MAX_TITLE]!r}; {{0: 'person', 1: ...}} is expected. "
            "Export it again."
        )
    return checked_labels([names[i] for i in range(len(names))], what=f"metadata of {what}")


def _export_texts(content: bytes, path: Path) -> dict[str, str]:
    """Return the entries of `metadata.json`, or of the dictionary in `temp_meta.txt`, as texts."""
    try:
        text = content.decode()
        record = json.loads(text) if text.lstrip().startswith('{"') else None
    except (UnicodeDecodeError, ValueError, RecursionError) as err:
        raise IntegrityError(f"{path}: its metadata is no JSON: {err}. Export it again.") from err
    if isinstance(record, dict):
        texts = {str(key): str(value) for key, value in record.items() if not isinstance(value, dict)}
        names = record.get("names")
        if isinstance(names, dict):
            texts["names"] = "{" + ", ".join(f"{key}: {str(value)!r}" for key, value in names.items()) + "}"
        return texts
    # Python's way to write the dictionary: its values are texts, lists and one dictionary.
    texts = {}
    for key, pattern in (
        ("task", r"'(\w{1,40})'"),
        ("kpt_shape", r"(\[[\d, ]{1,40}\])"),
        ("names", r"(\{[^{}]*\})"),
    ):
        found = re.search(rf"'{key}':\s*{pattern}", text)
        if found is not None:
            texts[key] = found[1]
    return texts


def _from_export(subject: Subject, notes: ExportNotes) -> Specification:
    from edgewright.processing.presets_boxes import yolo

    if notes.task in ("detect", "pose"):
        return yolo({"": subject})
    if notes.task != "classify":
        raise FormatMismatchError(
            f"{subject.path} is for the task {notes.task!r}, which has no steps here; detect, pose and classify have. "
            "Write a processing.toml."
        )
    # Ultralytics classifies the centre square, 0..1, and its models give probabilities.
    image = image_input("metadata", subject.signature, side=224)
    moves = (
        ShortSide(size=max(image.height, image.width), antialias=True),
        Crop(height=image.height, width=image.width),
    )
    return _classification(subject, pixels_to(subject, image, moves), notes.names, None)


def _from_properties(subject: Subject, properties: Mapping[str, str]) -> Specification | None:
    """Return the specification of ONNX's standard image properties, for a classifier."""
    ranges: Mapping[str, tuple[float, tuple[float, ...]]] = {
        "NominalRange_0_255": (1.0, (0.0,)),
        "Normalized_0_1": (255.0, (0.0,)),
        "Normalized_1_1": (255.0, HALF),
    }
    orders: Mapping[str, Literal["rgb", "bgr"]] = {"Rgb8": "rgb", "Bgr8": "bgr", "Gray8": "rgb"}
    taken = ranges.get(properties.get("Image.NominalPixelRange", ""))
    order = orders.get(properties.get("Image.BitmapPixelFormat", ""))
    outputs = subject.signature.outputs
    if taken is None or order is None or len(outputs) != 1 or len(outputs[0].shape) != 2:
        return None
    image = image_input("metadata", subject.signature)
    divisor, mean = taken
    moves = (Resize(height=image.height, width=image.width, antialias=True),)
    flow = pixels_to(
        subject, image, moves, order=order, mean=mean, std=HALF if any(mean) else (1.0,), divisor=divisor
    )
    return _classification(subject, flow, (), None)


def _from_tflite(subject: Subject, notes: TfliteNotes) -> Specification | None:
    """Return the specification of TFLite Metadata, as TFLite's Task Library reads it: the image is stretched."""
    signature = subject.signature
    if len(notes.inputs) != 1 or len(signature.inputs) != 1 or notes.inputs[0].content != "image":
        return None
    if len(notes.outputs) != len(signature.outputs):
        return None
    taken = notes.inputs[0]
    image = image_input("metadata", signature)
    is_integer = image.tensor.dtype != "float32"
    if (not taken.mean and not is_integer) or (taken.colours == "grey") != (image.channels == 1):
        return None
    if taken.mean and not all(count in (1, image.channels) for count in (len(taken.mean), len(taken.std))):
        raise FormatMismatchError(
            f"{subject.path}: its metadata normalizes {len(taken.mean)} and {len(taken.std)} channels, but the model "
            f"takes {image.channels}."
        )
    if taken.mean:
        flow = pixels_to(
            subject, image, (_stretched(image),), mean=taken.mean, std=taken.std or (1.0,), divisor=1.0
        )
    else:
        flow = pixels_to(subject, image, (_stretched(image),), is_raw=True)
    if len(notes.outputs) == 1:
        (output,) = signature.outputs
        labels = _labels(notes, notes.outputs[0], subject.path) if notes.outputs[0].labels else ()
        if len(output.shape) == 2:
            return _classification(subject, flow, labels, notes.outputs[0].threshold)
        if len(output.shape) == 4 and labels:
            return _segmentation(subject, flow, output, labels)
        return None
    return _detection(subject, image, flow, notes)


def _classification(
    subject: Subject, flow: Flow, labels: tuple[str, ...], threshold: float | None
) -> Specification:
    (output,) = subject.signature.outputs
    if len(output.shape) != 2 or (labels and output.shape[1] not in (None, len(labels))):
        raise FormatMismatchError(
            f"{subject.path} names {len(labels)} classes, but its output is {output}. Its metadata is another model's."
        )
    steps = (*from_tensor(subject, output), TopK(k=min(5, output.shape[1] or 5), threshold=threshold))
    return _specification("classification", flow, "classes", (output.name,), steps, labels)


def _segmentation(
    subject: Subject, flow: Flow, output: TensorSpec, labels: tuple[str, ...]
) -> Specification | None:
    classes = output.shape[3]
    if classes != len(labels):
        return None
    steps = (*from_tensor(subject, output), Argmax(), ToSource())
    return _specification("segmentation", flow, "mask", (output.name,), steps, labels)


def _detection(subject: Subject, image: ImageInput, flow: Flow, notes: TfliteNotes) -> Specification | None:
    """Return the specification of a detector by the names of its outputs: location, category, score, number."""
    places = [
        next((i for i, note in enumerate(notes.outputs) if word in note.name.lower()), None)
        for word in _DETECTOR
    ]
    found = [place for place in places if place is not None]
    if len(notes.outputs) != len(_DETECTOR) or sorted(found) != list(range(len(_DETECTOR))):
        return None
    boxes, categories, scores, _ = (notes.outputs[place] for place in found)
    form = _FORMATS.get(boxes.box_order)
    if form is None:
        return None
    size = (image.height, image.width) if boxes.is_unit else (0, 0)
    threshold = 0.5 if scores.threshold is None else scores.threshold
    step = DecodeSsdOutputs(score=threshold, format=form, height=size[0], width=size[1])
    labels = _labels(notes, categories, subject.path) if categories.labels else ()
    names = [subject.signature.outputs[place] for place in found]
    flows = [output_flow(subject, tensor, name=f"output_{i}") for i, tensor in enumerate(names)]
    made = _specification(
        "detection", flow, "boxes", tuple(name for _, name in flows), (step, ToSource()), labels
    )
    return replace(made, values=tuple(value for values, _ in flows for value in values))


def _specification(
    task: Task,
    flow: Flow,
    name: str,
    sources: tuple[str, ...],
    steps: tuple[Step, ...],
    labels: tuple[str, ...],
) -> Specification:
    result = ResultFlow(name=name, sources=sources, steps=steps, labels=labels)
    return Specification(task=task, inputs=(IMAGE,), tensors=(flow,), results=(result,))


def _stretched(image: ImageInput) -> Resize:
    return Resize(height=image.height, width=image.width)


def _labels(notes: TfliteNotes, note: TensorNote, path: Path) -> tuple[str, ...]:
    """Return the labels of an output from the packed file that its metadata names."""
    if note.labels not in notes.files:
        raise IntegrityError(
            f"{path}: its metadata names the label file {note.labels!r:.80}, which is not packed behind the model. "
            "Pack it, or write a processing.toml."
        )
    try:
        lines = notes.files[note.labels].decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as err:
        raise IntegrityError(
            f"{path}: the packed file {note.labels!r:.80} is not UTF-8: {err.reason}."
        ) from err
    return checked_labels(lines, what=f"{note.labels!r:.80} in {path}")


def _is_litert(path: Path) -> bool:
    return path.suffix.lower() in _LITERT_SUFFIXES and path.is_file()
