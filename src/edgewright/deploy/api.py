"""The typed API of a bundle, as every language's templates see it: fields, kinds, words for people."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.deploy.records import Content
from edgewright.processing.streaming import stream_input
from edgewright.processing.values import ValueType


@dataclass(frozen=True, kw_only=True)
class Field:
    """An input or a result.

    Attributes:
        name: in the specification.
        field: in the language, snake_case, never a keyword.
        kind: of the value, as in the specification.
        text: what it is, a sentence without its full stop.
    """

    name: str
    field: str
    kind: str
    text: str


_RESULTS = {
    "classes": "classes with their scores, the best first",
    "boxes": "boxes in pixels of the image, the best first",
    "mask": "the index of a class for each pixel",
    "keypoints": "points in pixels of the image, with scores",
    "audio": "samples, -1..1",
    "codes": "indices of recognised classes, in time",
}


def input_text(made: ValueType, *, is_stream: bool) -> str:
    """Return what an app hands over."""
    if made.kind == "image":
        size = f", {made.width}x{made.height} pixels" if made.width else " of any size"
        return f"an image{size}"
    if made.kind == "audio":
        length = f"{made.shape[0]} samples" if made.shape[0] else "any number of samples"
        return f"{'the next ' if is_stream else ''}{length} of mono sound at {made.rate_hz} Hz, -1..1"
    dims = " x ".join("n" if size is None else str(size) for size in made.shape)
    return f"{made.kind}, {made.dtype}, {dims}"


def result_text(made: ValueType) -> str:
    """Return what an app gets."""
    dims = " x ".join("n" if size is None else str(size) for size in made.shape)
    return _RESULTS.get(made.kind, f"numbers, {dims}")


def is_stream(content: Content) -> bool:
    """Return whether the specification takes a hop of a stream a run."""
    return stream_input(content.plan) is not None


def hop(content: Content) -> int:
    """Return the samples of one hop of a stream; 0 for a specification without one."""
    row = stream_input(content.plan)
    return 0 if row is None else row.samples


def sample_input(content: Content) -> str:
    """Return what a sample app takes its input from: "camera", "microphone", or "" where neither gives it."""
    rows = content.plan.specification.inputs
    return {"image": "camera", "audio": "microphone"}.get(rows[0].kind, "") if len(rows) == 1 else ""


def microphone_samples(content: Content) -> int:
    """Return the samples of sound that a sample app gives the model at a time: what is fixed, else a second."""
    row = content.plan.specification.inputs[0]
    shape = content.plan.types[row.name].shape
    return hop(content) or (shape[0] if shape else None) or row.rate_hz or 16_000
